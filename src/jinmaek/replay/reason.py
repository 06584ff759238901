"""From trials to causes. Pure: what is confirmed, refuted and left open is a function of what was tried.

A cause is confirmed only where changing it alone healed the step (and, where a look-alike would be healed by the
same change, something else tells the two apart). What no trial asked about is not mentioned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinmaek.core.verdict import Cause, Location, Outcome, Status, Symptom, Trial

_ALTERNATIVES = ("plain_kernels", "other_attention", "reference_dequantisation")
_ASKS = {
    "fp32": "overflow",
    "other_attention": "kernel",
    "reference_dequantisation": "kernel",
    "mended_weight": "bad_weight",
    "no_dropout": "dropout",
    "fresh_adapter": "adapter",
}
_ORDER: tuple[Status, ...] = ("confirmed", "refuted", "undecided")


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found out about a step."""

    symptom: Symptom
    trials: Sequence[Trial]
    location: Location | None
    facts: Mapping[str, Any]

    def named(self, arm: str) -> list[Trial]:
        """The trials of ``arm`` that were run."""
        return [trial for trial in self.trials if trial.arm == arm and trial.outcome != "not_run"]

    def healed(self, *arms: str) -> list[str]:
        """Those of ``arms`` of which a trial healed."""
        return [arm for arm in arms if any(trial.outcome == "heals" for trial in self.named(arm))]

    def failed(self, *arms: str) -> list[str]:
        """Those of ``arms`` that were run and never healed."""
        return [arm for arm in arms if self.named(arm) and not self.healed(arm)]

    @property
    def is_finite(self) -> bool:
        """Whether the symptom is a number too large and not one that is none."""
        return self.symptom in ("loss_spike", "gradient_spike", "update_beyond_bound")


def causes(evidence: Evidence) -> tuple[Cause, ...]:
    """The chain from the symptom to what lies behind it, then what is refuted, then what stays open."""
    found: list[Cause] = []
    if evidence.symptom == "none":
        return ()
    for judge in (_bad_weight, _outlier, _kernel, _overflow, _loss_scale, _example, _optimizer, _lr, _adapter):
        cause = judge(evidence)
        found += [] if cause is None else [cause]
    found += _base(evidence, found)
    found += _dropout(evidence, found)
    found = _with_combination(evidence, found)
    return tuple(sorted(found, key=lambda cause: _ORDER.index(cause.status)))


def _with_combination(evidence: Evidence, found: list[Cause]) -> list[Cause]:
    """Changes that heal only together: none of them is the cause alone, and none is refuted by having failed alone."""
    changes = evidence.facts.get("combined")
    if not changes:
        return found
    alone = {_ASKS[change] for change in changes} | {"base", "outlier_weight"}
    kept = [cause for cause in found if cause.id not in alone]
    return [*kept, _cause("combined", "confirmed", ["combined"], {"changes": changes})]


def outcome_of(found: Iterable[Cause], *, reproduced: bool, fails: bool) -> Outcome:
    """The verdict in one word."""
    if any(cause.status == "confirmed" and cause.id != "not_deterministic" for cause in found):
        return "CONFIRMED"
    if not reproduced:
        return "NOT_REPRODUCED"
    return "INCONCLUSIVE" if fails else "REFUTED"


def _cause(name: str, status: Status, trials: Iterable[str], facts: Mapping[str, Any]) -> Cause:
    known = {key: value for key, value in facts.items() if value is not None}
    return Cause(id=name, status=status, trials=tuple(trials), facts=known)


def _bad_weight(evidence: Evidence) -> Cause | None:
    bad = evidence.facts.get("bad_weights")
    if not bad:
        return None
    mended = [trial for trial in evidence.named("mended_weight") if "num_non_finite" in trial.facts]
    healed = [trial for trial in mended if trial.outcome == "heals"]
    facts = healed[0].facts if healed else bad[0]
    return _cause("bad_weight", "confirmed" if healed else "undecided", ["mended_weight"], facts)


def _outlier(evidence: Evidence) -> Cause | None:
    tried = [trial for trial in evidence.named("mended_weight") if "typical" in trial.facts]
    if not tried:
        return None
    healed = [trial for trial in tried if trial.outcome == "heals"]
    facts = (healed or tried)[0].facts
    return _cause("outlier_weight", "confirmed" if healed else "refuted", ["mended_weight"], facts)


def _kernel(evidence: Evidence) -> Cause | None:
    """Other code for the same mathematics in the same dtype heals, and no wider dtype was needed for that."""
    healed, place = evidence.healed(*_ALTERNATIVES), evidence.location
    tried = [arm for arm in _ALTERNATIVES if evidence.named(arm)]
    if not tried:
        return None
    if not healed:
        return _cause("kernel", "refuted", tried, {})
    true = None if place is None else place.true_absmax
    in_range = place is not None and true is not None and true <= place.limit
    facts = {
        "module": place.module if place else None,
        "op": place.op if place else None,
        "reference_absmax": true,
        "limit": place.limit if place else None,
        "healed_by": healed,
    }
    # A step in fp32 has no wider dtype to be tried. What overflows by a hair in fp16 may be healed by other rounding.
    never_wide = not (evidence.named("fp32") or evidence.named("bf16") or evidence.facts.get("is_fp16"))
    wide_fails = bool(evidence.failed("fp32")) or never_wide
    # Plain PyTorch draws other dropout masks than the fused kernels: by itself it does not tell kernel from mask.
    only_other_mask = healed == ["plain_kernels"] and bool(evidence.facts.get("other_mask"))
    if (evidence.is_finite or in_range or wide_fails) and not only_other_mask:
        return _cause("kernel", "confirmed", healed, facts)
    # Beyond the range by true arithmetic: another kernel only orders the same overflow differently.
    return None if true is not None else _cause("kernel", "undecided", healed, facts)


def _overflow(evidence: Evidence) -> Cause | None:
    place, wide = evidence.location, evidence.healed("bf16", "fp32")
    if evidence.is_finite or not (evidence.named("bf16") or evidence.named("fp32")):
        return None
    if not wide:
        return _cause("overflow", "refuted", evidence.failed("bf16", "fp32"), {})
    if place is None or place.dtype != "float16" or place.weight is not None:
        return _cause("overflow", "undecided", wide, {"healed_by": wide})
    facts = {
        "phase": place.phase,
        "module": place.module,
        "dtype": place.dtype,
        "true_absmax": place.true_absmax,
        "limit": place.limit,
        "healed_by": wide,
    }
    beyond = place.true_absmax is not None and place.true_absmax > place.limit
    scaled = place.phase == "backward" and evidence.healed("smaller_scale")
    if beyond or scaled:
        return _cause("overflow", "confirmed", wide, facts)
    return _cause("overflow", "refuted" if place.true_absmax is not None else "undecided", wide, facts)


def _loss_scale(evidence: Evidence) -> Cause | None:
    tried = evidence.named("smaller_scale")
    if not tried:
        return None
    facts = {
        "loss_scale": evidence.facts.get("loss_scale"),
        "largest_finite_scale": evidence.facts.get("largest_finite_scale"),
    }
    return _cause(
        "loss_scale", "confirmed" if evidence.healed("smaller_scale") else "refuted", ["smaller_scale"], facts
    )


def _example(evidence: Evidence) -> Cause | None:
    """Some of the step's examples are needed for the failure, and others are not."""
    without = evidence.named("without_example") + evidence.named("without_examples")
    needed = [trial for trial in without if trial.outcome == "heals"]
    others = evidence.named("other_batch")
    alone = evidence.facts.get("num_examples") == 1
    if alone:
        if not others:
            return None
        needed = [] if any(trial.outcome == "fails" for trial in others) else others[:1]
        facts = {"example": evidence.facts.get("only_example"), "necessary": bool(needed), "sufficient": True}
        arms = ["other_batch"]
    elif not without and not evidence.named("only_example"):
        return None
    else:
        few = len(needed) == 1 or 0 < len(needed) < len(without)
        needed = needed if few else []
        facts, arms = _needed_facts(evidence, needed), _example_arms(evidence, needed)
    if not needed:
        return _cause("example", "refuted", arms, {})
    if (hard := _hard_for_base(evidence)) is not None:
        return _cause("hard_example", "confirmed", [*arms, "fresh_adapter"], {**facts, **hard})
    return _cause("example", "confirmed", arms, facts)


def _example_arms(evidence: Evidence, needed: Sequence[Trial]) -> list[str]:
    """The arms on one example, on several, or on whichever were tried where none was needed."""
    one, several = ["without_example", "only_example"], ["without_examples", "only_examples"]
    if needed:
        return several if needed[0].arm in several else one
    return [arm for arm in one + several if evidence.named(arm)]


def _hard_for_base(evidence: Evidence) -> dict[str, Any] | None:
    """A spike of which the untouched base shows at least half, over its own usual loss: the text is hard."""
    losses, level = evidence.facts.get("base_losses"), evidence.facts.get("level")
    loss = evidence.facts.get("recorded_loss")
    if losses is None or level is None or loss is None or evidence.symptom != "loss_spike":
        return None
    here, usual = losses
    return {"base_loss": here, "typical_loss": usual} if here - usual >= (loss - level) / 2 else None


def _needed_facts(evidence: Evidence, needed: Sequence[Trial]) -> dict[str, Any]:
    if not needed:
        return {}
    chosen = needed[0].facts
    only = [
        trial
        for arm in ("only_example", "only_examples")
        for trial in evidence.named(arm)
        if _same_examples(trial.facts, chosen)
    ]
    alone = only[0] if only else None
    return {
        "example": chosen.get("example") or ", ".join(chosen.get("examples", ())),
        "necessary": True,
        "sufficient": None if alone is None else alone.outcome == "fails",
        "loss": None if alone is None else alone.loss,
    }


def _same_examples(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one.get("example"), one.get("examples")) == (other.get("example"), other.get("examples"))


def _adapter(evidence: Evidence) -> Cause | None:
    if not evidence.named("fresh_adapter"):
        return None
    if not evidence.healed("fresh_adapter", "earlier_adapter"):
        return _cause("adapter", "refuted", ["fresh_adapter"], {})
    earlier = sorted(evidence.named("earlier_adapter"), key=lambda trial: trial.outcome != "heals")
    facts = {name: evidence.facts.get(name) for name in ("norm_before", "norm_now", "start_step")}
    if earlier:
        facts |= {"earlier_step": earlier[0].facts.get("adapter_step"), "earlier_outcome": earlier[0].outcome}
    return _cause("adapter", "confirmed", ["fresh_adapter", *(["earlier_adapter"] if earlier else [])], facts)


def _optimizer(evidence: Evidence) -> Cause | None:
    check = evidence.facts.get("optimizer_check")
    tried = evidence.named("exact_moments")
    if check is None or not tried:
        return None
    facts = {**check, "largest_update": evidence.facts.get("largest_update"), **tried[0].facts}
    facts.pop("sound")
    if not evidence.healed("exact_moments"):
        return _cause("optimizer", "refuted", ["exact_moments"], facts)
    wrong = not check["sound"] or evidence.facts.get("update_beyond_bound")
    return _cause("optimizer", "confirmed" if wrong else "undecided", ["exact_moments"], facts)


def _lr(evidence: Evidence) -> Cause | None:
    """A lower lr heals whatever grew: it is the cause only where the optimizer is not."""
    tried = evidence.named("lower_lr")
    if not tried:
        return None
    facts = {
        "lr": evidence.facts.get("lr"),
        "usual_lr": evidence.facts.get("usual_lr"),
        **{name: tried[0].facts.get(name) for name in ("factor", "start_step")},
    }
    if evidence.healed("usual_lr"):
        return _cause("lr", "confirmed", ["usual_lr"], facts)
    if not evidence.healed("lower_lr"):
        return _cause("lr", "refuted", ["lower_lr"], facts)
    optimizer = _optimizer(evidence)
    if optimizer is not None and optimizer.status == "confirmed":
        return None
    return _cause("lr", "confirmed", ["lower_lr"], facts)


def _base(evidence: Evidence, found: Sequence[Cause]) -> list[Cause]:
    """The base alone fails, and nothing about this step, its kernels or its stored numbers says why."""
    if evidence.is_finite or not evidence.failed("fresh_adapter"):
        return []
    special = {"example", "hard_example", "kernel", "loss_scale", "bad_weight", "outlier_weight"}
    if any(cause.id in special and cause.status == "confirmed" for cause in found):
        return []
    return [_cause("base", "confirmed", ["fresh_adapter"], {})]


def _dropout(evidence: Evidence, found: Sequence[Cause]) -> list[Cause]:
    """Another mask is another step: it counts only where nothing else was shown."""
    if not evidence.named("no_dropout") or any(cause.status == "confirmed" for cause in found):
        return []
    healed = bool(evidence.healed("no_dropout"))
    return [_cause("dropout", "confirmed" if healed else "refuted", ["no_dropout"], {})]
