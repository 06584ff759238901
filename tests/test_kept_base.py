"""The quantised base on disk: the same bits, under a name that changes with what it depends on, or not at all."""

import threading
from pathlib import Path

import pytest
import torch

from jinmaek.core.errors import ModelError
from jinmaek.training import kept_base as keeping
from jinmaek.training.kept_base import KeptBase, kept_base
from jinmaek.training.model import base_kept, choose_device, load_base
from jinmaek.training.session import load_session_data
from jinmaek.training.session import make_session as build

GPU = torch.device("cuda", 0)


@pytest.fixture
def recipe(make_recipe):
    return make_recipe(model={"quantization": "nf4", "compute_dtype": "fp32"})


@pytest.fixture
def kept(recipe, tmp_path, monkeypatch):
    """The base of ``recipe``, written as training does beside its steps."""
    monkeypatch.setattr(keeping, "SMALLEST", 0)
    kept = KeptBase(tmp_path / "bases" / "tiny")
    written = load_base(recipe.model, "fp32", choose_device(), kept=kept)
    assert kept.writing
    for thread in threading.enumerate():
        if thread.name.startswith("jinmaek-kept-base"):
            thread.join()
    assert kept.is_whole
    assert written is not None
    return kept


def bits(model):
    found = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    return {name: weight.contiguous().view(torch.uint8) if weight.dim() else weight for name, weight in found.items()}


def test_what_is_read_has_the_bits_of_what_was_written(recipe, kept):
    first = bits(load_base(recipe.model, "fp32", choose_device()))
    again = bits(load_base(recipe.model, "fp32", choose_device(), kept=kept))
    assert first.keys() == again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())


def test_a_step_on_it_has_the_same_digest_and_names_what_the_user_named(recipe, kept):
    from jinmaek.training.step import run_step

    loaded = load_session_data(recipe)
    digests = []
    for base in (None, load_base(recipe.model, "fp32", choose_device(), kept=kept)):
        session = build(recipe, loaded, base)
        digests.append(run_step(session.training, 1, session.plan.batches(1)).record().digest)
        assert session.training.model.peft_config["default"].base_model_name_or_path == recipe.model.name
    assert digests[0] == digests[1]


def test_a_broken_one_is_forgotten_and_made_again(recipe, kept):
    weights = next(kept.path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    again = KeptBase(kept.path)
    assert load_base(recipe.model, "fp32", choose_device(), kept=again) is not None
    assert again.writing


def test_a_full_disk_leaves_nothing(recipe, tmp_path, monkeypatch):
    kept = KeptBase(tmp_path / "bases" / "tiny")
    model = load_base(recipe.model, "fp32", choose_device())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_pretrained", full)
    kept.write(model, model.state_dict())
    assert not list((tmp_path / "bases").iterdir())


def test_no_room_or_a_small_one_is_not_written(recipe, tmp_path, monkeypatch):
    kept = KeptBase(tmp_path / "bases" / "tiny")
    load_base(recipe.model, "fp32", choose_device(), kept=kept)
    assert not kept.writing, "far less than a GiB"
    monkeypatch.setattr(keeping, "SMALLEST", 0)
    monkeypatch.setattr(keeping, "_ROOM", 1 << 40)
    load_base(recipe.model, "fp32", choose_device(), kept=kept)
    assert not kept.writing


def test_its_name_changes_with_what_it_depends_on(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("JINMAEK_CACHE", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    section = recipe.model

    def name(section=section, commit=None, device=GPU):
        found = kept_base(section, folder if commit is None else Path("not there"), commit, device)
        return None if found is None else found.path

    first = name()
    assert first is not None
    assert first.is_relative_to(tmp_path)
    assert name() == first
    others = [name(section.model_copy(update={key: value})) for key, value in (
        ("double_quant", False), ("compute_dtype", "bf16"), ("quantization", "fp4"))]  # fmt: skip
    (folder / "model.safetensors").write_bytes(b"12")
    others += [name(), name(commit="abc"), name(commit="abd")]
    assert len({first, *others}) == 7


@pytest.mark.parametrize(
    "change",
    [{"keep_quantized": False}, {"quantization": "none"}, {"quantization": "int8"}, {"trust_remote_code": True}],
)
def test_what_is_not_kept(recipe, change, tmp_path):
    assert kept_base(recipe.model.model_copy(update=change), tmp_path, None, GPU) is None
    assert kept_base(recipe.model, tmp_path, None, torch.device("cpu")) is None
    assert kept_base(recipe.model, tmp_path / "hub", None, GPU) is None, "no commit known"


def test_a_missing_model_is_still_a_clear_error(recipe):
    with pytest.raises(ModelError, match="not-there"):
        base_kept(recipe.model.model_copy(update={"name": "/not-there"}), torch.device("cpu"))
