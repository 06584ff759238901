"""What a tool says of a log, in one shape for all tools; and how jinmaek is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.diagnosis.cases import Case


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a tool says is wrong: what it may mean, how sure, since when."""

    ids: frozenset[str]
    code: str
    established: bool
    step: int | None
    consequences: tuple[Claim, ...] = ()

    def and_consequences(self) -> list[Claim]:
        """The claim and everything it says follows from it."""
        return [self, *(claim for one in self.consequences for claim in one.and_consequences())]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tool's answer; ``error`` when it gave none."""

    claims: tuple[Claim, ...] = ()
    error: str | None = None

    @property
    def found(self) -> bool:
        """Whether it says that something is wrong."""
        return bool(self.claims)

    def right(self, case: Case) -> Claim | None:
        """The first claim, or consequence of one, that names the fault."""
        every = [claim for one in self.claims for claim in one.and_consequences()]
        return next((claim for claim in every if claim.ids & case.right), None)

    def first_right(self, case: Case) -> bool:
        """Whether the first claim does."""
        return self.found and bool(self.claims[0].ids & case.right)

    def wrong_established(self, case: Case) -> list[str]:
        """Causes claimed for certain that are not the fault."""
        return [claim.code for claim in self.claims if claim.established and not claim.ids & case.right]


def ask_jinmaek(path: Path, timeout: float = 60) -> Verdict:
    """``jinmaek diagnose PATH --json``; of a file with several runs, all claims together."""
    command = [sys.executable, "-m", "jinmaek", "diagnose", str(path), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(error="timeout")
    if done.returncode not in (0, 1):
        return Verdict(error=(done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:160])
    try:
        runs = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        return Verdict(error=f"no JSON: {error}")
    return Verdict(tuple(_claim(cause) for run in runs for cause in run["causes"]))


def _claim(cause: dict[str, Any]) -> Claim:
    return Claim(
        frozenset({cause["id"]}),
        cause["id"],
        cause["confidence"] == "established",
        cause["first_step"],
        tuple(_claim(one) for one in cause.get("consequences") or ()),
    )
