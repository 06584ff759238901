"""jinmaek's own run directory: ``run.json``, ``steps.jsonl``, ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinmaek.core.codec import decode_record
from jinmaek.core.record import EvaluationRecord, Item, Remark, RunFacts, StepRecord
from jinmaek.ingest.json_lines import scan_json
from jinmaek.ingest.lines import LONGEST_LINE
from jinmaek.ingest.numbers import to_count, to_number
from jinmaek.ingest.source import LogSource, Opener
from jinmaek.ingest.stream import opener

GROUPS_EVERY = 64  # the first so many records keep their module statistics, then every so manieth
_HEAD = b'{"step":'


@dataclass(slots=True)
class _Stretch:
    """Lines written without going back: the first ``num_lines`` of them, up to step ``last``, still hold."""

    num_lines: int
    first: int
    last: int


def read_run(path: Path, log: LogSource) -> Iterator[Item]:
    """The items of a run directory."""
    _note_manifest(path / "run.json", log.facts)
    log.facts.filters_loss = False
    log.facts.logging_steps = 1
    yield from _merged(read_steps_alone(opener(path / "steps.jsonl"), log), _read_events(path / "events.jsonl"))


def read_steps_alone(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The records of ``steps.jsonl``; steps that a resumed run repeated are those that it repeated.

    The file is read twice: where it goes back to an earlier step must be known before the first line that this
    makes void.
    """
    log.facts.filters_loss = False
    stretches = _stretches(open_log)
    with open_log() as stream:
        lines = iter(partial(stream.readline, LONGEST_LINE), b"")
        kept = 1
        for stretch in stretches:
            for _ in range(stretch.num_lines):
                raw = next(lines, b"")
                record = record_of(raw if kept <= GROUPS_EVERY or kept % GROUPS_EVERY == 0 else _without_groups(raw))
                if record is None:
                    # The last line of a run that still goes on, or was killed, may be half written.
                    log.unread += raw.endswith(b"\n") and not raw.isspace()
                elif record.step <= stretch.last:
                    kept += 1
                    yield record


def _without_groups(raw: bytes) -> bytes:
    """The line less its module statistics: most of its length, and the rules look at every 64th only."""
    start, end = raw.find(b',"groups":{'), raw.rfind(b',"digest":')
    return raw[:start] + raw[end:] if 0 < start < end else raw


def read_steps_once(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The records of a ``steps.jsonl`` that cannot be read twice; going back is told by a remark."""
    log.facts.filters_loss = False
    last = -1
    with open_log() as stream:
        for raw in iter(partial(stream.readline, LONGEST_LINE), b""):
            record = record_of(raw)
            if record is None:
                log.unread += raw.endswith(b"\n") and not raw.isspace()
                continue
            if record.step <= last:
                yield Remark(kind="resumed", step=record.step - 1)
            last = record.step
            yield record


def record_of(raw: bytes) -> StepRecord | None:
    """The record of a line of ``steps.jsonl``; ``None`` if it holds none."""
    try:
        row = scan_json(raw.decode(), 0)[0]
        if row.get("groups") is not None or b'"NaN"' in raw or b'Infinity"' in raw or not raw.startswith(_HEAD):
            return decode_record(row)
        if row.get("example_ids") is not None:
            row["example_ids"] = tuple(row["example_ids"])
        return StepRecord(**row)  # nothing to translate: the common line of a long run
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError, OverflowError):
        return None


def _stretches(open_log: Opener) -> list[_Stretch]:
    whole = _one_stretch(open_log)
    if whole is not None:
        return [whole]
    stretches = [_Stretch(0, 0, -1)]
    with open_log() as stream:
        for raw in iter(partial(stream.readline, LONGEST_LINE), b""):
            now = stretches[-1]
            now.num_lines += 1
            step = _step_of(raw)
            if step is None or not raw.endswith(b"\n"):
                continue
            if step > now.last:
                now.first = now.first if now.last >= 0 else step
                now.last = step
                continue
            now.num_lines -= 1
            for earlier in stretches:
                earlier.last = min(earlier.last, step - 1)
            stretches.append(_Stretch(1, step, step))
    return stretches


def _one_stretch(open_log: Opener) -> _Stretch | None:
    """The only stretch of a file that has a line for each step from its first to its last; ``None`` for any other."""
    with open_log() as stream:
        first = stream.readline(LONGEST_LINE)
        tail, num_lines = first, 1
        for block in iter(partial(stream.read, 1 << 20), b""):
            num_lines += block.count(b"\n")
            tail = (tail + block)[-LONGEST_LINE:]
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    begin, end = _step_of(first), _step_of(last)
    if begin is None or end is None or not tail.endswith(b"\n") or end - begin + 1 != num_lines:
        return None
    return _Stretch(num_lines, begin, end)


def _step_of(raw: bytes) -> int | None:
    if raw.startswith(_HEAD):
        digits = raw[len(_HEAD) : raw.find(b",", len(_HEAD), 40)]
        if digits.isdigit():
            return int(digits)
    record = record_of(raw)
    return None if record is None else record.step


def _read_events(path: Path) -> list[tuple[int, Item]]:
    """What stands beside the steps, each with the step it comes after; what a resume made void is left out."""
    found: list[tuple[int, Item]] = []
    if not path.is_file():
        return found
    with path.open("rb") as stream:
        for raw in iter(partial(stream.readline, LONGEST_LINE), b""):
            event = event_of(raw)
            item = item_of(event) if event else None
            if item is None:
                continue
            step = item.step or 0
            if isinstance(item, Remark) and item.kind == "resumed":
                found = [(at, kept) for at, kept in found if at <= step and getattr(kept, "kind", "") != "end"]
            if isinstance(item, EvaluationRecord):
                found = [(at, kept) for at, kept in found if at != step or not isinstance(kept, EvaluationRecord)]
            found.append((step, item))
    # Sorted by step only: what happened at one step stays in its order.
    return sorted(found, key=lambda pair: pair[0])


def event_of(raw: bytes) -> dict[str, Any] | None:
    """A line of ``events.jsonl``; ``None`` if it is no object."""
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def item_of(event: Mapping[str, Any]) -> Item | None:
    """What an event says beside the steps; ``None`` if the rules have no use for it."""
    kind = event.get("event")
    step = to_count(to_number(event.get("num_steps" if kind == "end" else "step")))
    if kind == "evaluation":
        return None if step is None else _evaluation(event, step)
    if kind == "checkpoint":
        return Remark(kind="checkpoint", step=step, text=str(event.get("path", "")))
    if kind == "resumed":
        return Remark(kind="resumed", step=step)
    return Remark(kind="end", step=step, text=str(event.get("end", ""))) if kind == "end" else None


def _evaluation(event: Mapping[str, Any], step: int) -> EvaluationRecord | None:
    loss = to_number(event.get("loss"))
    if loss is None:
        return None
    losses = [to_number(each) for each in event.get("example_losses") or ()]
    known = tuple(each for each in losses if each is not None)
    return EvaluationRecord(
        step=step,
        loss=loss,
        example_losses=known if known and len(known) == len(losses) else None,
        prompt_loss=to_number(event.get("prompt_loss")),
        answer_loss=to_number(event.get("answer_loss")),
    )


def _merged(records: Iterator[Item], beside: list[tuple[int, Item]]) -> Iterator[Item]:
    place = 0
    for record in records:
        while place < len(beside) and beside[place][0] < (record.step or 0):
            yield beside[place][1]
            place += 1
        yield record
    yield from (item for _, item in beside[place:])


def _note_manifest(path: Path, facts: RunFacts) -> None:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(manifest, dict):
        note_manifest(manifest, facts)


def note_manifest(manifest: Mapping[str, Any], facts: RunFacts) -> None:
    """Fill ``facts`` with what ``run.json`` says of the run."""
    facts.max_steps = to_count(to_number(manifest.get("max_steps")))
    facts.schedule_steps = to_count(to_number(manifest.get("schedule_steps")))
    facts.versions = {
        str(name): None if version is None else str(version) for name, version in _table(manifest, "versions").items()
    }
    facts.data = _table(manifest, "data")
    settings = _table(manifest, "settings")
    train, optim = _table(settings, "train"), _table(settings, "optim")
    facts.accumulation = to_count(to_number(train.get("accumulation")))
    facts.max_grad_norm = to_number(train.get("max_grad_norm"))
    facts.precision = _word(train, "precision")
    facts.optimizer = _word(optim, "name")
    facts.schedule = _word(optim, "schedule")
    facts.peak_lr = to_number(optim.get("lr"))
    facts.warmup_steps = to_count(to_number(optim.get("warmup_steps")))
    facts.weight_decay = to_number(optim.get("weight_decay"))
    facts.vocab_size = to_count(to_number(manifest.get("vocab_size")))
    facts.num_weights = to_count(to_number(_table(manifest, "trainable").get("num_weights")))
    facts.steps_per_epoch = to_number(manifest.get("steps_per_epoch"))
    betas = to_number(optim.get("beta1")), to_number(optim.get("beta2"))
    if betas[0] is not None and betas[1] is not None:
        facts.betas = betas[0], betas[1]


def _table(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = parent.get(name)
    return found if isinstance(found, dict) else {}


def _word(table: Mapping[str, Any], name: str) -> str | None:
    found = table.get(name)
    return found if isinstance(found, str) else None
