"""The report of one or many runs as a self-contained HTML page, and its charts as pictures."""

from jinmaek.report.page.gather import RunView, folder_of, gather
from jinmaek.report.page.render import render

__all__ = ["RunView", "folder_of", "gather", "render"]
