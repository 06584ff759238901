"""From trials to causes: what confirms, refutes and leaves open each cause, and what tells look-alikes apart."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.core.verdict import Cause, Location, Trial
from jinmaek.replay.reason import Evidence, causes, outcome_of

LIMIT = 65504.0
NAN_LOSS, NAN_GRAD, SPIKE, GRAD_SPIKE, UPDATE = (
    "loss_not_finite",
    "gradient_not_finite",
    "loss_spike",
    "gradient_spike",
    "update_beyond_bound",
)
SYMPTOMS = (NAN_LOSS, NAN_GRAD, SPIKE, GRAD_SPIKE, UPDATE)


def trial(arm, outcome, **facts):
    return Trial(arm=arm, family="data", outcome=outcome, facts=facts)


def heals(arm, **facts):
    return trial(arm, "heals", **facts)


def fails(arm, **facts):
    return trial(arm, "fails", **facts)


def not_run(arm, **facts):
    return trial(arm, "not_run", **facts)


def place(true=1e6, **changes):
    facts = {
        "module": "layers.0.mlp",
        "op": "aten.mm",
        "phase": "forward",
        "dtype": "float16",
        "limit": LIMIT,
        "input_absmax": (1.0,),
        "output_absmax": None,
        "true_absmax": true,
        "num_non_finite": 1,
        "num_values": 10,
    }
    return Location(**facts | changes)


def judged(symptom, *trials, at=None, **facts):
    """The causes by id."""
    found = causes(Evidence(symptom, trials, at, facts))
    assert len({cause.id for cause in found}) == len(found)
    return {cause.id: cause for cause in found}


def statuses(symptom, *trials, at=None, **facts):
    return {name: cause.status for name, cause in judged(symptom, *trials, at=at, **facts).items()}


BAD = {"bad_weights": [{"weight": "embed", "num_non_finite": 1, "num_values": 8}]}
SOUND, UNSOUND = ({"optimizer_check": {"error": 0.1, "limit": 1.0, "sound": sound}} for sound in (True, False))
TWO = (heals("without_example", example="a"), fails("without_example", example="b"))
WIDE_FAILS = (fails("bf16"), fails("fp32"))

# cause, expected status (None: not mentioned), symptom, trials, location, facts
CASES = {
    "overflow: bf16 heals what lies beyond fp16": ("overflow", "confirmed", NAN_LOSS, [heals("bf16")], place(), {}),
    "overflow: fp32 heals where bf16 does not": (
        "overflow", "confirmed", NAN_LOSS, [fails("bf16"), heals("fp32")], place(), {},
    ),
    "overflow: an infinite true value is beyond": (
        "overflow", "confirmed", NAN_LOSS, [heals("bf16")], place(float("inf")), {},
    ),
    "overflow: a backward overflow that a smaller scale heals": (
        "overflow", "confirmed", NAN_GRAD, [heals("bf16"), heals("smaller_scale")], place(None, phase="backward"), {},
    ),
    "overflow: a smaller scale says nothing of a forward place": (
        "overflow", "undecided", NAN_GRAD, [heals("bf16"), heals("smaller_scale")], place(None), {},
    ),
    "overflow: no wider dtype heals": ("overflow", "refuted", NAN_LOSS, WIDE_FAILS, place(), {}),
    "overflow: the true value is in range": ("overflow", "refuted", NAN_LOSS, [heals("bf16")], place(10.0), {}),
    "overflow: exactly the limit is in range": ("overflow", "refuted", NAN_LOSS, [heals("bf16")], place(LIMIT), {}),
    "overflow: no place": ("overflow", "undecided", NAN_LOSS, [heals("bf16")], None, {}),
    "overflow: no reference": ("overflow", "undecided", NAN_LOSS, [heals("bf16")], place(None), {}),
    "overflow: not in fp16": ("overflow", "undecided", NAN_LOSS, [heals("fp32")], place(dtype="bfloat16"), {}),
    "overflow: the weight itself is not finite": (
        "overflow", "undecided", NAN_LOSS, [heals("bf16")], place(weight="embed"), {},
    ),
    "overflow: never asked": ("overflow", None, NAN_LOSS, [heals("other_attention")], place(), {}),
    "overflow: no number is too large to be one": ("overflow", None, SPIKE, [heals("bf16")], place(), {}),
    "overflow: out of memory is no answer": ("overflow", None, NAN_LOSS, [not_run("bf16"), not_run("fp32")], place(), {}),
    "kernel: another attention heals what is in range": (
        "kernel", "confirmed", NAN_LOSS, [heals("bf16"), heals("other_attention")], place(10.0), {},
    ),
    "kernel: heals where fp32 does not": (
        "kernel", "confirmed", NAN_LOSS, [*WIDE_FAILS, heals("reference_dequantisation")], place(None), {},
    ),
    "kernel: in fp32 there is nothing wider": ("kernel", "confirmed", NAN_LOSS, [heals("other_attention")], None, {}),
    "kernel: only the fused ones fail": ("kernel", "confirmed", NAN_LOSS, [heals("plain_kernels")], None, {}),
    "kernel: with dropout another mask may heal": (
        "kernel", "undecided", NAN_LOSS, [heals("plain_kernels")], None, {"other_mask": True},
    ),
    "kernel: with dropout another mask may heal a spike too": (
        "kernel", "undecided", SPIKE, [heals("plain_kernels")], None, {"other_mask": True},
    ),
    "kernel: in fp16 another rounding may heal": (
        "kernel", "undecided", NAN_LOSS, [heals("plain_kernels")], None, {"is_fp16": True},
    ),
    "kernel: a spike": ("kernel", "confirmed", SPIKE, [heals("bf16"), heals("other_attention")], None, {}),
    "kernel: no other one heals": (
        "kernel", "refuted", NAN_LOSS, [fails("other_attention"), fails("reference_dequantisation")], None, {},
    ),
    "kernel: a wider dtype heals too, and the place is unknown": (
        "kernel", "undecided", NAN_LOSS, [heals("bf16"), heals("other_attention")], None, {},
    ),
    "kernel: beyond the range by true arithmetic": (
        "kernel", None, NAN_LOSS, [heals("bf16"), heals("other_attention")], place(), {},
    ),
    "kernel: fp32 attention is another dtype and no other code": (
        "kernel", None, NAN_LOSS, [heals("attention_fp32")], place(10.0), {},
    ),
    "kernel: never asked": ("kernel", None, NAN_LOSS, [not_run("other_attention")], None, {}),
    "loss scale: a smaller one heals": (
        "loss_scale", "confirmed", NAN_GRAD, [heals("smaller_scale"), fails("smaller_scale")], None, {},
    ),
    "loss scale: none heals": ("loss_scale", "refuted", NAN_GRAD, [fails("smaller_scale")], None, {}),
    "loss scale: never asked": ("loss_scale", None, NAN_GRAD, [heals("bf16")], None, {}),
    "example: one of two is needed": ("example", "confirmed", NAN_LOSS, TWO, None, {}),
    "example: all the rest fails with none of them": (
        "example", "refuted", NAN_LOSS, [fails("without_example", example=name) for name in "ab"], None, {},
    ),
    "example: leaving out any of them heals": (
        "example", "refuted", NAN_LOSS, [heals("without_example", example=name) for name in "ab"], None, {},
    ),
    "example: several together": ("example", "confirmed", NAN_LOSS, [heals("without_examples", examples=["a", "b"])], None, {}),
    "example: each alone is healthy": ("example", "refuted", NAN_LOSS, [heals("only_example", example="a")], None, {}),
    "example: the only one, and others' batches are healthy": (
        "example", "confirmed", NAN_LOSS, [heals("other_batch"), heals("other_batch")], None, {"num_examples": 1},
    ),
    "example: the only one, and others fail too": (
        "example", "refuted", NAN_LOSS, [heals("other_batch"), fails("other_batch")], None, {"num_examples": 1},
    ),
    "example: the only one, and nothing to compare": (
        "example", None, NAN_LOSS, [not_run("other_batch")], None, {"num_examples": 1},
    ),
    "example: never asked": ("example", None, NAN_LOSS, [heals("other_batch")], None, {"num_examples": 2}),
    "bad weight: mended, the step is healthy": (
        "bad_weight", "confirmed", NAN_LOSS, [heals("mended_weight", weight="embed", num_non_finite=1)], None, BAD,
    ),
    "bad weight: mended, it still fails": (
        "bad_weight", "undecided", NAN_LOSS, [fails("mended_weight", weight="embed", num_non_finite=1)], None, BAD,
    ),
    "bad weight: not mended": ("bad_weight", "undecided", NAN_LOSS, [], None, BAD),
    "bad weight: the mending of an outlier says nothing of it": (
        "bad_weight", "undecided", NAN_LOSS,
        [fails("mended_weight", weight="embed", num_non_finite=1), heals("mended_weight", weight="head", typical=0.1)],
        None, BAD,
    ),
    "bad weight: all are finite": ("bad_weight", None, NAN_LOSS, [fails("bf16")], None, {}),
    "outlier: the second one it is": (
        "outlier_weight", "confirmed", NAN_LOSS,
        [fails("mended_weight", weight="one", typical=0.1), heals("mended_weight", weight="two", typical=0.1)],
        None, {"outliers": [{}, {}]},
    ),
    "outlier: set to 0 it still fails": (
        "outlier_weight", "refuted", NAN_LOSS, [fails("mended_weight", typical=0.1)], None, {"outliers": [{}]},
    ),
    "outlier: no memory to try it": (
        "outlier_weight", None, NAN_LOSS, [not_run("mended_weight", typical=0.1)], None, {"outliers": [{}]},
    ),
    "outlier: the mending of a bad weight says nothing of it": (
        "outlier_weight", None, NAN_LOSS, [heals("mended_weight", num_non_finite=1)], None, BAD,
    ),
    "adapter: a fresh one heals": ("adapter", "confirmed", NAN_LOSS, [heals("fresh_adapter")], None, {}),
    "adapter: an earlier one heals": (
        "adapter", "confirmed", SPIKE, [fails("fresh_adapter"), heals("earlier_adapter", adapter_step=4)], None, {},
    ),
    "adapter: none heals": ("adapter", "refuted", SPIKE, [fails("fresh_adapter"), fails("earlier_adapter")], None, {}),
    "adapter: never asked": ("adapter", None, NAN_LOSS, [not_run("fresh_adapter")], None, {}),
    "optimizer: exact moments heal, and it fails its check": (
        "optimizer", "confirmed", NAN_LOSS, [heals("exact_moments")], None, UNSOUND,
    ),
    "optimizer: exact moments heal an impossible update": (
        "optimizer", "confirmed", UPDATE, [heals("exact_moments")], None, SOUND | {"update_beyond_bound": True},
    ),
    "optimizer: exact moments heal, and it is sound": (
        "optimizer", "undecided", NAN_LOSS, [heals("exact_moments")], None, SOUND | {"update_beyond_bound": False},
    ),
    "optimizer: exact moments fail too": ("optimizer", "refuted", NAN_LOSS, [fails("exact_moments")], None, UNSOUND),
    "optimizer: never asked": ("optimizer", None, NAN_LOSS, [heals("lower_lr")], None, UNSOUND),
    "lr: a lower one heals": ("lr", "confirmed", SPIKE, [heals("lower_lr", factor=0.1)], None, SOUND),
    "lr: the usual one heals": ("lr", "confirmed", SPIKE, [heals("usual_lr"), fails("lower_lr")], None, SOUND),
    "lr: a lower one fails too": ("lr", "refuted", SPIKE, [fails("usual_lr"), fails("lower_lr")], None, SOUND),
    "lr: never asked": ("lr", None, SPIKE, [not_run("lower_lr")], None, SOUND),
    "base: alone it fails": ("base", "confirmed", NAN_LOSS, [fails("fresh_adapter")], None, {}),
    "base: alone it is healthy": ("base", None, NAN_LOSS, [heals("fresh_adapter")], None, {}),
    "base: a spike is high for any fresh adapter": ("base", None, SPIKE, [fails("fresh_adapter")], None, {}),
    "dropout: another mask is healthy, and nothing else is": (
        "dropout", "confirmed", NAN_LOSS, [heals("no_dropout")], None, {},
    ),
    "dropout: without it, it fails": ("dropout", "refuted", NAN_LOSS, [fails("no_dropout")], None, {}),
    "dropout: something else was shown": ("dropout", None, NAN_LOSS, [heals("no_dropout"), *TWO], None, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_cause_is_what_its_trials_make_it(case):
    name, expected, symptom, trials, at, facts = CASES[case]
    assert statuses(symptom, *trials, at=at, **facts).get(name) == expected


def test_every_cause_has_a_case_of_each_status_it_can_have():
    seen = {}
    for name, status, *_ in CASES.values():
        seen.setdefault(name, set()).add(status)
    everything = {"confirmed", "refuted", "undecided", None}
    never = {"loss_scale": "undecided", "example": "undecided", "bad_weight": "refuted", "outlier_weight": "undecided"}
    never |= {"adapter": "undecided", "lr": "undecided", "dropout": "undecided"}
    for name, found in seen.items():
        if name != "base":
            assert found == everything - {never.get(name, "")}, name


def test_too_high_an_lr_and_a_broken_optimizer_are_told_apart_though_a_lower_lr_heals_both():
    trials = heals("fresh_adapter"), heals("exact_moments", start_step=4), heals("lower_lr")
    broken = statuses(SPIKE, *trials, **UNSOUND)
    assert broken == {"optimizer": "confirmed", "adapter": "confirmed"}
    lr = statuses(SPIKE, heals("fresh_adapter"), fails("exact_moments"), heals("lower_lr"), **SOUND)
    assert lr == {"lr": "confirmed", "adapter": "confirmed", "optimizer": "refuted"}
    either = statuses(SPIKE, *trials, **SOUND)
    assert (either["lr"], either["optimizer"]) == ("confirmed", "undecided")


def test_a_kernel_and_an_overflow_are_told_apart_by_the_true_value():
    trials = heals("bf16"), heals("other_attention")
    assert statuses(NAN_LOSS, *trials, at=place(10.0)) == {"kernel": "confirmed", "overflow": "refuted"}
    assert statuses(NAN_LOSS, *trials, at=place(1e6)) == {"overflow": "confirmed"}
    assert statuses(NAN_LOSS, *trials, at=place(None)) == {"kernel": "undecided", "overflow": "undecided"}


def test_an_example_and_the_base_are_told_apart():
    """The base fails on the example as well: that does not make it the base's fault."""
    alone = fails("fresh_adapter")
    assert statuses(NAN_LOSS, *TWO, alone) == {"example": "confirmed", "adapter": "refuted"}
    every = [fails("without_example", example=name) for name in "ab"]
    assert statuses(NAN_LOSS, *every, alone)["base"] == "confirmed"


@pytest.mark.parametrize("special", ["kernel", "loss_scale", "bad_weight", "outlier_weight"])
def test_the_base_is_not_blamed_for_what_was_shown_of_its_parts(special):
    shown = {
        "kernel": [heals("other_attention")],
        "loss_scale": [heals("smaller_scale")],
        "bad_weight": [heals("mended_weight", num_non_finite=1)],
        "outlier_weight": [heals("mended_weight", typical=0.1)],
    }[special]
    facts = BAD if special == "bad_weight" else {}
    found = statuses(NAN_GRAD, fails("fresh_adapter"), *shown, **facts)
    assert found[special] == "confirmed"
    assert "base" not in found


def test_too_large_a_loss_scale_is_told_beside_the_overflow_that_it_makes():
    trials = heals("bf16"), heals("smaller_scale", loss_scale=1.0), fails("smaller_scale", loss_scale=2.0**16)
    found = judged(NAN_GRAD, *trials, at=place(1e6, phase="backward"), loss_scale=2.0**20, largest_finite_scale=2.0**15)
    assert [cause.id for cause in found.values()] == ["overflow", "loss_scale"]
    assert found["loss_scale"].facts == {"loss_scale": 2.0**20, "largest_finite_scale": 2.0**15}
    alone = statuses(NAN_GRAD, heals("bf16"), fails("smaller_scale"), at=place(1e6, phase="backward"))
    assert alone == {"overflow": "confirmed", "loss_scale": "refuted"}


@pytest.mark.parametrize(
    ("base_losses", "name"),
    [((6.0, 3.0), "hard_example"), ((4.9, 3.0), "example"), ((5.0, 3.0), "hard_example"), (None, "example")],
)
def test_a_text_is_hard_where_the_base_shows_half_of_the_spike(base_losses, name):
    facts = {"base_losses": base_losses, "level": 1.0, "recorded_loss": 5.0}
    found = judged(SPIKE, *TWO, fails("fresh_adapter"), **facts)
    assert found[name].status == "confirmed"
    assert found["adapter"].status == "refuted"
    assert ("base_loss" in found[name].facts) == (name == "hard_example")


def test_a_hard_text_and_a_spoilt_adapter_are_told_apart():
    every = [fails("without_example", example=name) for name in "ab"]
    facts = {"base_losses": (3.0, 3.0), "level": 1.0, "recorded_loss": 5.0}
    spoilt = statuses(SPIKE, *every, heals("fresh_adapter"), heals("earlier_adapter"), heals("lower_lr"), **facts)
    assert spoilt == {"adapter": "confirmed", "lr": "confirmed", "example": "refuted"}
    facts["base_losses"] = (6.0, 3.0)
    assert "hard_example" not in statuses(SPIKE, *every, heals("fresh_adapter"), **facts)
    assert statuses(NAN_LOSS, *TWO, **facts) == {"example": "confirmed"}, "a NaN is no matter of difficulty"


def test_the_example_is_named_with_what_it_does_alone():
    for alone, sufficient in ((fails, True), (heals, False)):
        found = judged(NAN_LOSS, *TWO, alone("only_example", example="a"), fails("only_example", example="b"))
        assert found["example"].facts == {"example": "a", "necessary": True, "sufficient": sufficient}
    assert "sufficient" not in judged(NAN_LOSS, *TWO)["example"].facts
    several = heals("without_examples", examples=["a", "b"]), fails("only_examples", examples=["a", "b"])
    found = judged(NAN_LOSS, *several, heals("only_example", example="a"))["example"]
    assert found.facts == {"example": "a, b", "necessary": True, "sufficient": True}
    assert found.trials == ("without_examples", "only_examples")
    only = judged(NAN_LOSS, heals("other_batch"), num_examples=1, only_example="7")["example"]
    assert only.facts == {"example": "7", "necessary": True, "sufficient": True}


def test_causes_carry_the_numbers_of_their_sentences():
    found = judged(NAN_LOSS, heals("bf16"), at=place())["overflow"]
    assert found.facts == {
        "phase": "forward", "module": "layers.0.mlp", "dtype": "float16", "true_absmax": 1e6, "limit": LIMIT,
        "healed_by": ["bf16"],
    }  # fmt: skip
    found = judged(SPIKE, heals("lower_lr", factor=0.1, start_step=4), lr=0.1, **UNSOUND)["lr"]
    assert found.facts == {"lr": 0.1, "factor": 0.1, "start_step": 4}, "what is not known is left out"
    found = judged(SPIKE, heals("exact_moments", start_step=4), largest_update=9.0, **UNSOUND)["optimizer"]
    assert found.facts == {"error": 0.1, "limit": 1.0, "largest_update": 9.0, "start_step": 4}
    found = judged(SPIKE, heals("fresh_adapter"), heals("earlier_adapter"), adapter_step=None, norm_now=3.0)["adapter"]
    assert found.facts == {"norm_now": 3.0, "earlier_outcome": "heals"}


def test_the_chain_runs_from_the_symptom_to_what_lies_behind_it():
    trials = heals("bf16"), *TWO, heals("fresh_adapter"), heals("lower_lr"), fails("exact_moments")
    found = causes(Evidence(NAN_LOSS, trials, place(), SOUND))
    assert [cause.id for cause in found] == ["overflow", "example", "lr", "adapter", "optimizer"]


ARMS = {
    "bf16": {},
    "fp32": {},
    "smaller_scale": {"loss_scale": 2.0},
    "plain_kernels": {},
    "other_attention": {"kernel": "eager"},
    "attention_fp32": {},
    "reference_dequantisation": {},
    "other_batch": {"other_step": 3},
    "fresh_adapter": {},
    "earlier_adapter": {"adapter_step": 4},
    "no_dropout": {},
    "exact_moments": {"start_step": 4},
    "usual_lr": {"start_step": 4, "lr": 0.1},
    "lower_lr": {"start_step": 4, "lr": 0.1, "factor": 0.1},
    "lost_optimizer": {"resumed_step": 3},
    "control": {"start_step": 0},
}
SAME_ARM = [
    *(("without_example", {"example": name}) for name in "abc"),
    *(("only_example", {"example": name}) for name in "abc"),
    ("without_examples", {"examples": ["a", "b"]}),
    ("only_examples", {"examples": ["a", "b"]}),
    ("mended_weight", {"weight": "embed", "num_non_finite": 1, "num_values": 8}),
    ("mended_weight", {"weight": "head", "value": 1e30, "typical": 0.1}),
]
TRIALS = st.lists(
    st.builds(
        lambda named, outcome: trial(named[0], outcome, **named[1]),
        st.sampled_from([*ARMS.items(), *SAME_ARM]),
        st.sampled_from(["fails", "heals", "not_run"]),
    ),
    max_size=20,
)
NUMBER = st.none() | st.floats()
PLACES = st.none() | st.builds(
    place,
    true=NUMBER,
    phase=st.sampled_from(["forward", "backward"]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    weight=st.sampled_from([None, None, "embed"]),
)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "bad_weights": st.just(BAD["bad_weights"]),
        "outliers": st.just([{"weight": "head"}]),
        "num_examples": st.integers(1, 3),
        "only_example": st.just("a"),
        "loss_scale": NUMBER,
        "largest_finite_scale": NUMBER,
        "level": NUMBER,
        "recorded_loss": NUMBER,
        "base_losses": st.none() | st.tuples(st.floats(), st.floats()),
        "optimizer_check": st.sampled_from([SOUND, UNSOUND]).map(lambda facts: facts["optimizer_check"]),
        "update_beyond_bound": st.booleans(),
        "lr": NUMBER,
        "norm_now": NUMBER,
    },
)
RANDOM = settings(max_examples=400, deadline=None)


@RANDOM
@given(st.sampled_from(SYMPTOMS), TRIALS, PLACES, FACTS)
def test_whatever_was_tried_the_causes_hold_together(symptom, trials, at, facts):
    evidence = Evidence(symptom, trials, at, facts)
    found = causes(evidence)
    assert repr(found) == repr(causes(evidence)), "deterministic"
    order = [("confirmed", "refuted", "undecided").index(cause.status) for cause in found]
    assert order == sorted(order)
    assert len({cause.id for cause in found}) == len(found)
    for cause in found:
        assert None not in cause.facts.values()
        run = {trial.arm for trial in trials if trial.outcome != "not_run"}
        if cause.id != "bad_weight":  # a weight that is not finite is seen without a trial
            assert run.intersection(cause.trials), "what no trial asked about is not mentioned"
        if cause.status == "confirmed":
            wanted = "fails" if cause.id == "base" else "heals"
            assert any(trial.arm in cause.trials and trial.outcome == wanted for trial in trials)


@RANDOM
@given(st.sampled_from(SYMPTOMS), TRIALS, PLACES, FACTS)
def test_where_nothing_heals_only_the_base_can_be_the_cause(symptom, trials, at, facts):
    failing = [trial for trial in trials if trial.outcome != "heals"]
    shown = [cause for cause in causes(Evidence(symptom, failing, at, facts)) if cause.status == "confirmed"]
    assert {cause.id for cause in shown} <= {"base"}
    if shown:
        assert symptom in (NAN_LOSS, NAN_GRAD)
        assert any(trial.arm == "fresh_adapter" and trial.outcome == "fails" for trial in failing)


@RANDOM
@given(TRIALS, PLACES, FACTS)
def test_a_healthy_step_has_no_cause(trials, at, facts):
    assert causes(Evidence("none", trials, at, facts)) == ()


@RANDOM
@given(st.sampled_from(SYMPTOMS), TRIALS, PLACES, FACTS)
def test_trials_that_were_not_run_change_nothing(symptom, trials, at, facts):
    run = [trial for trial in trials if trial.outcome != "not_run"]
    assert repr(causes(Evidence(symptom, run, at, facts))) == repr(causes(Evidence(symptom, trials, at, facts)))


SHOWN, DOUBTED, REFUTED, UNREPEATED = (
    Cause(id="overflow", status="confirmed"),
    Cause(id="transient", status="undecided"),
    Cause(id="kernel", status="refuted"),
    Cause(id="not_deterministic", status="confirmed"),
)


@pytest.mark.parametrize("reproduced", [True, False])
@pytest.mark.parametrize("still_fails", [True, False])
@pytest.mark.parametrize("count", range(5))
def test_the_outcome_in_one_word(reproduced, still_fails, count):
    without_cause = "NOT_REPRODUCED" if not reproduced else "INCONCLUSIVE" if still_fails else "REFUTED"
    for found in itertools.combinations([SHOWN, DOUBTED, REFUTED, UNREPEATED], count):
        expected = "CONFIRMED" if SHOWN in found else without_cause
        assert outcome_of(found, reproduced=reproduced, fails=still_fails) == expected
