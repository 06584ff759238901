"""From findings to sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from jinmaek.core.finding import Diagnosis, Finding, RuleResult
from jinmaek.core.text import Lang, catalogue, say
from jinmaek.explain.evidence import details
from jinmaek.explain.limits import tell_limits
from jinmaek.explain.told import Measure, RuledOut, ToldDiagnosis, ToldFinding, ToldRule

SAFE, CHANGING = "+ ", "! "
"""How a line of a remedy begins: it changes nothing already learnt, or it changes the experiment."""

MOST_GAPS = 3  # missing columns named in one line


def explain(diagnosis: Diagnosis, lang: Lang) -> ToldDiagnosis:
    """The diagnosis in ``lang``."""
    causes = tuple(_told(finding, diagnosis, lang) for finding in diagnosis.causes)
    return ToldDiagnosis(
        source=diagnosis.source,
        lang=lang,
        verdict=diagnosis.verdict,
        weights=diagnosis.weights,
        headline=_headline(diagnosis, lang),
        weights_line=say(f"weights.{diagnosis.weights}", lang) if _asks_for_weights(diagnosis) else None,
        last_healthy=_last_healthy(diagnosis, lang),
        onset=diagnosis.causes[0].first_step if diagnosis.causes else None,
        causes=causes,
        notes=tuple(_told(finding, diagnosis, lang) for finding in diagnosis.notes),
        rules=tuple(told_rule(result, lang) for result in diagnosis.rules),
        coverage=_coverage(diagnosis, lang),
        gaps=_gaps(diagnosis.rules, lang),
        limits=tell_limits(diagnosis.limits, lang) if diagnosis.limits is not None else None,
    )


def _asks_for_weights(diagnosis: Diagnosis) -> bool:
    """Whether NaN in the weights is a question: not in a run that is healthy, or whose numbers stayed finite."""
    return any(cause.weights is not None for cause in diagnosis.causes)


def _headline(diagnosis: Diagnosis, lang: Lang) -> str:
    if not diagnosis.causes:
        return say(f"verdict.{diagnosis.verdict}", lang)
    first = diagnosis.causes[0]
    counted = "told.since_step" if _has_steps(diagnosis) else "told.since_record"
    since = say(counted, lang, step=first.first_step)
    if first.confidence == "possible":
        rivals = [other for other in diagnosis.causes if other.first_step == first.first_step]
        named = say("told.or", lang).join(dict.fromkeys(title_of(rival, lang) for rival in rivals))
        verdict = "told.perhaps" if diagnosis.verdict == "faulty" else "told.suspected"
        line = say(verdict, lang, since=since, title=named)
    else:
        rivals = [first]
        line = say("told.faulty", lang, since=since, title=title_of(first, lang))
    more = len(diagnosis.causes) - len(rivals)
    return line if not more else line + " " + say("told.more_causes", lang, count=more)


def _told(finding: Finding, diagnosis: Diagnosis, lang: Lang) -> ToldFinding:
    steps = _steps(finding, diagnosis, lang)

    def part(name: str) -> str:
        return say(key_of(finding, name), lang, **steps)

    return ToldFinding(
        id=finding.id,
        rule=finding.rule,
        severity=finding.severity,
        confidence=finding.confidence,
        sureness=say(f"confidence.{finding.confidence}", lang),
        title=_capital(title_of(finding, lang)),
        span=span(finding.first_step, finding.last_step, diagnosis, lang),
        what=part("what") if finding.confidence != "possible" else say("told.if_so", lang, what=part("what")),
        why=part("why"),
        details=details(finding.id, _numbers(finding, diagnosis, lang), steps, lang),
        ruled_out=ruled_out(finding, lang),
        undecided=tuple(lookalike_name(lookalike, lang) for lookalike in finding.undecided),
        measures=measures(key_of(finding, "remedy"), lang, steps),
        sure=part("sure"),
        consequences=tuple(_consequence(below, finding, diagnosis, lang) for below in finding.consequences),
    )


def _consequence(finding: Finding, above: Finding, diagnosis: Diagnosis, lang: Lang) -> str:
    steps = _steps(finding, diagnosis, lang)
    numbers = details(finding.id, _numbers(finding, diagnosis, lang), steps, lang)[:1]
    told = _capital(title_of(finding, lang))
    if (finding.first_step, finding.last_step) != (above.first_step, above.last_step):
        told += f" ({span(finding.first_step, finding.last_step, diagnosis, lang)})"
    return " ".join((f"{told}.", *numbers))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def title(pathology: str, lang: Lang) -> str:
    """A few words that name ``pathology``."""
    return say(f"{pathology}.title", lang)


def title_of(finding: Finding, lang: Lang) -> str:
    """A few words that name what was found."""
    return say(key_of(finding, "title"), lang)


def key_of(finding: Finding, part: str) -> str:
    """The message that tells ``part`` of a finding; a pathology may be told otherwise where the log shows its NaN."""
    shown = f"{finding.id}.{part}_as_nan"
    return shown if finding.evidence.get("as_nan") and shown in catalogue() else f"{finding.id}.{part}"


def measures(key: str, lang: Lang, steps: Mapping[str, Any]) -> tuple[Measure, ...]:
    """What to do, in order; ``key``: the message that says it."""
    lines = say(key, lang, **steps).strip().splitlines()
    return tuple(Measure(text=line[len(SAFE) :].strip(), safe=line.startswith(SAFE)) for line in lines)


def lookalike_name(lookalike: str, lang: Lang) -> str:
    """A look-alike in words: its own entry, or the pathology's title; what nobody has named keeps its id."""
    for key in (f"lookalike.{lookalike}", f"{lookalike}.title"):
        if key in catalogue():
            return say(key, lang)
    return lookalike


def ruled_out(finding: Finding, lang: Lang) -> tuple[RuledOut, ...]:
    """The look-alikes that ``finding`` excludes, and why."""
    return tuple(_excluded(finding.id, lookalike, lang) for lookalike in finding.ruled_out)


def _excluded(pathology: str, lookalike: str, lang: Lang) -> RuledOut:
    own = f"{pathology}.not_{lookalike}"
    why = say(own, lang) if own in catalogue() else say("told.excluded", lang)
    return RuledOut(id=lookalike, name=lookalike_name(lookalike, lang), why=why)


def _steps(finding: Finding, diagnosis: Diagnosis, lang: Lang) -> dict[str, Any]:
    """The two steps that every sentence may name; where records were counted instead, each says so."""
    return _counted({"first_step": finding.first_step, "last_step": finding.last_step}, diagnosis, lang)


def _numbers(finding: Finding, diagnosis: Diagnosis, lang: Lang) -> dict[str, Any]:
    steps = {name: step for name, step in finding.evidence.items() if name.endswith("_step") and step is not None}
    return {**finding.evidence, **_counted(steps, diagnosis, lang)}


def _counted(steps: dict[str, Any], diagnosis: Diagnosis, lang: Lang) -> dict[str, Any]:
    if _has_steps(diagnosis):
        return steps
    return {name: say("told.counted", lang, step=step) for name, step in steps.items()}


def _has_steps(diagnosis: Diagnosis) -> bool:
    return diagnosis.steps_known or diagnosis.steps_inferred


def span(first: int, last: int, diagnosis: Diagnosis, lang: Lang) -> str:
    """Which steps, or which records where the log names no steps."""
    steps = _has_steps(diagnosis)
    if first == last:
        return say("told.step" if steps else "told.record", lang, first=first)
    return say("told.steps" if steps else "told.records", lang, first=first, last=last)


def _last_healthy(diagnosis: Diagnosis, lang: Lang) -> str | None:
    step, checkpoint = diagnosis.last_healthy_step, diagnosis.last_healthy_checkpoint
    if step is None:
        return None
    where = span(step, step, diagnosis, lang)
    if checkpoint is not None:
        return say("told.last_healthy_checkpoint", lang, where=where, checkpoint=checkpoint)
    return say("told.last_healthy", lang, where=where)


def _coverage(diagnosis: Diagnosis, lang: Lang) -> str:
    parts = [say("told.read_as", lang, format=diagnosis.format, count=diagnosis.num_records)]
    if diagnosis.first_step is not None and diagnosis.last_step is not None and _has_steps(diagnosis):
        parts.append(span(diagnosis.first_step, diagnosis.last_step, diagnosis, lang))
    if diagnosis.steps_inferred:
        parts.append(say("told.steps_inferred", lang))
    elif not diagnosis.steps_known:
        parts.append(say("told.steps_counted", lang))
    if diagnosis.unread:
        parts.append(say("told.unread", lang, count=diagnosis.unread))
    made = sum(result.outcome != "not_checkable" for result in diagnosis.rules)
    parts.append(say("told.checks", lang, made=made, total=len(diagnosis.rules)))
    return " · ".join(parts)


def _gaps(rules: tuple[RuleResult, ...], lang: Lang) -> str | None:
    missing = Counter(name for result in rules if result.outcome == "not_checkable" for name in result.missing)
    if not missing:
        return None
    named = [need(name, lang) for name, _ in missing.most_common(MOST_GAPS)]
    count = sum(result.outcome == "not_checkable" for result in rules)
    rest = " …" if len(missing) > MOST_GAPS else ""
    return say("told.gaps", lang, count=count, needs="; ".join(named) + rest)


def told_rule(result: RuleResult, lang: Lang) -> ToldRule:
    """A rule's outcome in ``lang``."""
    needs = tuple(need(name, lang) for name in result.missing)
    return ToldRule(rule=result.rule, about=about(result.rule, lang), outcome=result.outcome, needs=needs)


def about(rule: str, lang: Lang) -> str:
    """What ``rule`` checks, in a line."""
    return say(f"rule.{rule}", lang)


def need(name: str, lang: Lang) -> str:
    """What people call the field ``name`` (``a|b``: either), and how to get it; an unnamed one keeps its name."""
    either = [say(f"needs.{one}", lang) if f"needs.{one}" in catalogue() else one for one in name.split("|")]
    return say("told.or", lang).join(either)
