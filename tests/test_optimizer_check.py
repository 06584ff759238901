"""The optimizer's self-test: sound ones pass, every way of being broken is caught before the first step."""

import dataclasses
import importlib.metadata
import math

import pytest
import torch

from broken_optimizer import broken_map, broken_second_moments
from jinmaek.config.recipe import OptimSection
from jinmaek.core.errors import ModelError
from jinmaek.training import optim, optimizer_check
from jinmaek.training.optimizer_check import check_optimizer, known_bad_version, require_sound

CPU = torch.device("cpu")
NAMES = ["adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"]
EIGHT_BIT = ["adamw_8bit", "paged_adamw_8bit"]
SETTINGS = {
    "default": {},
    "slow": {"lr": 1e-6, "weight_decay": 0.01},
    "fast": {"lr": 1e-2, "weight_decay": 0.1},
    "qlora": {"beta2": 0.99},
    "llm": {"beta2": 0.95, "weight_decay": 0.1},
    "long": {"beta1": 0.95, "beta2": 0.99},
    "equal": {"beta1": 0.99, "beta2": 0.99},
    "even": {"beta1": 0.99, "beta2": 0.999},
}


def each_setting(function):
    return pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)(function)


def second_moment_scale(state):
    """What the second moment is proportional to: the state itself, or the scales of its blocks."""
    return next(state[name] for name in ("exp_avg_sq", "absmax2", "state2") if name in state)


def never_decays(optimizer, state):
    second_moment_scale(state).div_(optimizer.param_groups[0]["betas"][1])


def forgets(optimizer, state):
    second_moment_scale(state).zero_()


def halves(optimizer, state):
    second_moment_scale(state).mul_(0.5)


def believes_to_be_late(optimizer, state):
    """No bias correction: what it divides by is 1 after a million steps."""
    state["step"] = torch.tensor(1e6) if torch.is_tensor(state["step"]) else 10**6


def becomes_nan(optimizer, state):
    second_moment_scale(state).fill_(math.nan)


def breaking(break_state):
    """An optimizer whose state is broken before each step but the first, where it has none."""

    def make(params, section):
        (weight,) = params
        optimizer = optim.make_optimizer([weight], section)
        step = optimizer.step

        def broken_step():
            if not optimizer.state[weight]:
                lr, before = optimizer.param_groups[0]["lr"], weight.detach().clone()
                optimizer.param_groups[0]["lr"] = 0.0
                grad, weight.grad = weight.grad, torch.zeros_like(weight)
                step()  # makes the state
                weight.grad, optimizer.param_groups[0]["lr"] = grad, lr
                weight.data.copy_(before)
                optimizer.state[weight]["step"] -= 1
            break_state(optimizer, optimizer.state[weight])
            step()

        optimizer.step = broken_step
        return optimizer

    return make


def changed(**settings):
    """AdamW of torch with other settings than it was asked for."""

    def make(params, section):
        optimizer = optim.make_optimizer(params, OptimSection(**section.model_dump() | {"name": "adamw"}))
        for name, value in settings.items():
            optimizer.param_groups[0][name] = value
        return optimizer

    return make


def coupled_decay(params, section):
    return torch.optim.Adam(
        params, section.lr, (section.beta1, section.beta2), section.eps, section.weight_decay, foreach=False
    )


@each_setting
@pytest.mark.parametrize("name", NAMES)
def test_every_installed_optimizer_is_sound(name, settings):
    check = require_sound(OptimSection(name=name, **settings), CPU)
    assert check.sound
    assert check.optimizer == name
    assert check.error < check.limit / 2, "a wide margin"
    assert check.second_moment_ratio == pytest.approx(1.0, abs=0.005)
    assert 0.9 < check.exact_largest_update < 4
    assert check.largest_update < 2 * check.exact_largest_update


@pytest.mark.parametrize("name", NAMES)
def test_unusual_settings_are_no_fault_of_the_optimizer(name):
    for settings in [{"eps": 1e-3}, {"eps": 1e-15}, {"beta1": 0.0}, {"beta2": 0.0}, {"beta2": 0.9999}, {"lr": 1e-12}]:
        assert check_optimizer(OptimSection(name=name, **settings), CPU).sound, settings


def test_the_broken_map_is_the_one_of_the_founding_case():
    assert broken_map().shape == (256,)
    assert float(broken_map().max()) == pytest.approx(0.0933, abs=1e-4)
    assert torch.equal(broken_map(), broken_map().sort().values)


@each_setting
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_the_broken_map_of_bitsandbytes_is_caught_by_what_it_does(name, settings):
    section = OptimSection(name=name, **settings)
    with broken_second_moments():
        check = check_optimizer(section, CPU)
        with pytest.raises(ModelError):
            require_sound(section, CPU)
    assert check.error > 4 * check.limit, "the updates alone would do"
    assert check.second_moment_ratio < 0.05, "and so would the second moment"
    assert check.largest_update > 10 * check.exact_largest_update
    assert check_optimizer(section, CPU).sound, "taken out again"


@pytest.mark.parametrize("name", ["adamw", "paged_adamw_32bit"])
def test_the_broken_map_is_no_matter_to_32_bit_ones(name):
    with broken_second_moments():
        assert check_optimizer(OptimSection(name=name), CPU).sound


@each_setting
@pytest.mark.parametrize("break_state", [never_decays, forgets, halves, believes_to_be_late, becomes_nan])
@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_32bit"])
def test_a_broken_state_is_caught(monkeypatch, name, break_state, settings):
    monkeypatch.setattr(optimizer_check, "make_optimizer", breaking(break_state))
    assert not check_optimizer(OptimSection(name=name, **settings), CPU).sound


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_32bit"])
def test_the_breaking_itself_breaks_nothing(monkeypatch, name):
    monkeypatch.setattr(optimizer_check, "make_optimizer", breaking(lambda optimizer, state: None))
    assert check_optimizer(OptimSection(name=name), CPU).sound


@each_setting
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrong", [{"maximize": True}, {"lr": 0.0}, {"lr": 0.1}, {"betas": (0.5, 0.97)}, {"weight_decay": 0.5}], ids=str
)
def test_a_wrong_rule_is_caught(monkeypatch, name, wrong, settings):
    monkeypatch.setattr(optimizer_check, "make_optimizer", changed(**wrong))
    assert not check_optimizer(OptimSection(name=name, **settings), CPU).sound


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [changed(weight_decay=0.0), coupled_decay], ids=["none", "coupled"])
def test_a_wrong_weight_decay_is_caught(monkeypatch, name, make):
    monkeypatch.setattr(optimizer_check, "make_optimizer", make)
    assert not check_optimizer(OptimSection(name=name, weight_decay=0.01), CPU).sound


def test_a_state_that_cannot_be_read_leaves_the_updates(monkeypatch):
    monkeypatch.setattr(optimizer_check, "_second_moment", lambda optimizer, weight: None)
    check = check_optimizer(OptimSection(name="adamw_8bit"), CPU)
    assert check.second_moment_ratio is None
    assert check.sound
    with broken_second_moments(), pytest.raises(ModelError, match="second moment is -"):
        require_sound(OptimSection(name="adamw_8bit"), CPU)


@pytest.mark.parametrize("field", ["error", "second_moment_ratio"])
def test_nan_is_unsound(field):
    check = check_optimizer(OptimSection(), CPU)
    assert not dataclasses.replace(check, **{field: math.nan}).sound


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ("0.35.4", False),
        ("0.36.0", True),
        ("0.36", True),
        ("0.36.0.post2", True),
        ("0.37.2", True),
        ("0.41.0", True),
        ("0.41.0+cu118", True),
        ("0.41.1", False),
        ("0.41.2.post2", False),
        ("0.50.2", False),
        ("1.0", False),
        ("of my own", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_broken_versions_are_known(name, version, bad):
    assert known_bad_version(name, version) is (bad and name in EIGHT_BIT)


def test_a_broken_version_is_refused_before_it_is_imported(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"bitsandbytes": "0.41.0", "torch": "2.9"}[name])
    monkeypatch.setattr(optimizer_check, "make_optimizer", lambda params, section: pytest.fail("was made"))
    with pytest.raises(ModelError) as raised:
        require_sound(OptimSection(name="paged_adamw_8bit"), CPU)
    assert "bitsandbytes 0.41.0 is broken" in str(raised.value)
    assert "bitsandbytes 0.41.0 에는 결함이 있습니다" in raised.value.render("ko")


def test_the_message_tells_the_numbers_and_the_way_out_in_both_languages():
    with broken_second_moments(), pytest.raises(ModelError) as raised:
        require_sound(OptimSection(name="adamw_8bit"), CPU)
    version = importlib.metadata.version("bitsandbytes")
    for text in (str(raised.value), raised.value.render("ko")):
        assert f"adamw_8bit (bitsandbytes {version})" in text
        assert "0.25" in text
        assert 'optim.name = "adamw"' in text
    assert "습니다" in raised.value.render("ko")


def test_adamw_itself_is_not_the_way_out_of_adamw(monkeypatch):
    monkeypatch.setattr(optimizer_check, "make_optimizer", changed(maximize=True))
    with pytest.raises(ModelError, match='"paged_adamw_32bit"'):
        require_sound(OptimSection(), CPU)


@pytest.mark.parametrize("name", NAMES)
def test_no_random_number_is_drawn_and_the_result_is_always_the_same(name):
    before = torch.get_rng_state()
    first = check_optimizer(OptimSection(name=name), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert check_optimizer(OptimSection(name=name), CPU) == first


@pytest.mark.parametrize("name", NAMES)
def test_a_model_and_its_optimizer_are_left_alone(name):
    model = torch.nn.Linear(128, 64, bias=False)
    section = OptimSection(name=name)
    optimizer = optim.make_optimizer(model.parameters(), section)
    model(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    kept = [value.clone() for value in (model.weight, model.weight.grad)]
    state = {key: value for key, value in optimizer.state[model.weight].items() if torch.is_tensor(value)}
    copied = {key: value.clone() for key, value in state.items()}
    check_optimizer(section, CPU)
    assert torch.equal(model.weight, kept[0])
    assert torch.equal(model.weight.grad, kept[1])
    assert all(torch.equal(state[key], copied[key]) for key in copied)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each_setting
@pytest.mark.parametrize("name", NAMES)
def test_the_same_holds_on_the_gpu(name, settings):
    device = torch.device("cuda", 0)
    section = OptimSection(name=name, **settings)
    before = torch.cuda.get_rng_state(device)
    check = check_optimizer(section, device)
    assert check.sound, check
    assert check.error < check.limit / 2
    assert torch.equal(torch.cuda.get_rng_state(device), before)
    with broken_second_moments():
        assert check_optimizer(section, device).sound is (name not in EIGHT_BIT)
