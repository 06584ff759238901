"""A diagnosis in words: what happened, since when, why, what to do, how to be sure; in Korean or English."""

from jinmaek.explain.comparison import ToldComparison, ToldPair, tell_comparison
from jinmaek.explain.limits import ToldLimits, tell_limits
from jinmaek.explain.parting import ToldExplanation, ToldParting, tell_parting
from jinmaek.explain.telling import explain, ruled_out
from jinmaek.explain.told import Measure, RuledOut, ToldDiagnosis, ToldFinding, ToldRule
from jinmaek.explain.verdict import tell, tell_trial, verdict_line
from jinmaek.explain.verdict_told import ToldCause, ToldTrial, ToldVerdict

__all__ = [
    "Measure",
    "RuledOut",
    "ToldCause",
    "ToldComparison",
    "ToldDiagnosis",
    "ToldExplanation",
    "ToldFinding",
    "ToldLimits",
    "ToldPair",
    "ToldParting",
    "ToldRule",
    "ToldTrial",
    "ToldVerdict",
    "explain",
    "ruled_out",
    "tell",
    "tell_comparison",
    "tell_limits",
    "tell_parting",
    "tell_trial",
    "verdict_line",
]
