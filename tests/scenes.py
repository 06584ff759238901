"""A session as the scene of replays, and what is put into its frozen base."""

from pathlib import Path

import torch

from jinmaek.replay.scene import Scene
from jinmaek.store import RunDirectory
from jinmaek.training.state import StateCopy, state_of


def scene_of(session):
    """``session`` as the scene of a run that recorded nothing yet."""
    return Scene(
        directory=RunDirectory(Path("nowhere")),
        manifest={},
        session=session,
        records={},
        resumed=(),
        fresh=StateCopy(state_of(session.training, 0)).wait(),
        differences=(),
    )


def layer(session, number):
    """Layer ``number`` of the frozen base, with the adapter's layers around its own."""
    return session.training.model.get_base_model().gpt_neox.layers[number]


@torch.no_grad()
def scaled(session, number, name, factor):
    """Multiply the frozen weight of a linear layer (``mlp.dense_h_to_4h``) by ``factor``."""
    layer(session, number).get_submodule(name).base_layer.weight.mul_(factor)
