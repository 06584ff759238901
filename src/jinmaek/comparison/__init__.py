"""Holds runs against each other, any log against any other: what differs, where they part, what the evidence shows."""

from jinmaek.comparison.compare import MARGIN, compare, compare_paths

__all__ = ["MARGIN", "compare", "compare_paths"]
