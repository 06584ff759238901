"""What two runs are held against each other with: hashes, places, recipes, the budget of rebuilds, words."""

import math
from typing import get_args

import pytest
import torch

from jinmaek.core.parting import Explanation, ExplanationReason, Parting, Place, PlaceKind, Replay
from jinmaek.core.verdict import Difference
from jinmaek.replay import against_explain
from jinmaek.replay.against_settings import mixed_values, other_content
from jinmaek.replay.against_trace import Entry, bits_of, distance, place_at
from partings import check_told


def settings(**changed):
    """A manifest whose twenty settings ``optim.s0`` … have value 0, but for those changed."""
    values = {f"s{number}": 0 for number in range(20)} | changed
    return {"settings": {"name": "x", "model": {"name": "m"}, "data": {"source": "d"}, "optim": values}}


def trials_of(monkeypatch, num_differing, needed):
    """Trials in which a set of settings explains if it holds all of ``needed``; no recipe is made."""
    against = settings(**{f"s{number}": 1 for number in range(num_differing)})
    trials = against_explain.Trials(None, settings(), against, {}, 1, lambda explanation: None)

    def rebuilt(self, recipe, names):
        explains = {f"optim.{name}" for name in needed} <= set(names)
        return against_explain._result(names, "explains" if explains else "does_not")

    monkeypatch.setattr(against_explain.Trials, "_rebuilt", rebuilt)
    monkeypatch.setattr(against_explain, "recipe_from_dict", dict)
    monkeypatch.setattr(against_explain, "release_memory", lambda: None)
    return trials, trials.explain("lr")


@pytest.mark.parametrize("num_differing", [1, 2, 5, 8, 12, 20])
def test_no_more_is_rebuilt_than_allowed(monkeypatch, num_differing):
    last = f"s{num_differing - 1}"
    for needed in (["s0"], [last], sorted({"s0", last}), ["absent"]):
        trials, found = trials_of(monkeypatch, num_differing, needed)
        assert trials.num_rebuilds <= against_explain.MOST_REBUILDS
        shown = [each for each in found if each.outcome == "explains"]
        assert len(shown) == (needed != ["absent"])
        for each in shown:
            named = set(each.parts or [each.name])
            assert named >= {f"optim.{name}" for name in needed}
            assert num_differing > 5 or len(named) == len(needed), "with few settings there is time to find the fewest"


def test_a_swapped_recipe_leaves_out_what_it_would_refuse():
    def manifest(**sections):
        return {"settings": {"name": "x", "model": {"name": "m"}, "data": {"source": "d"}} | sections}

    run = manifest(train={"precision": "fp16", "loss_scale_init": 128.0, "max_steps": 9, "epochs": None})
    other = manifest(train={"precision": "bf16", "loss_scale_init": 65536.0, "max_steps": None, "epochs": 2.0})
    mixed = mixed_values(run, other, ["train.precision"])
    assert mixed["train"] == {"max_steps": 9}, "bf16 is the default; a loss scale would be ignored"
    assert mixed_values(run, other, ["train.epochs"])["train"].get("epochs") is None
    assert mixed_values(run, other, ["train.max_steps", "train.epochs"])["train"]["epochs"] == 2.0


def test_fingerprints_follow_from_settings_or_do_not():
    assert other_content("data", ["data", "optim.lr"])
    assert not other_content("data", ["data", "data.limit"])
    assert not other_content("order", ["data", "order"])
    assert other_content("base", ["base", "torch"])


def test_every_bit_and_its_place_is_hashed():
    given = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    seen = {bits_of(given)}
    assert bits_of(given.clone()) in seen
    for index in range(0, 3000, 7):
        other = given.clone()
        other.view(-1)[index] *= -1
        other.view(-1)[(index + 4) % 3000] *= -1
        seen.add(bits_of(other))
        seen.add(bits_of(given.roll(index + 1)))
    assert len(seen) == 1 + 2 * len(range(0, 3000, 7))
    assert bits_of(given.T) == bits_of(given.T.contiguous())
    assert bits_of(torch.zeros(0)) == 0
    assert bits_of(torch.tensor(True)) != bits_of(torch.tensor(False))
    large = torch.zeros((1 << 22) + 5, dtype=torch.uint8)
    before = bits_of(large)
    large[-1] = 1
    assert bits_of(large) != before


def test_distance_counts_what_differs_and_knows_nan():
    nan, inf = float("nan"), float("inf")
    assert distance(torch.tensor([1.0, nan, inf]), torch.tensor([1.5, nan, inf])) == (0.5, 1)
    assert distance(torch.tensor([3, 7]), torch.tensor([7, 7])) == (4.0, 1)
    assert distance(torch.tensor([True, False]), torch.tensor([False, False])) == (1.0, 1)
    largest, count = distance(torch.tensor([1.0, nan]), torch.tensor([1.0, 2.0]))
    assert (math.isnan(largest), count) == (True, 1)


def test_the_place_is_what_one_run_lacks_where_the_orders_differ():
    def entry(name, bits=0, step=1):
        return Entry(step, "forward", name, 1, (2,), bits, None)

    one, other = [entry("a"), entry("b"), entry("c")], [entry("a"), entry("c")]
    assert (place_at(1, one, other).name, place_at(1, one, other).only_in) == ("b", "run")
    assert (place_at(1, other, one).name, place_at(1, other, one).only_in) == ("b", "against")
    assert place_at(2, one, one[:2]).only_in == "run"
    late = place_at(3, [*one, entry("a", 1, 2)], [*one, entry("a", 2, 2)])
    assert (late.step, late.number, late.count) == (2, 1, 1)


@pytest.mark.parametrize("kind", get_args(PlaceKind))
def test_every_kind_and_reason_has_words(kind):
    parting = Parting(
        run="runs/bad",
        against="runs/good",
        outcome="PARTED",
        num_common_steps=1200,
        first_step=4,
        differences=(Difference(name="data", recorded="", now="0123"),),
        place=Place(step=4, kind=kind, name="", number=1, count=2, run_value=1.0, against_value=1.0 + 1e-12),
        max_difference=1e-12,
        explained_by=tuple(
            Explanation(name="a", outcome="not_tested", reason=reason, step=4, said={"en": "why.", "ko": "이유."})
            for reason in get_args(ExplanationReason)
        ),
        replays=tuple(
            Replay(side="run", path="runs/bad", reproduced="not_run", reason=reason, said={"en": "why.", "ko": "이유."})
            for reason in ("cannot_load", "out_of_memory", "too_far")
        ),
    )
    shown = check_told(parting)
    assert "1.000000000001" in shown["en"], "what differs is not rounded to be the same"
