"""The run directory on disk: written as the run goes, readable at any moment."""

from jinmaek.store.run_directory import RunDirectory
from jinmaek.store.steps import StepWriter, read_steps
from jinmaek.store.verdicts import read_verdicts

__all__ = ["RunDirectory", "StepWriter", "read_steps", "read_verdicts"]
