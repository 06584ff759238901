"""One run from recipe to adapter: training joined with its records, its guard and its end."""

from jinmaek.pulse.result import RunResult
from jinmaek.pulse.run import resume, train

__all__ = ["RunResult", "resume", "train"]
