"""Run a step of a training again, exactly or with one thing changed, to find out why it failed."""

from jinmaek.replay.against import AgainstListener, prove_against
from jinmaek.replay.prove import ProofListener, prove

__all__ = ["AgainstListener", "ProofListener", "prove", "prove_against"]
