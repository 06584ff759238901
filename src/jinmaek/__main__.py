"""``python -m jinmaek``."""

from jinmaek.cli.main import run

run()
