"""What the lines of a printed log tell, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.ingest.bars import Bar
from jinmaek.ingest.names import Row
from jinmaek.ingest.remarks import Said


@dataclass(slots=True)
class Line:
    """A row of numbers; ``rounded`` if it came through a logger, which prints fewer digits."""

    row: Row
    rounded: bool = False


Event = Line | Bar | Said
