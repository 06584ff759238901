"""What went wrong in a run, read from its records: pure rules, no clock, no files, no torch."""

from jinmaek.detect.conclude import conclude
from jinmaek.detect.diagnose import Diagnosed, diagnose, diagnose_path
from jinmaek.detect.panel import RULES, Panel
from jinmaek.detect.rule import Rule

__all__ = ["RULES", "Diagnosed", "Panel", "Rule", "conclude", "diagnose", "diagnose_path"]
