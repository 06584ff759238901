"""The suite of injected faults: every one trained with, proved, and held against the truth.

Two and a half minutes on one core. ``python -m bench.faults`` prints the same as a table.
"""

import json
import math
import re
import sys
import warnings
from pathlib import Path

import pytest

from jinmaek.core.codec import dump_line
from jinmaek.explain import tell
from jinmaek.report import verdict_json, verdict_markdown
from jinmaek.store import RunDirectory

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # bench is no installed package
    sys.path.insert(0, str(ROOT))
from bench.faults import injections  # noqa: E402
from bench.faults.run import run_fault  # noqa: E402
from bench.faults.scenarios import FAULTS  # noqa: E402
from bench.faults.stage import Stage  # noqa: E402

LIMIT = 65504.0
NAMES = [fault.name for fault in FAULTS]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """One base model for all of them; paths in it are relative to the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield Stage.on_cpu(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def verdicts(stage):
    """Each fault is trained with and proved once, when it is first asked for."""
    kept = {}

    def scored(name):
        if name not in kept:
            fault = next(fault for fault in FAULTS if fault.name == name)
            with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
                # Replacing a kernel of torch's or bitsandbytes' makes them warn.
                warnings.simplefilter("ignore")
                # Noise that is no function of the step, but the same in every run of this suite.
                patch.setattr(injections.os, "urandom", lambda size: b"\1" * size)
                kept[name] = run_fault(stage, fault, seed=0)
        return kept[name]

    return scored


@pytest.mark.parametrize("name", NAMES)
def test_the_fault_is_found_and_nothing_else(verdicts, name):
    fault, scored = next(fault for fault in FAULTS if fault.name == name), verdicts(name)
    confirmed = {cause.id for cause in scored.verdict.confirmed()}
    assert scored.verdict.outcome == fault.outcome, scored.line
    assert fault.must <= confirmed, scored.line
    assert not confirmed - fault.must - fault.may, scored.line
    assert scored.right
    assert scored.false_causes == ()


# Where the fault was put: module, operation (a part of its name), phase.
PLACES = {
    "attention-scores-overflow": ("gpt_neox.layers.0.attention", "bmm", "forward"),
    "mlp-overflow": ("gpt_neox.layers.0.mlp.dense_4h_to_h", "gemm_4bit", "forward"),
    "logits-overflow": ("lm_head", "mm", "forward"),
    "poisonous-example": ("gpt_neox.layers.0.attention.query_key_value", "gemm_4bit", "forward"),
    "overflow-without-determinism": ("gpt_neox.layers.0.attention.query_key_value", "gemm_4bit", "forward"),
    "nan-embedding": ("gpt_neox.embed_in", "embedding", "forward"),
    "garbage-attention": ("gpt_neox.layers.0.attention", "_scaled_dot_product", "forward"),
    "garbage-dequantisation": ("gpt_neox.layers.0.attention.query_key_value", "gemm_4bit", "forward"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_where_the_fault_was_put(verdicts, name):
    where = verdicts(name).verdict.location
    module, operation, phase = PLACES[name]
    assert (where.module, where.phase) == (module, phase)
    assert operation in where.op
    assert where.num_non_finite > 0


# A head of 1.5 times the limit, a projection of 1.3 times it, scores of 6000² over √d: what the tensors would be.
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("attention-scores-overflow", 1.0, math.inf),
        ("mlp-overflow", 1.0, 3.0),
        ("logits-overflow", 1.0, 3.0),
        ("poisonous-example", 1.0, 2.0),
        ("overflow-without-determinism", 1.0, 2.0),
    ],
)
def test_what_overflows_is_beyond_the_limit_by_true_arithmetic(verdicts, name, least, most):
    where = verdicts(name).verdict.location
    assert (where.dtype, where.limit) == ("float16", LIMIT)
    assert least < where.true_absmax / LIMIT < most
    assert all(value < LIMIT for value in where.input_absmax)


@pytest.mark.parametrize("name", ["garbage-attention", "garbage-dequantisation"])
def test_what_a_broken_kernel_makes_is_in_range_by_true_arithmetic(verdicts, name):
    verdict = verdicts(name).verdict
    assert verdict.location.true_absmax < verdict.location.limit
    (kernel,) = [cause for cause in verdict.causes if cause.id == "kernel"]
    healed = {trial.arm for trial in verdict.trials if trial.outcome == "heals"}
    assert healed.issuperset(kernel.facts["healed_by"])


@pytest.mark.parametrize("name", ["poisonous-example", "nan-embedding", "overflow-without-determinism"])
def test_the_bad_example_is_named_and_its_token_shown(verdicts, name):
    verdict = verdicts(name).verdict
    (example,) = [cause for cause in verdict.causes if cause.id == "example"]
    assert example.status == "confirmed"
    assert (example.facts["necessary"], example.facts["sufficient"]) == (True, True)
    assert example.facts["example"] == verdict.location.example_id
    assert example.facts["example"] in verdict.recorded["example_ids"]
    assert verdict.location.token
    assert verdict.location.position >= 0


def test_stored_numbers_are_named(verdicts):
    causes = {cause.id: cause for cause in verdicts("nan-embedding").verdict.causes}
    assert causes["bad_weight"].facts["weight"] == "gpt_neox.embed_in.weight"
    causes = {cause.id: cause for cause in verdicts("damaged-weight").verdict.causes}
    assert abs(causes["outlier_weight"].facts["value"]) > 1e30
    assert causes["outlier_weight"].facts["typical"] < 1.0


def test_what_was_lost_at_the_resume_is_named(verdicts):
    for lost in ("optimizer", "loss_scale"):
        (cause,) = verdicts(f"resume-without-{lost.replace('_', '-')}").verdict.confirmed()
        assert cause.facts == {"resumed_step": 6, "lost": lost}


def test_the_lr_that_spiked_is_told_with_the_usual_one(verdicts):
    (cause,) = [cause for cause in verdicts("lr-spike").verdict.causes if cause.id == "lr"]
    assert cause.facts["lr"] == pytest.approx(3000 * cause.facts["usual_lr"])


@pytest.mark.parametrize("name", NAMES)
def test_every_verdict_can_be_told_in_both_languages_and_as_json(verdicts, name):
    verdict = verdicts(name).verdict
    for lang in ("en", "ko"):
        told = tell(verdict, lang)
        text = verdict_markdown(told)
        assert "{" not in text
        assert (re.search("[가-힣]", told.headline) is not None) == (lang == "ko")
        assert [cause.id for cause in told.causes] == [cause.id for cause in verdict.causes]
        assert all(cause.sentence for cause in told.causes)
        row = json.loads(dump_line(verdict_json(verdict, lang)), parse_constant=pytest.fail)
        assert row["outcome"] == verdict.outcome
        assert len(row["trials"]) == len(verdict.trials)
    run = RunDirectory.open(Path(verdict.run))
    written = json.loads((run.captures_path / f"verdict-{verdict.step:08d}.json").read_text("utf-8"))
    assert written["outcome"] == verdict.outcome
