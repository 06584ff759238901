"""Figures of each tool on each group of logs, and the list of what was missed."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.diagnosis.cases import GROUPS, UNDETERMINED, Case, Group, corpus_cases, real_cases
from bench.diagnosis.excerpts import excerpt_cases
from bench.diagnosis.rivals import rivals
from bench.diagnosis.verdict import Verdict, ask_jinmaek


@dataclass(slots=True)
class Figures:
    """One tool on one group."""

    tool: str
    group: Group
    faults: int = 0
    found: int = 0
    right: int = 0
    first_right: int = 0
    wrong_established: int = 0
    healthy: int = 0
    false_alarms: int = 0
    undetermined: int = 0
    claimed_undetermined: int = 0
    unread: int = 0
    onset_errors: list[int] = field(default_factory=list)
    within_window: int = 0
    misses: list[str] = field(default_factory=list)

    def add(self, case: Case, verdict: Verdict) -> None:
        """Count one answer."""
        self.unread += verdict.error is not None
        if case.pathology == UNDETERMINED:
            self._add_undetermined(case, verdict)
        elif case.faulty:
            self._add_fault(case, verdict)
        else:
            self.healthy += 1
            self.false_alarms += verdict.found
            if verdict.found:
                self.misses.append(f"false alarm on {case.name}: {_said(verdict)}")

    def _add_undetermined(self, case: Case, verdict: Verdict) -> None:
        self.undetermined += 1
        claimed = [claim.code for claim in verdict.claims if claim.established]
        if claimed:
            self.claimed_undetermined += 1
            self.misses.append(f"claimed on undetermined {case.name}: {', '.join(claimed)}")

    def _add_fault(self, case: Case, verdict: Verdict) -> None:
        self.faults += 1
        self.found += verdict.found
        claim = verdict.right(case)
        self.right += claim is not None
        self.first_right += verdict.first_right(case)
        wrong = verdict.wrong_established(case)
        self.wrong_established += bool(wrong)
        if not verdict.found:
            self.misses.append(f"missed {case.name} ({case.pathology}){f': {verdict.error}' if verdict.error else ''}")
        elif claim is None or wrong:
            self.misses.append(f"wrong cause for {case.name} ({case.pathology}): {_said(verdict)}")
        if claim is not None and claim.step is not None and case.window is not None:
            error = case.onset_error(claim.step)
            self.onset_errors.append(error)
            self.within_window += case.in_window(claim.step)
            if not case.in_window(claim.step):
                where = f"{case.onset}-{case.onset_until}" if case.onset != case.onset_until else f"{case.onset}"
                self.misses.append(f"onset of {case.name}: said {claim.step}, was {where} (window {case.window})")


def _said(verdict: Verdict) -> str:
    return ", ".join(f"{claim.code}{'!' if claim.established else ''}@{claim.step}" for claim in verdict.claims)


def score(
    corpus: Path, logs: Path | None, venv: Path | None, json_out: Path | None, only: Sequence[Group] = ()
) -> None:
    """Ask every tool about every log; print the figures and the misses."""
    cases = [*corpus_cases(corpus), *excerpt_cases(corpus), *(real_cases(logs) if logs else ())]
    cases = [case for case in cases if not only or case.group in only]
    with tempfile.TemporaryDirectory(prefix="diagnosis-") as scratch:
        tools: dict[str, Callable[[Path], Verdict]] = {"jinmaek": ask_jinmaek}
        tools |= rivals(venv, Path(scratch)) if venv else {}
        figures = [one for name, ask in tools.items() for one in _judge(name, ask, cases)]
    print(table(figures))
    for one in figures:
        if one.misses and one.tool == "jinmaek":
            print(f"\n{one.tool}, {GROUPS[one.group]}:")
            print("\n".join(f"  {miss}" for miss in one.misses))
    if json_out:
        json_out.write_text(json.dumps([asdict(one) for one in figures], indent=1, ensure_ascii=False), "utf-8")


def _judge(name: str, ask: Callable[[Path], Verdict], cases: Sequence[Case]) -> list[Figures]:
    started = time.monotonic()
    figures = {group: Figures(name, group) for group in GROUPS}

    def asked(case: Case) -> Verdict:
        return ask(case.path) if case.path.exists() else Verdict(error="the run is gone")

    with ThreadPoolExecutor(2) as pool:
        for case, verdict in zip(cases, pool.map(asked, cases), strict=True):
            figures[case.group].add(case, verdict)
    print(f"{name}: {len(cases)} logs in {time.monotonic() - started:.0f} s", flush=True)
    return [one for one in figures.values() if one.faults or one.healthy or one.undetermined]


_HEAD = (
    "tool", "found", "right cause", "first right", "wrong, established", "onset median", "worst", "in window",
    "false alarms", "unread",
)  # fmt: skip


def table(figures: Sequence[Figures]) -> str:
    """The figures, group by group."""
    parts = []
    for group, words in GROUPS.items():
        rows = [_HEAD, *(_row(one) for one in figures if one.group == group)]
        if len(rows) > 1:
            widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
            lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
            parts.append("\n".join([f"\n{words}", *(line.rstrip() for line in lines)]))
    return "\n".join(parts)


def _row(one: Figures) -> tuple[str, ...]:
    errors: list[Any] = one.onset_errors
    return (
        one.tool,
        _share(one.found, one.faults),
        _share(one.right, one.faults),
        _share(one.first_right, one.faults),
        f"{one.wrong_established}" + (f" (+{one.claimed_undetermined})" if one.claimed_undetermined else ""),
        f"{statistics.median(errors):g}" if errors else "-",
        f"{max(errors)}" if errors else "-",
        _share(one.within_window, len(errors)),
        _share(one.false_alarms, one.healthy),
        str(one.unread),
    )


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} ({100 * part / whole:.0f} %)" if whole else "-"
