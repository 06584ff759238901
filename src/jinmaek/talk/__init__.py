"""Talking with a model that was fine-tuned here."""

from jinmaek.talk.ask import Answer, ask

__all__ = ["Answer", "ask"]
