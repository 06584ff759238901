"""Run a training from the command line: progress on standard error, Ctrl-C that saves."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from rich.console import Console

from jinmaek.cli.interruption import ctrl_c_saves
from jinmaek.cli.progress import TrainingView
from jinmaek.config import Recipe
from jinmaek.core.errors import ModelError
from jinmaek.core.text import Lang
from jinmaek.pulse import RunResult, resume, train


def run_training(recipe: Recipe | None, resumed: Path | None, run_dir: Path | None, lang: Lang) -> RunResult:
    """Train or resume, showing how it goes; prints the summary.

    Raises:
        JinmaekError: as :func:`jinmaek.pulse.train`; running out of GPU memory is one too.
    """
    quiet_libraries()
    console = Console(stderr=True, highlight=False)
    with ctrl_c_saves(console, lang) as interrupted, TrainingView(console, lang) as view:
        try:
            if resumed is not None:
                result = resume(resumed, listener=view, interrupted=interrupted)
            else:
                assert recipe is not None
                result = train(recipe, run_dir=run_dir, listener=view, interrupted=interrupted)
        except torch.OutOfMemoryError as error:
            raise ModelError("cli.out_of_memory", error=str(error).splitlines()[0]) from error
    view.summary(result)
    return result


def quiet_libraries() -> None:
    """Keep transformers' bars and advice off the terminal; jinmaek says itself what matters."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    # On the CPU there is nothing to page: the plain optimizer does the same.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
