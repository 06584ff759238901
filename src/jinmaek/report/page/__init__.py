"""The report of one or many runs as a self-contained HTML page."""

from jinmaek.report.page.gather import RunView, folder_of, gather
from jinmaek.report.page.render import render
from jinmaek.report.page.write import default_path, gather_runs, write_page, write_report

__all__ = [
    "RunView",
    "default_path",
    "folder_of",
    "gather",
    "gather_runs",
    "render",
    "write_page",
    "write_report",
]
