"""A diagnosis in words: what happened, since when, why, what to do, how to be sure; in Korean or English."""

from jinmaek.explain.telling import explain, ruled_out
from jinmaek.explain.told import Measure, RuledOut, ToldDiagnosis, ToldFinding, ToldRule

__all__ = ["Measure", "RuledOut", "ToldDiagnosis", "ToldFinding", "ToldRule", "explain", "ruled_out"]
