"""The runs of a folder in a browser: listed, followed live, compared, proved."""

from jinmaek.web.app import make_app

__all__ = ["make_app"]
