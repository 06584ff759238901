"""What the reports print of a verdict: plain sentences in one language."""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.core.text import Lang
from jinmaek.core.verdict import Outcome, Status, TrialOutcome
from jinmaek.explain.told import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldTrial:
    """One row of the table of trials.

    Attributes:
        arm: id of what was changed, and
        change: the same in words.
        outcome: id of what became of it (``None``: the row is the record itself), and
        said: the same in words.
        reason: why it was not run, in words.
        loss, grad_norm, seconds: numbers as printed; empty where there is none.
    """

    arm: str
    change: str
    outcome: TrialOutcome | None
    said: str
    reason: str | None
    loss: str
    grad_norm: str
    seconds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCause:
    """One cause, told.

    Attributes:
        id: the cause.
        status: shown, ruled out or open, and
        sureness: the same in words.
        title: a few words.
        sentence: what the trials say about it.
        details: its numbers, a sentence each.
        rests_on: the trials behind it, each with its outcome.
        measures: what to do, in order; only for what was shown.
    """

    id: str
    status: Status
    sureness: str
    title: str
    sentence: str
    details: tuple[str, ...]
    rests_on: tuple[str, ...]
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldShare:
    """How near the limit a step came: ``share`` of it, and ``text`` the same as printed."""

    step: int
    share: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldHeadroom:
    """How near the limit the steps before came, in a sentence and step by step."""

    sentence: str
    shares: tuple[ToldShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldVerdict:
    """The whole answer, told.

    Attributes:
        run: the run, and
        step: the step.
        lang: the language of every sentence.
        outcome: the verdict's.
        headline: the verdict in one sentence.
        summary: the chain of what was shown, or what is left to think of; ``None`` where there is nothing to say.
        control: the untouched replay.
        where: the first bad operation in a sentence, and its bare facts in another; empty if it was not looked for.
        headroom: how near the limit it came before.
        causes: in the order of the verdict.
        recorded: the record's own numbers as a row of the table.
        trials: in the order they were run.
        differences: what is not as it was when the run was recorded.
        effort: device and time, in a line.
    """

    run: str
    step: int
    lang: Lang
    outcome: Outcome
    headline: str
    summary: str | None
    control: str
    where: tuple[str, ...]
    headroom: ToldHeadroom | None
    causes: tuple[ToldCause, ...]
    recorded: ToldTrial | None
    trials: tuple[ToldTrial, ...]
    differences: tuple[str, ...]
    effort: str
