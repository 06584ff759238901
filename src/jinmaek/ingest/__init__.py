"""Reads the log of any trainer: jinmaek's own runs, transformers, TensorBoard, W&B, CSV, JSON lines, printed text."""

from jinmaek.core.errors import LogError
from jinmaek.ingest.find import find_logs
from jinmaek.ingest.source import LogSource

__all__ = ["LogError", "LogSource", "find_logs"]
