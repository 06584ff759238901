"""A diagnosis, or the verdict of a replay, on a terminal, as Markdown and as JSON."""

from jinmaek.report.comparison import comparison_json, print_comparison
from jinmaek.report.json import as_json
from jinmaek.report.markdown import as_markdown
from jinmaek.report.parting import parting_json, print_parting
from jinmaek.report.terminal import print_diagnosis
from jinmaek.report.verdict import print_verdict, verdict_json, verdict_markdown

__all__ = [
    "as_json",
    "as_markdown",
    "comparison_json",
    "parting_json",
    "print_comparison",
    "print_diagnosis",
    "print_parting",
    "print_verdict",
    "verdict_json",
    "verdict_markdown",
]
