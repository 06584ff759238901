"""What a rule is.

A rule sees every record through the shared :class:`~jinmaek.detect.trace.Trace`, keeps a bounded state of its
own, and says at any moment what it has found. It reads no clock, opens no file and imports no torch; the same
object judges a running training and an old log. Its state is not saved: after a resume it is rebuilt by
replaying the records (``docs/decisions/0007-rules-replay-instead-of-saving-state.md``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from jinmaek.core.finding import Finding
from jinmaek.detect.trace import Trace


class Rule:
    """Base of all rules.

    ``needs`` are the fields without which the rule cannot be checked; where an entry holds several names
    divided by ``|``, one of them is enough. ``min_records`` is the least number of records that say anything.
    ``observes``: whether :meth:`observe` has to be called for each record; ``when`` names the field without
    which a record has nothing for it (``fault``: it is for faulty records only).
    """

    name: ClassVar[str]
    family: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    ids: ClassVar[tuple[str, ...]] = ()
    min_records: ClassVar[int] = 1
    observes: ClassVar[bool] = False
    when: ClassVar[str | None] = None

    def observe(self, trace: Trace) -> bool:
        """Take note of the trace's record; true if there may be something new to tell at once."""
        return False

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """What was found up to now."""
        raise NotImplementedError

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """Needs that the run does not meet."""
        seen = trace.seen
        missing = [need for need in self.needs if not any(name in seen for name in need.split("|"))]
        if not missing and trace.num_records < self.min_records:
            missing.append("more_records")
        return tuple(missing)
