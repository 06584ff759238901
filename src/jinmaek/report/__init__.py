"""A diagnosis on a terminal, as Markdown and as JSON."""

from jinmaek.report.json import as_json
from jinmaek.report.markdown import as_markdown
from jinmaek.report.terminal import print_diagnosis

__all__ = ["as_json", "as_markdown", "print_diagnosis"]
