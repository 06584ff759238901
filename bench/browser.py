"""A headless Chromium, for timings, screenshots and tests: the system's, or the one that Playwright installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """Path of a Chromium on this machine: ``JINMAEK_CHROMIUM``, or one on the PATH."""
    return os.environ.get("JINMAEK_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser; Playwright's own where the system has none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers rarely allow Chromium's sandbox; the pages opened here are our own.
        chromium = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()
