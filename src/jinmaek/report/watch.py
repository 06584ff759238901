"""The live view of a run on a terminal: what is drawn, from what is known at a moment."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from jinmaek.core.codec import plain
from jinmaek.core.finding import Diagnosis, Finding
from jinmaek.core.record import EvaluationRecord, Item, StepRecord
from jinmaek.core.text import Lang, duration, say
from jinmaek.detect import RULES, Panel, conclude
from jinmaek.explain.telling import title
from jinmaek.explain.verdict_words import number as amount
from jinmaek.ingest.follow import Follower
from jinmaek.report.curve import draw_curve
from jinmaek.report.terminal import COLOURS, SIGNS, WIDEST

RECENT, USUAL = 50, 2000  # steps whose speed is the present one, and the usual one
FP16_LIMIT = 65504.0
FAMILIES = tuple(dict.fromkeys(rule.family for rule in RULES))
_FAMILY_OF = {rule.name: rule.family for rule in RULES}
SILENT_SECONDS, SILENT_STEPS = 60.0, 20  # without a new line for so long, or for so many usual steps, is told
_TALL = 24  # lines of a terminal from which on the curve gets a few more
_ENDS = {
    "completed": "html.end_completed",
    "interrupted": "html.end_interrupted",
    "skipped_steps": "html.end_skipped_steps",
    "no_updates": "html.end_no_updates",
}


@dataclass(slots=True)
class Watched:
    """What is known of a followed run.

    Attributes:
        follower: reads it.
        panel: the rules, fed with all that was read.
        last: newest record.
        evaluation: newest held-out loss.
        speeds: tokens and seconds of the last :data:`USUAL` steps.
        diagnosis: the rules' answer as of the last look that brought something.
    """

    follower: Follower
    panel: Panel = field(init=False)
    last: StepRecord | None = None
    evaluation: EvaluationRecord | None = None
    num_skipped: int = 0
    speeds: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=USUAL))
    diagnosis: Diagnosis = field(init=False)

    def __post_init__(self) -> None:
        self.panel = Panel(self.follower.facts)
        self._conclude()

    def look(self) -> int:
        """Take in what is new; how many items that were."""
        count = 0
        for item in self.follower.poll():
            count += 1
            self._take(item)
        if count:
            self._conclude()
        return count

    def _take(self, item: Item) -> None:
        self.panel.observe(item)
        if isinstance(item, EvaluationRecord):
            self.evaluation = item
        if isinstance(item, StepRecord):
            self.last = item
            self.num_skipped += item.optimizer_stepped is False
            if item.seconds:
                self.speeds.append((item.num_tokens or 0, item.seconds))

    def _conclude(self) -> None:
        self.diagnosis = conclude(self.panel, str(self.follower.path), 0, steps_inferred=False)

    def step_seconds(self) -> float | None:
        """Seconds of a usual step of late."""
        recent = [seconds for _, seconds in list(self.speeds)[-RECENT:]]
        return median(recent) if recent else None

    def speed(self, count: int) -> float | None:
        """Tokens per second over the last ``count`` steps."""
        part = list(self.speeds)[-count:]
        seconds = math.fsum(seconds for _, seconds in part)
        return math.fsum(tokens for tokens, _ in part) / seconds if seconds else None

    def seconds_left(self) -> float | None:
        """Until the last step, at the pace of late; ``None`` where that is not known or the run is over."""
        total, seconds = self.follower.facts.max_steps, self.step_seconds()
        if self.last is None or not total or not seconds or self.follower.end is not None:
            return None
        return seconds * max(0, total - self.last.step)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; non-finite numbers as strings."""
        last, end = self.last, self.follower.end
        encoded: dict[str, Any] = plain(
            {
                "run": str(self.follower.path),
                "end": None if end is None else end.get("end"),
                "step": None if last is None else last.step,
                "max_steps": self.follower.facts.max_steps,
                "loss": None if last is None else last.loss,
                "held_out": None if self.evaluation is None else self.evaluation.loss,
                "skipped_steps": self.num_skipped,
                "tokens_per_second": self.speed(RECENT),
                "seconds_left": self.seconds_left(),
                "verdict": self.diagnosis.verdict,
                "causes": [cause.id for cause in self.diagnosis.causes],
            }
        )
        return encoded


def draw_watched(watched: Watched, lang: Lang, width: int, height: int, *, quiet_seconds: float) -> RenderableType:
    """The view, at most ``width`` cells wide; ``quiet_seconds``: since the last new line."""
    parts: list[RenderableType] = [_head(watched, lang, width), *_state(watched, lang, quiet_seconds, width)]
    parts += [_bar(watched, width), _numbers(watched, lang, width)]
    onset = watched.diagnosis.causes[0].first_step if watched.diagnosis.causes else None
    series = watched.panel.trace.series()
    rows = 4 if height < _TALL else min(10, height - 18)
    parts += [Text(line, style="cyan", no_wrap=True) for line in draw_curve(series, onset, width, rows)]
    parts += _health(watched.diagnosis, lang, width)
    headroom = _headroom(watched, lang)
    if headroom is not None:
        parts.append(headroom)
    parts += _findings(watched.diagnosis.causes, lang)
    return Group(*parts)


def _head(watched: Watched, lang: Lang, width: int) -> Text:
    name = str(watched.follower.path)
    precision = watched.follower.facts.precision
    shown = f"{name} · {precision}" if precision else name
    # The end of a path tells more than its beginning.
    return Text(shown if cell_len(shown) <= width else "…" + shown[-(width - 1) :], style="bold", no_wrap=True)


def _state(watched: Watched, lang: Lang, quiet: float, width: int) -> Iterator[Text]:
    end = watched.follower.end
    if end is not None:
        good = end.get("end") == "completed"
        yield Text(say(_ENDS.get(str(end.get("end")), "watch.ended"), lang), style="green" if good else "bold red")
        return
    if watched.last is None:
        yield Text(say("watch.waiting", lang), style="dim")
        return
    patience = max(SILENT_SECONDS, SILENT_STEPS * (watched.step_seconds() or 0.0))
    if quiet > patience:
        yield Text(say("watch.silent", lang, seconds=duration(quiet)), style="bold yellow")


def _bar(watched: Watched, width: int) -> Text:
    total = watched.follower.facts.max_steps
    done = 0 if watched.last is None else watched.last.step
    cells = min(width, WIDEST)
    filled = cells if not total and done else min(cells, round(cells * done / (total or 1)))
    return Text.assemble(("━" * filled, "green"), ("─" * (cells - filled), "dim"))


def _numbers(watched: Watched, lang: Lang, width: int) -> Text:
    total, last = watched.follower.facts.max_steps, watched.last
    parts = []
    if last is not None:
        steps = f"{last.step:,}" + (f" / {total:,}" if total else "")
        parts.append(say("watch.step", lang, steps=steps))
        parts.append(say("watch.loss", lang, loss="–" if last.loss is None else amount(float(last.loss))))
    if watched.evaluation is not None:
        parts.append(say("watch.held_out", lang, loss=amount(float(watched.evaluation.loss))))
    if last is not None and last.lr is not None:
        parts.append(f"lr {last.lr:.2e}")
    now, usual = watched.speed(RECENT), watched.speed(USUAL)
    if now and usual:
        share = f"{round(100 * now / usual)}%"
        parts.append(say("watch.speed", lang, speed=amount(round(now)), share=share))
    left = watched.seconds_left()
    if left is not None:
        parts.append(say("watch.left", lang, left=duration(left)))
    if watched.num_skipped:
        parts.append(say("watch.skipped", lang, count=watched.num_skipped))
    return Text(" · ".join(parts))


def _health(diagnosis: Diagnosis, lang: Lang, width: int) -> Iterator[Text]:
    """One sign a family: the gravest finding of its rules, else how many of them could be checked."""
    found: dict[str, list[Finding]] = {family: [] for family in FAMILIES}
    for finding in diagnosis.causes:
        for each in (finding, *finding.consequences):
            if each.severity != "note":
                found.setdefault(_FAMILY_OF.get(each.rule, FAMILIES[0]), []).append(each)
    cells = []
    for family in FAMILIES:
        results = [result for result in diagnosis.rules if _FAMILY_OF.get(result.rule) == family]
        checked = sum(result.outcome != "not_checkable" for result in results)
        worst = min((each.severity for each in found[family]), default=None)
        sign, colour = ("–", "dim") if not checked else ("✓", "green")
        if worst is not None:
            sign, colour = SIGNS[worst], COLOURS[worst]
        name = say(f"watch_family.{family}", lang)
        cells.append(Text.assemble((f"{sign} {name}", colour), (f" {checked}/{len(results)}", "dim")))
    yield from _flowed(cells, width)


def _flowed(cells: Sequence[Text], width: int) -> Iterator[Text]:
    """The cells side by side, on as many lines as they need."""
    line = Text()
    for cell in cells:
        if line and line.cell_len + 3 + cell.cell_len > width:
            yield line
            line = Text()
        line = line + Text("   ") + cell if line else cell
    yield line


def _headroom(watched: Watched, lang: Lang) -> Text | None:
    """How far the scaled gradient is from what fp16 can hold.

    No element is larger than the 2-norm of all: below the limit nothing can have overflowed when the gradient was
    written down; above it, something may.
    """
    last = watched.last
    if last is None or last.loss_scale is None:
        return None
    if last.loss_scale == 0:
        return Text(say("watch.scale_dead", lang), style="bold red")
    if last.grad_norm is None or not math.isfinite(last.grad_norm):
        return Text(say("watch.overflowed", lang, scale=amount(last.loss_scale)), style="red")
    share = last.grad_norm * last.loss_scale / FP16_LIMIT
    if share <= 0:
        return None
    key = "watch.room" if share < 1 else "watch.no_room"
    factor = amount(float(f"{1 / share if share < 1 else share:.2g}"))
    style = "green" if share < 0.25 else "yellow"
    return Text(say(key, lang, scale=amount(last.loss_scale), factor=factor), style=style)


def _findings(causes: Sequence[Finding], lang: Lang) -> Iterator[Text]:
    for finding in causes:
        since = say("told.since_step", lang, step=finding.first_step)
        text = f"{SIGNS[finding.severity]} {since}: {title(finding.id, lang)}"
        sure = say(f"confidence.{finding.confidence}", lang)
        yield Text.assemble((text, f"bold {COLOURS[finding.severity]}"), (f" ({sure})", "dim"))
