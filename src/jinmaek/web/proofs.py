"""``jinmaek prove`` as a process of its own: torch never comes into the server, and a crash stays there."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jinmaek.core.text import Lang

MOST_TAIL = 4000  # characters of its output that are shown


@dataclass(slots=True)
class Proof:
    """One process and what it has printed."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def told(self) -> dict[str, Any]:
        """Exit code (``None`` while it runs) and the last of its output."""
        self.output.flush()
        text = Path(self.output.name).read_bytes().decode("utf-8", errors="replace")
        return {"code": self.process.poll(), "output": text[-MOST_TAIL:]}


class Proofs:
    """At most one proof at a time: each loads the base model, and the training may need the memory."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "jinmaek", "prove")) -> None:
        self._command = command
        self._proofs: dict[Path, Proof] = {}

    def start(self, run: Path, lang: Lang) -> bool:
        """Prove ``run``; false if a proof is running already."""
        if any(proof.process.poll() is None for proof in self._proofs.values()):
            return False
        output = tempfile.NamedTemporaryFile(prefix="jinmaek-prove-", suffix=".log")  # noqa: SIM115 - lives as long as its proof
        command = [*self._command, str(run), "--lang", lang]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self._proofs[run] = Proof(process, output)
        return True

    def told(self, run: Path) -> dict[str, Any] | None:
        """How the proof of ``run`` goes; ``None`` if none was started here."""
        proof = self._proofs.get(run)
        return None if proof is None else proof.told()

    def stop(self) -> None:
        """End whatever runs, as Ctrl-C would: what was tried until then is kept."""
        for proof in self._proofs.values():
            if proof.process.poll() is None:
                proof.process.send_signal(signal.SIGINT)
