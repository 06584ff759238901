"""The rules beside a running training: what they find is told once, as soon as it is found."""

from __future__ import annotations

from dataclasses import replace

from jinmaek.core.finding import Confidence, Diagnosis, Finding, Severity
from jinmaek.core.record import Item, Remark, RunFacts
from jinmaek.detect import Panel, conclude
from jinmaek.detect.limits import find_limits

_GRAVITY: dict[Severity, int] = {"note": 0, "warning": 1, "error": 2}
_SURENESS: dict[Confidence, int] = {"possible": 0, "likely": 1, "established": 2}


class Alarms:
    """Feeds the rules and passes on what is new: a pathology not told before, or one that became graver or surer.

    Pure Python on records that are already on the host: it never touches the device.
    """

    def __init__(self, facts: RunFacts) -> None:
        self.panel = Panel(facts)
        self._told: dict[str, tuple[int, int]] = {}

    def observe(self, item: Item) -> list[Finding]:
        """Take in an item; the errors and warnings that it brought to light.

        At a checkpoint, between steps, the rules that look back over the whole run are asked too.
        """
        rules = self.panel.observe(item)
        if isinstance(item, Remark) and item.kind == "checkpoint":
            return self.review()
        # Concluding takes milliseconds: only where one of these rules has something that was not told.
        return self.review() if rules and any(map(self._is_new, self.panel.findings(rules))) else []

    def review(self) -> list[Finding]:
        """What is new by any rule; what only follows from another finding is told with that one."""
        new = [finding for finding in self.diagnosis("").causes if self._is_new(finding)]
        for finding in new:
            self._told[finding.id] = _weight(finding)
        return new

    def diagnosis(self, name: str) -> Diagnosis:
        """The whole answer up to now."""
        return conclude(self.panel, name, 0, steps_inferred=False)

    def conclusion(self, name: str) -> Diagnosis:
        """The answer at the run's end, with what limits it."""
        diagnosis = self.diagnosis(name)
        return replace(diagnosis, limits=find_limits(self.panel.trace, diagnosis))

    def _is_new(self, finding: Finding) -> bool:
        return finding.severity != "note" and _weight(finding) > self._told.get(finding.id, (-1, -1))


def _weight(finding: Finding) -> tuple[int, int]:
    return _GRAVITY[finding.severity], _SURENESS[finding.confidence]
