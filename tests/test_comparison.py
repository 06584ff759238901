"""Runs held against each other: windows, intervals with known truth over many seeds, refusals, and what is said."""

import json
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinmaek.comparison import compare
from jinmaek.comparison.differences import held_out_difference, late_half, mean_difference
from jinmaek.comparison.noise_floor import noise_floor
from jinmaek.comparison.reading import Row, read
from jinmaek.comparison.windows import common_windows
from jinmaek.core.comparison import Outcome
from jinmaek.core.errors import LogError
from jinmaek.core.record import EvaluationRecord, RunFacts, StepRecord
from jinmaek.detect import diagnose
from jinmaek.explain import tell_comparison
from jinmaek.report import comparison_json


class Source:
    def __init__(self, name, items, facts=None):
        self.name, self._items, self.unread = name, items, 0
        self.facts = facts or RunFacts(source="fake", filters_loss=False)

    def items(self):
        yield from self._items


def manifest(**settings):
    sections = {"train": {"seed": 1, "max_steps": 100}, "model": {"name": "m"}}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        sections.setdefault(section, {})[name] = value
    prints = {"data": "d" * 64, "order": "o" * 64, "initial_adapter": "i" * 64, "base": "b" * 64}
    return {"settings": sections, "fingerprints": prints, "versions": {"torch": "2.9"}, "device": {"type": "cpu"},
            "determinism": "exact", "kernels": "plain"}  # fmt: skip


def run_of(
    name,
    losses,
    *,
    width=1,
    lr=None,
    digests=None,
    examples=None,
    evaluations=(),
    run_manifest=None,
    held_out=(),
    facts=None,
):
    records = [
        StepRecord(
            step=width * (at + 1),
            num_steps=width,
            loss=None if loss is None else float(loss),
            lr=lr[at] if lr is not None else 1e-4,
            digest=digests[at] if digests else None,
            example_ids=examples[at] if examples else None,
        )
        for at, loss in enumerate(losses)
    ]
    found = read(
        Source(name, sorted([*records, *evaluations], key=lambda item: item.step), facts), name, lambda count: None
    )
    found.manifest, found.held_out = run_manifest, held_out
    return found


def batches(rng, num, deviation=0.2):
    """The noise that a batch brings into the loss of whoever learns it."""
    return 2.0 + rng.normal(0, deviation, num)


# Known truth, with the rates at which it is found. docs/compare.md states them; 200 pairs each.


def outcomes(make, tries=200):
    rng = np.random.default_rng(11)
    return [pair_of(*make(rng)).outcome for _ in range(tries)]


TEMPLATE = {}


def pair_of(one, two, margin=None):
    """The pair of two series of losses; what the rules say of the runs is not asked anew each time."""
    if not TEMPLATE:
        TEMPLATE["run"] = run_of("a", batches(np.random.default_rng(0), 50))
    runs = [
        replace(
            TEMPLATE["run"],
            name=name,
            place=name,
            rows=rows(*[(at, 1, loss) for at, loss in enumerate(losses.tolist(), 1)]),
        )
        for name, losses in (("a", one), ("b", two))
    ]
    return compare(runs, margin=margin).pairs[0]


def same_order(rng, difference, num=600, own=0.02):
    """Two runs that see the same batches; what each has of its own moves slowly, as weights do."""
    shared = batches(rng, num)
    drift = [np.convolve(rng.normal(0, own, num + 9), np.ones(10) / 10**0.5, "valid") for _ in range(2)]
    return shared + drift[0], shared + drift[1] + difference


def test_two_equal_runs_are_rarely_taken_apart():
    found = outcomes(lambda rng: same_order(rng, 0.0))
    assert found.count("separated") / len(found) <= 0.09, "nominal 5 %"


def test_a_tenth_of_the_noise_is_found_where_the_batches_are_the_same():
    """0.02 nats where a batch's loss varies by 0.2: pairing takes the batch away."""
    found = outcomes(lambda rng: same_order(rng, 0.02))
    assert found.count("separated") / len(found) >= 0.85


def test_and_rarely_where_they_are_not_which_is_said():
    def other_order(rng):
        return batches(rng, 600), batches(rng, 600) + 0.02

    found = outcomes(other_order)
    assert found.count("separated") / len(found) <= 0.35
    rng = np.random.default_rng(12)
    pair = pair_of(*other_order(rng))
    assert pair.decided.detectable > 0.02


@pytest.mark.parametrize(
    ("difference", "margin", "expected"),
    [(0.0, 0.02, "equivalent"), (0.05, 0.02, "different"), (0.02, 0.02, "not_enough")],
)
def test_equivalence_over_twenty_seeds(difference, margin, expected):
    rng, found = np.random.default_rng(13), []
    for _ in range(20):
        one, two = same_order(rng, difference)
        found.append(pair_of(one, two, margin).equivalence)
    assert found.count(expected) >= 16
    if difference == 0.0:
        assert "different" not in found
    if difference == 0.05:
        assert "equivalent" not in found


def test_a_difference_at_the_margin_is_called_equivalent_in_one_of_twenty_at_most():
    rng, wrong = np.random.default_rng(14), 0
    for _ in range(200):
        one, two = same_order(rng, 0.01, own=0.004)
        wrong += pair_of(one, two, 0.01).equivalence == "equivalent"
    assert wrong / 200 <= 0.09


def test_the_interval_of_a_difference_holds_it_nineteen_times_of_twenty():
    rng, held = np.random.default_rng(15), 0
    for _ in range(300):
        one, two = same_order(rng, 0.03)
        pairs = list(zip(one.tolist(), two.tolist(), strict=True))
        found = mean_difference(pairs)
        held += abs(found.value - 0.03) <= found.half_width()
    assert 0.90 <= held / 300 <= 0.985


def scored(rng, level, shift, noise=0.05):
    return tuple((level + shift + rng.normal(0, noise, len(level))).tolist())


def test_held_out_losses_are_paired_by_content_whatever_their_order():
    rng, held = np.random.default_rng(16), 0
    keys = [(f"k{number}", int(rng.integers(5, 60))) for number in range(80)]
    for _ in range(200):
        level = rng.gamma(4, 0.5, 80)
        one, two = scored(rng, level, 0.0), scored(rng, level, 0.03)
        order = rng.permutation(80)
        first = run_of(
            "a", [1.0], evaluations=[EvaluationRecord(step=1, loss=2.0, example_losses=one)], held_out=tuple(keys)
        )
        other = run_of("b", [1.0], evaluations=[EvaluationRecord(step=1, loss=2.0, example_losses=tuple(two[at] for at in order))],
                       held_out=tuple(keys[at] for at in order))  # fmt: skip
        told, found, num = held_out_difference(first, other)
        assert num == 80
        assert found.value == pytest.approx(told.other_loss - told.first_loss)
        held += abs(found.value - 0.03) <= found.half_width()
    assert 0.90 <= held / 200 <= 0.985


def test_examples_that_only_one_run_holds_out_are_left_out():
    rng = np.random.default_rng(17)
    level = rng.gamma(4, 0.5, 40)
    keys = tuple((f"k{number}", 10) for number in range(40))
    first = run_of(
        "a",
        [1.0],
        evaluations=[EvaluationRecord(step=1, loss=2.0, example_losses=scored(rng, level, 0)[:30])],
        held_out=keys[:30],
    )
    other = run_of(
        "b",
        [1.0],
        evaluations=[EvaluationRecord(step=1, loss=2.0, example_losses=scored(rng, level, 0)[15:])],
        held_out=keys[15:],
    )
    assert held_out_difference(first, other)[2] == 15
    assert held_out_difference(first, replace_held_out(other, keys[:0]))[1] is None


def replace_held_out(run, held_out):
    run.held_out = held_out
    return run


# Windows.


def rows(*records):
    return [Row(step, width, loss, None, None, None, None, loss) for step, width, loss in records]


def test_records_of_unlike_width_are_joined_until_they_end_together():
    fine = rows(*[(step, 10, float(step)) for step in range(10, 101, 10)])
    coarse = rows((50, 50, 1.0), (100, 50, 2.0))
    found = common_windows(fine, coarse)
    assert [(window.start, window.step) for window in found] == [(0, 50), (50, 100)]
    assert found[0].losses == (30.0, 1.0)
    assert [(b.start, b.step, b.losses[::-1]) for b in common_windows(coarse, fine)] == [
        (a.start, a.step, a.losses) for a in found
    ]


def test_a_window_with_an_unhealthy_record_has_no_loss():
    fine = rows((10, 10, 1.0), (20, 10, None), (30, 10, 3.0), (40, 10, 4.0))
    found = common_windows(fine, rows((20, 20, 1.0), (40, 20, 2.0)))
    assert [window.losses for window in found] == [None, (3.5, 2.0)]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_common_windows_cover_the_same_steps_in_both_and_nothing_twice(first, other, shift):
    def made(widths, start):
        ends = np.cumsum(widths) + start
        return rows(*[(int(end), width, 1.0) for end, width in zip(ends, widths, strict=True)])

    found = common_windows(made(first, 0), made(other, shift))
    last = -1
    for window in found:
        assert window.start >= last >= -1
        last = window.step
        for side in (window.first, window.other):
            assert (side[0].start, side[-1].step) == (window.start, window.step)
            assert sum(row.width for row in side) == window.step - window.start
    ends = {0, *np.cumsum(first)} & {shift, *(np.cumsum(other) + shift)}
    assert len(found) == max(0, len(ends) - 1)


def test_the_second_half_begins_in_the_middle():
    windows = common_windows(
        rows(*[(step, 1, 1.0) for step in range(1, 11)]), rows(*[(step, 1, 1.0) for step in range(1, 11)])
    )
    assert [window.step for window in late_half(windows)] == [6, 7, 8, 9, 10]


# What is refused.


@pytest.mark.parametrize(
    ("others", "key"),
    [
        ([], "compare.one_run"),
        ([("a", [1.0] * 5, {})], "compare.twice"),
        ([("b", [1.0] * 5, {"facts": RunFacts(source="fake", steps_known=False)})], "compare.no_steps"),
        ([("b", [1.0] * 2, {"width": 7})], "compare.no_common_windows"),
        ([("b", [], {})], "compare.no_records"),
    ],
)
def test_nonsense_is_refused_with_one_message(others, key):
    runs = [run_of("a", [1.0] * 5), *(run_of(name, losses, **more) for name, losses, more in others)]
    with pytest.raises(LogError) as caught:
        compare(runs)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert all(caught.value.render(lang) for lang in ("en", "ko"))


def test_logs_without_a_common_step_are_refused_with_their_spans():
    late = run_of("b", [1.0] * 9, width=10)
    late.rows = [row._replace(step=row.step + 500) for row in late.rows]
    with pytest.raises(LogError, match="1–50.*501–590"):
        compare([run_of("a", [1.0] * 5, width=10), late])


# What differs, and where they part.


LINEAR = {"train__max_steps": 100}


def linear(length, num=60):
    return [1e-3 * (1 - step / length) for step in range(num)]


def digests(num, parts_at=None, salt="x"):
    return [f"{step}" if parts_at is None or step < parts_at else f"{step}{salt}" for step in range(1, num + 1)]


def jinmaek(length, losses, run_manifest, **more):
    facts = RunFacts(source="jinmaek", filters_loss=False, logging_steps=1, schedule="linear", schedule_steps=length, peak_lr=1e-3,
                     max_steps=length, precision=more.pop("precision", "fp32"))  # fmt: skip
    return run_of(
        more.pop("name", str(length)),
        losses,
        lr=more.pop("lr", linear(length)),
        facts=facts,
        run_manifest=run_manifest,
        **more,
    )


def test_another_number_of_steps_changes_every_lr():
    losses = batches(np.random.default_rng(1), 60).tolist()
    first = jinmaek(100, losses, manifest(), digests=digests(60))
    other = jinmaek(
        200,
        [*losses[:1], *(loss + 1e-3 for loss in losses[1:])],
        manifest(train__max_steps=200),
        digests=digests(60, 2),
    )
    pair = compare([first, other]).pairs[0]
    assert pair.lr.cause == "schedule_steps"
    assert (pair.lr.first_step, pair.lr.last_step) == (2, 60)
    assert pair.lr.last_ratio == pytest.approx((1 - 59 / 200) / (1 - 59 / 100))
    assert (pair.lr.first_value, pair.lr.other_value) == (100, 200)
    told = tell_comparison(compare([first, other]), "en").pairs[0]
    assert "the lr differs wherever it decays" in " ".join(told.differs)


def parted(relative, *, growth=1.5, run_manifest=None, precision="fp32", **more):
    """Two runs alike but for what ``more`` and the manifest say, that part at step 20 by ``relative``."""
    losses = batches(np.random.default_rng(2), 60)
    drift = np.zeros(60)
    drift[19:] = relative * growth ** np.arange(41)
    first = jinmaek(100, losses.tolist(), manifest(), digests=digests(60), precision=precision, name="a")
    other = jinmaek(100, (losses * (1 + np.minimum(drift, 0.1))).tolist(), run_manifest or manifest(), digests=digests(60, 20),
                    precision=precision, name="b", **more)  # fmt: skip
    return compare([first, other]).pairs[0].split


@pytest.mark.parametrize(
    ("relative", "precision", "rounding"),
    [
        (1e-7, "fp32", "fits"),
        (1e-5, "fp32", "too_large"),
        (1e-3, "bf16", "fits"),
        (1e-3, "fp32", "too_large"),
        (0.05, "bf16", "too_large"),
    ],
)
def test_rounding_explains_what_begins_at_its_unit_and_grows(relative, precision, rounding):
    split = parted(relative, precision=precision)
    assert (split.step, split.exact, split.rounding) == (20, True, rounding)
    assert split.relative == pytest.approx(min(relative, 0.1), rel=0.2)


def test_a_difference_that_stays_at_the_unit_of_rounding_is_rounding_too():
    split = parted(1e-6, growth=0.8)
    assert split.rounding == "fits"
    assert split.relative_later < split.relative


def test_rounding_is_not_blamed_where_something_else_differs():
    assert parted(1e-7, run_manifest=manifest(train__max_grad_norm=0.5)).causes == ("train.max_grad_norm",)
    assert parted(1e-7, run_manifest=manifest(train__max_grad_norm=0.5)).rounding == "other_cause"
    other = manifest()
    other["fingerprints"]["base"] = "x" * 64
    assert parted(1e-7, run_manifest=other).causes == ("base",)
    assert parted(1e-7, lr=[1e-3, 9e-4, *linear(100)[2:]]).causes == ("lr",)


def test_what_only_rounds_differently_is_named():
    split = parted(
        1e-7,
        run_manifest={
            **manifest(train__deterministic=False),
            "determinism": "off",
            "device": {"type": "cpu", "num_threads": 4},
        },
    )
    assert split.rounding == "fits"
    assert set(split.causes) >= {"train.deterministic", "determinism"}


def test_other_examples_are_found_step_by_step():
    ids = [(str(step),) for step in range(60)]
    losses = batches(np.random.default_rng(3), 60).tolist()
    first = jinmaek(100, losses, manifest(), examples=ids, name="a")
    other = jinmaek(100, losses, manifest(), examples=[*ids[:30], ("x",), *ids[31:]], name="b")
    assert compare([first, other]).pairs[0].order_differs_at == 31
    assert compare([first, jinmaek(100, losses, manifest(), examples=ids, name="c")]).pairs[0].order_differs_at is None


def test_the_same_run_is_identical_and_equivalent():
    losses = batches(np.random.default_rng(4), 60).tolist()
    runs = [jinmaek(100, losses, manifest(), digests=digests(60), name=name) for name in "ab"]
    found = compare(runs, margin=0.01)
    assert (found.pairs[0].outcome, found.equivalence, found.pairs[0].split) == ("identical", "equivalent", None)


def test_foreign_logs_say_what_they_do_not_record():
    rng = np.random.default_rng(5)
    one, two = same_order(rng, 0.05)
    runs = [
        run_of(name, np.round(losses, 4), facts=RunFacts(source="console", filters_loss=True))
        for name, losses in (("a", one), ("b", two))
    ]
    pair = compare(runs).pairs[0]
    assert {fact.name for fact in pair.facts if fact.state == "unknown"} >= {
        "data",
        "order",
        "initial_adapter",
        "base",
        "versions",
        "device",
    }
    assert (pair.split.rounding, pair.split.gap) == ("unknown", "printed_digits")
    assert pair.outcome == "separated"
    assert pair.correlation > 0.9


# Seeds.


def seeded(seed, level, **settings):
    evaluation = EvaluationRecord(step=60, loss=level, example_losses=(level,) * 20)
    rng = np.random.default_rng(seed)
    return jinmaek(100, (level + rng.normal(0, 0.01, 60)).tolist(), manifest(train__seed=seed, **settings), name=f"{seed}{settings}",
                   evaluations=[evaluation], held_out=tuple((f"k{n}", 5) for n in range(20)))  # fmt: skip


def test_the_noise_floor_is_the_spread_between_seeds():
    runs = [
        seeded(1, 2.00),
        seeded(2, 2.02),
        seeded(3, 2.04),
        seeded(1, 1.90, optim__lr=1.0),
        seeded(2, 1.92, optim__lr=1.0),
    ]
    floor = noise_floor(runs)
    assert floor.groups == ((0, 1, 2), (3, 4))
    assert floor.basis == "held_out"
    assert floor.freedom == 3
    assert floor.deviation == pytest.approx(((0.02**2 + 0 + 0.02**2 + 2 * 0.01**2) / 3) ** 0.5)
    assert floor.reach == pytest.approx(3.182 * 2**0.5 * floor.deviation, rel=2e-3)


def test_a_difference_that_seeds_make_is_not_the_settings():
    found = compare([seeded(1, 2.00), seeded(2, 2.02), seeded(3, 2.04)])
    assert [pair.outcome for pair in found.pairs] == ["within_seeds", "within_seeds"]
    assert noise_floor([seeded(1, 2.0), seeded(1, 2.0, optim__lr=1.0)]) is None


def test_several_comparisons_are_made_at_a_stricter_level():
    rng = np.random.default_rng(6)
    runs = [run_of(str(number), batches(rng, 200)) for number in range(5)]
    found = compare(runs)
    assert [pair.decided.level for pair in found.pairs] == [1 - 0.05 / 4] * 4
    assert "98.75%" in tell_comparison(found, "en").notes[-1]


# What is said.


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_is_told(outcome, lang):
    found = compare([seeded(1, 2.00), seeded(2, 2.02), seeded(3, 2.04)], margin=0.01)
    pairs = tuple(replace(pair, outcome=outcome) for pair in found.pairs)
    told = tell_comparison(replace(found, pairs=pairs), lang)
    for pair in told.pairs:
        text = " ".join(
            [
                pair.headline,
                pair.check,
                pair.same,
                *pair.differs,
                pair.unknown,
                *pair.parting,
                *pair.losses,
                pair.caution or "",
            ]
        )
        assert "{" not in text
    row = json.loads(json.dumps(comparison_json(found, lang), allow_nan=False))
    assert row["equivalence"] == found.equivalence
    assert row["runs"][0]["limits"]["limiting"]


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("relative", [1e-7, 1e-3])
def test_every_verdict_on_rounding_is_told(relative, lang):
    losses = batches(np.random.default_rng(2), 60)
    first = jinmaek(100, losses.tolist(), manifest(), digests=digests(60), name="a")
    for other_manifest in (manifest(), manifest(train__deterministic=False), manifest(train__max_grad_norm=0.1), None):
        other = jinmaek(100, (losses * (1 + relative)).tolist(), other_manifest, digests=digests(60, 1), name="b")
        [told] = tell_comparison(compare([first, other]), lang).pairs
        assert len(told.parting) >= 2
        assert "{" not in " ".join(told.parting)


def test_a_fault_that_is_only_possible_is_not_called_one():
    losses = batches(np.random.default_rng(2), 60)
    found = compare([jinmaek(60, losses.tolist(), manifest(), name=name) for name in "ab"])
    suspects = ("bad-labels", "wrong-forward-at-step-1")
    for confidence, expected in (("possible", "something is wrong, possibly"), ("likely", "a fault:")):
        run = replace(found.runs[0], verdict="faulty", causes=suspects, confidence=confidence)
        said = tell_comparison(replace(found, runs=(run, found.runs[1])), "en").runs[0]
        assert expected in said
        assert (" or " in said) == (confidence == "possible")


@pytest.mark.parametrize("length", [20, 60])
def test_a_run_shorter_than_its_schedule_is_not_said_to_have_a_schedule_of_its_own(length):
    """A sweep with --controlled: the shorter arm is the beginning of the longer one."""
    facts = RunFacts(source="jinmaek", filters_loss=False, logging_steps=1, schedule="linear", schedule_steps=60,
                     peak_lr=1e-3, max_steps=length)  # fmt: skip
    losses = batches(np.random.default_rng(7), length).tolist()
    run = run_of(str(length), losses, lr=linear(60, length), facts=facts)
    assert run.diagnosed.schedule_steps == 60
    assert jinmaek(60, losses, manifest()).diagnosed.schedule_steps == 60


# What a reader once found told wrongly.


def test_examples_of_another_file_are_not_called_the_same():
    other = manifest()
    other["fingerprints"]["data"] = "x" * 64
    ids = [(str(step),) for step in range(60)]
    losses = batches(np.random.default_rng(3), 60).tolist()
    pair = tell_comparison(compare([jinmaek(100, losses, manifest(), examples=ids, name="a"),
                                    jinmaek(100, losses, other, examples=ids, name="b")]), "en").pairs[0]  # fmt: skip
    assert "examples" not in pair.same
    assert parted(1e-4, run_manifest=other).causes == ("data",)


def test_an_lr_that_nobody_recorded_is_not_called_the_same():
    one, two = ([StepRecord(step=step, loss=2.0 + shift) for step in range(1, 60)] for shift in (0.0, 0.1))
    runs = [read(Source(name, records), name, lambda count: None) for name, records in (("a", one), ("b", two))]
    assert "lr" not in tell_comparison(compare(runs), "en").pairs[0].same


def test_a_run_whose_last_held_out_loss_is_nan_is_not_judged_by_the_one_before():
    first, other = seeded(1, 2.0), seeded(2, 1.5)
    other.evaluations = [*other.evaluations, replace(other.evaluations[0], step=61, loss=math.nan)]
    pair = compare([first, other]).pairs[0]
    assert pair.basis == "train"
    assert "NaN" in " ".join(tell_comparison(compare([first, other]), "en").pairs[0].losses)


def test_the_noise_floor_counts_no_run_that_was_stopped():
    stopped = seeded(2, 2.02)
    stopped.rows = stopped.rows[:30]
    assert noise_floor([seeded(1, 2.0), stopped]) is None


def test_rounding_is_not_judged_where_its_unit_is_not_known():
    fp8 = parted(1e-2, run_manifest=manifest(kernels__fp8=True))
    assert (fp8.rounding, fp8.gap, fp8.epsilon) == ("unknown", "precision", None)
    losses = batches(np.random.default_rng(2), 60).tolist()
    broken = [*losses[:19], math.nan, *losses[20:]]
    runs = [jinmaek(100, each, manifest(), digests=digests(60, at), name=f"{at}") for each, at in ((losses, None), (broken, 20))]  # fmt: skip
    pair = compare(runs).pairs[0]
    assert (pair.split.gap, pair.split.relative) == ("size", None)
    assert "?" not in " ".join(tell_comparison(compare(runs), "en").pairs[0].parting)


def test_a_difference_below_the_unit_of_rounding_is_not_laid_on_a_setting():
    losses = batches(np.random.default_rng(2), 60)
    for relative, words in ((3e-8, "By rounding or by what differs"), (1e-4, "Not by rounding")):
        runs = [jinmaek(100, (losses * scale).tolist(), manifest(train__max_grad_norm=norm), digests=digests(60, at), name=f"{at}")
                for scale, norm, at in ((1, 1.0, None), (1 + relative, 0.5, 20))]  # fmt: skip
        assert words in " ".join(tell_comparison(compare(runs), "en").pairs[0].parting)


@pytest.mark.parametrize(("peak", "schedule", "told"), [(1e-3, "linear", True), (2e-3, "linear", False), (1e-3, "constant_with_warmup", False)])  # fmt: skip
def test_schedules_of_unlike_length_are_told_of_one_peak_and_a_moving_lr_only(peak, schedule, told):
    def source(length, top):
        facts = RunFacts(source="jinmaek", filters_loss=False, logging_steps=1, schedule=schedule, schedule_steps=length,
                         peak_lr=top, max_steps=length)  # fmt: skip
        rates = [min(step / 5, 1.0) * top if schedule != "linear" else top * (1 - step / length) for step in range(50)]
        records = [StepRecord(step=step, loss=2.0, lr=lr) for step, lr in enumerate(rates, 1)]
        return Source(f"{length}", records, facts)

    first = diagnose(source(100, 1e-3))
    notes = diagnose(source(200, peak), (first,)).diagnosis.notes
    assert ("hidden-schedule-change" in {note.id for note in notes}) == told
