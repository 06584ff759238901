"""From a verdict to sentences. Nothing is claimed that the verdict does not say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinmaek.core.text import Lang, catalogue, say
from jinmaek.core.verdict import Cause, Difference, Trial, Verdict
from jinmaek.explain.evidence import placeholders
from jinmaek.explain.telling import SAFE
from jinmaek.explain.told import Measure
from jinmaek.explain.verdict_places import told_control, told_headroom, told_location
from jinmaek.explain.verdict_told import ToldCause, ToldTrial, ToldVerdict
from jinmaek.explain.verdict_words import arm_name, capital, listed, number, printable, said_facts, seen

UNTOUCHED = ("control", "repeat")  # trials that change nothing
MOST_ALIKE = 3  # trials of one arm with one outcome that are told one by one
ABSENT = ("", "None")  # what a difference calls a thing that is not there


def tell(verdict: Verdict, lang: Lang) -> ToldVerdict:
    """The verdict in ``lang``."""
    return ToldVerdict(
        run=verdict.run,
        step=verdict.step,
        lang=lang,
        outcome=verdict.outcome,
        headline=_headline(verdict, lang),
        summary=_summary(verdict, lang),
        control=told_control(verdict.control, lang),
        where=told_location(verdict.location, lang),
        headroom=told_headroom(verdict.headroom, lang),
        causes=tuple(_told_cause(cause, verdict, lang) for cause in verdict.causes),
        recorded=_recorded(verdict.recorded, lang),
        trials=tuple(tell_trial(trial, lang) for trial in verdict.trials),
        differences=tuple(_difference(difference, lang) for difference in verdict.differences),
        effort=_effort(verdict, lang),
    )


def verdict_line(event: Mapping[str, Any], lang: Lang) -> str:
    """One line about a verdict for a diagnosis; ``event`` has ``step``, ``outcome`` and ids of shown ``causes``."""
    titles = listed(cause_title(cause, lang) for cause in event.get("causes") or ())
    outcome = event["outcome"]
    if outcome == "CONFIRMED" and not titles:
        outcome = "INCONCLUSIVE"  # nothing to name: claim no proof
    return say(f"proof_line.{outcome}", lang, step=event["step"], titles=titles)


def cause_title(cause: str, lang: Lang) -> str:
    """A few words that name the cause; one that nobody has named keeps its id."""
    key = f"proof_cause.{cause}_title"
    return say(key, lang) if key in catalogue() else cause


def _headline(verdict: Verdict, lang: Lang) -> str:
    if verdict.symptom == "none" and verdict.outcome == "CONFIRMED":
        return say("proof.shown_without_symptom", lang, step=verdict.step)
    symptom = say(f"proof_symptom.{verdict.symptom}", lang)
    return say(f"proof_headline.{verdict.outcome}", lang, step=verdict.step, symptom=symptom)


def _summary(verdict: Verdict, lang: Lang) -> str | None:
    confirmed = verdict.confirmed()
    if confirmed:
        chain = say("proof.behind", lang).join(_link(cause, lang) for cause in confirmed)
        gone = "" if verdict.outcome == "NOT_REPRODUCED" else _gone_with(verdict, lang)
        return f"{capital(chain)}{gone}."
    return " ".join(_without_cause(verdict, lang)) or None


def _without_cause(verdict: Verdict, lang: Lang) -> Iterator[str]:
    """What is left to say where nothing was shown."""
    tried = any(trial.arm not in UNTOUCHED and trial.outcome in ("fails", "heals") for trial in verdict.trials)
    if verdict.outcome == "NOT_REPRODUCED" and tried:
        yield say("proof.nothing_counts", lang)
    for status, key in (("refuted", "proof.ruled_out"), ("undecided", "proof.still_open")):
        titles = listed(cause_title(cause.id, lang) for cause in verdict.causes if cause.status == status)
        if titles and (status, verdict.outcome) != ("refuted", "NOT_REPRODUCED"):
            yield say(key, lang, titles=titles)


def _link(cause: Cause, lang: Lang) -> str:
    """The cause with its numbers, as a link of the chain; without them if one is absent."""
    key, known = f"proof_cause.{cause.id}_link", said_facts(cause.facts, lang)
    if key not in catalogue() or not placeholders(key) <= set(known):
        return cause_title(cause.id, lang)
    if cause.id == "overflow" and not float(cause.facts["true_absmax"]) > float(cause.facts["limit"]):
        return cause_title(cause.id, lang)
    return say(key, lang, **known)


def _gone_with(verdict: Verdict, lang: Lang) -> str:
    healed = [trial for trial in verdict.trials if trial.outcome == "heals" and trial.arm not in UNTOUCHED]
    arms = listed(arm_name(trial.arm, trial.facts, lang) for trial in healed)
    return say("proof.gone_with", lang, arms=arms) if arms else ""


def _told_cause(cause: Cause, verdict: Verdict, lang: Lang) -> ToldCause:
    trials = _trials_of(cause, verdict)
    told = {name for name, fact in cause.facts.items() if getattr(verdict.location, name, None) == fact}
    if trials:
        told.add("healed_by")
    return ToldCause(
        id=cause.id,
        status=cause.status,
        sureness=say(f"proof_status.{cause.status}", lang),
        title=capital(cause_title(cause.id, lang)),
        sentence=_sentence(cause, lang),
        details=seen(cause.id, cause.facts, frozenset(told), lang),
        rests_on=_rests_on(trials, lang),
        measures=_measures(cause, trials, lang) if cause.status == "confirmed" else (),
    )


def _sentence(cause: Cause, lang: Lang) -> str:
    """What the trials say; what can never be shown is always told as open."""
    for status in (cause.status, "undecided"):
        key = f"proof_cause.{cause.id}_{status}"
        if key in catalogue():
            return say(key, lang)
    return say(f"proof_status.{cause.status}", lang)


def _measures(cause: Cause, trials: list[Trial], lang: Lang) -> tuple[Measure, ...]:
    """What to do; a line is left out if one of its facts is absent."""
    key, known = f"proof_cause.{cause.id}_remedy", said_facts(cause.facts, lang)
    if key not in catalogue():
        return ()
    healed = listed(arm_name(trial.arm, trial.facts, lang) for trial in trials if trial.outcome == "heals")
    known |= {"healed_by": healed} if healed else {}
    absent = dict.fromkeys(placeholders(key) - set(known), "\0")
    lines = say(key, lang, **known, **absent).strip().splitlines()
    told = [line for line in lines if "\0" not in line]
    return tuple(Measure(text=line[len(SAFE) :].strip(), safe=line.startswith(SAFE)) for line in told)


def _trials_of(cause: Cause, verdict: Verdict) -> list[Trial]:
    """The trials that the cause rests on; of several with the same arm those of the cause's own example."""
    found = [trial for trial in verdict.trials if trial.arm in cause.trials and trial.arm not in UNTOUCHED]
    example = cause.facts.get("example")
    if example is None:
        return found
    return [trial for trial in found if trial.facts.get("example", example) == example]


def _rests_on(trials: list[Trial], lang: Lang) -> tuple[str, ...]:
    """``bf16: healthy``; many alike are told as one: ``without one example (× 8): fails``."""
    alike: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        alike.setdefault((trial.arm, _outcome(trial, lang)), []).append(trial)
    told = []
    for (arm, outcome), group in alike.items():
        if len(group) > MOST_ALIKE:
            told.append(f"{arm_name(arm, {}, lang)} (× {len(group)}): {outcome}")
        else:
            told += [f"{arm_name(arm, trial.facts, lang)}: {outcome}" for trial in group]
    return tuple(told)


def _outcome(trial: Trial, lang: Lang) -> str:
    said, reason = say(f"proof_outcome.{trial.outcome}", lang), _reason(trial, lang)
    return said if reason is None else f"{said}, {reason}"


def _reason(trial: Trial, lang: Lang) -> str | None:
    if trial.reason is None:
        return None
    key = f"proof_not_run.{trial.reason}"
    return say(key, lang) if key in catalogue() else printable(trial.reason)


def tell_trial(trial: Trial, lang: Lang) -> ToldTrial:
    """One row of the table."""
    return ToldTrial(
        arm=trial.arm,
        change=arm_name(trial.arm, trial.facts, lang),
        outcome=trial.outcome,
        said=say(f"proof_outcome.{trial.outcome}", lang),
        reason=_reason(trial, lang),
        loss=_amount(trial.loss),
        grad_norm=_amount(trial.grad_norm),
        seconds="" if trial.outcome == "not_run" else _seconds(trial.seconds),
    )


def _recorded(recorded: Mapping[str, Any], lang: Lang) -> ToldTrial | None:
    """The record's loss and gradient norm as the row to compare with."""
    loss, grad_norm = _amount(recorded.get("loss")), _amount(recorded.get("grad_norm"))
    if not loss and not grad_norm:
        return None
    return ToldTrial(
        arm="recorded",
        change=say("proof_label.as_recorded", lang),
        outcome=None,
        said="",
        reason=None,
        loss=loss,
        grad_norm=grad_norm,
        seconds="",
    )


def _amount(value: Any) -> str:
    return "" if value is None else number(value)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else number(round(seconds))


def _difference(difference: Difference, lang: Lang) -> str:
    key = f"proof_difference.{difference.name}"
    name = say(key, lang) if key in catalogue() else printable(difference.name)
    absent = say("proof.absent", lang)
    then, now = (absent if value in ABSENT else printable(value) for value in (difference.recorded, difference.now))
    return say("proof.difference", lang, name=name, recorded=then, now=now)


def _effort(verdict: Verdict, lang: Lang) -> str:
    took = say("proof_label.took", lang, seconds=_seconds(verdict.seconds)) if verdict.seconds else ""
    return " · ".join(part for part in (printable(verdict.device), took) if part)
