"""Prove from the command line: what is being tried on standard error, the verdict on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.status import Status

from jinmaek.cli.training import quiet_libraries
from jinmaek.core.codec import dump_line
from jinmaek.core.parting import Explanation
from jinmaek.core.text import Lang, say
from jinmaek.core.verdict import Trial
from jinmaek.explain import tell, tell_parting, tell_trial
from jinmaek.replay import AgainstListener, ProofListener, prove, prove_against
from jinmaek.report import parting_json, print_parting, print_verdict, verdict_json, verdict_markdown

Style = Literal["terminal", "json", "markdown"]
EXIT_CODES = {"REFUTED": 0, "CONFIRMED": 1, "INCONCLUSIVE": 3, "NOT_REPRODUCED": 3}
INTERRUPTED = 130
PARTING_EXIT_CODES = {"ALIKE": 0, "EXPLAINED": 1, "PARTED": 3, "NOT_REPRODUCED": 3}


def prove_run(run: Path, step: int | None, style: Style, lang: Lang) -> int:
    """Prove a step of ``run`` and print the verdict; returns the exit code.

    Raises:
        JinmaekError: as :func:`jinmaek.replay.prove`.
    """
    with _watched(lang) as view:
        verdict = prove(run, step=step, listener=view)
    if style == "json":
        typer.echo(dump_line(verdict_json(verdict, lang)))
    elif style == "markdown":
        typer.echo(verdict_markdown(tell(verdict, lang)), nl=False)
    else:
        print_verdict(tell(verdict, lang), Console(highlight=False))
    if verdict.interrupted:
        typer.echo(say("cli.proof_interrupted", lang), err=True)
        return INTERRUPTED
    return EXIT_CODES[verdict.outcome]


def prove_two(run: Path, against: Path, style: Style, lang: Lang) -> int:
    """Hold ``run`` against ``against`` and print where and why they part; returns the exit code.

    Raises:
        JinmaekError: as :func:`jinmaek.replay.against.prove_against`.
    """
    with _watched(lang) as view:
        parting = prove_against(run, against, listener=view)
    if style == "json":
        typer.echo(dump_line(parting_json(parting, lang)))
    else:
        print_parting(tell_parting(parting, lang), Console(highlight=False))
    return PARTING_EXIT_CODES[parting.outcome]


class _View(ProofListener, AgainstListener):
    """A line that says what is going on and for how long; off a terminal, a line for each phase and trial."""

    def __init__(self, console: Console, lang: Lang) -> None:
        self._console, self._lang = console, lang
        self._started = time.perf_counter()
        self.status = Status("…", console=console)

    def on_phase(self, phase: str) -> None:
        """Name it."""
        self._show(say(f"phase.{phase}", self._lang))

    def on_step(self, step: int) -> None:
        """Name it."""
        self._line(say("proof_label.step", self._lang, step=step))

    def on_trial(self, trial: Trial) -> None:
        """A line for the trial."""
        told = tell_trial(trial, self._lang)
        self._line(f"  {told.change}: {told.said}")

    def on_explanation(self, explanation: Explanation) -> None:
        """Name what was tried."""
        self._show(f"{say('phase.explaining', self._lang)}: {explanation.name}")

    def _show(self, text: str) -> None:
        if self._console.is_terminal:
            self.status.update(f"{text} …")
        else:
            self._line(f"… {text}")

    def _line(self, text: str) -> None:
        seconds = time.perf_counter() - self._started
        self._console.print(f"{text}  [dim]({seconds:.0f} s)[/dim]", highlight=False)


@contextmanager
def _watched(lang: Lang) -> Iterator[_View]:
    quiet_libraries()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    view = _View(Console(stderr=True, highlight=False), lang)
    with view.status:
        yield view
