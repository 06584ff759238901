"""Start a run, go on with one, and bring it to its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from jinmaek.config import Recipe, load_recipe, recipe_from_dict
from jinmaek.core.codec import number
from jinmaek.core.errors import RunError, StorageError
from jinmaek.core.record import RunFacts
from jinmaek.ingest import find_logs
from jinmaek.ingest.jinmaek_run import note_manifest
from jinmaek.pulse.alarms import Alarms
from jinmaek.pulse.card import write_card
from jinmaek.pulse.listener import RunListener
from jinmaek.pulse.recorder import Recorder, SkipGuard
from jinmaek.pulse.result import End, RunResult
from jinmaek.store import RunDirectory, StepWriter, read_steps
from jinmaek.store.run_directory import storage
from jinmaek.training.answer import answer
from jinmaek.training.captures import Captures
from jinmaek.training.checkpoint import list_checkpoints, load_checkpoint, save_adapter, write_whole
from jinmaek.training.determinism import repeatable
from jinmaek.training.fingerprint import content_keys
from jinmaek.training.loop import Loop
from jinmaek.training.manifest import check_same, make_manifest
from jinmaek.training.model import choose_device
from jinmaek.training.optimizer_check import require_sound
from jinmaek.training.session import Session, load_session_data, make_session

RUNS = Path("runs")


def train(
    recipe: Recipe | str | Path,
    *,
    run_dir: str | Path | None = None,
    listener: RunListener | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    base: Any = None,
) -> RunResult:
    """Fine-tune as ``recipe`` says (a built-in name, a TOML file, or a Recipe) and record every step.

    Args:
        recipe: what to do.
        run_dir: where the run is kept; by default ``runs/<recipe>-<time>``.
        listener: told of everything that happens.
        interrupted: asked before each step; true saves a checkpoint and ends the run.
        base: the base model, if it is loaded already (without an adapter; ``make_session`` says more).

    Raises:
        JinmaekError: bad recipe, data or model, or a full disk. What was computed until then stays on disk.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    path = Path(run_dir) if run_dir is not None else RUNS / f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"
    RunDirectory.check_free(path)
    listener = listener or RunListener()
    with _prepared(chosen, listener, base) as (session, determinism):
        directory = RunDirectory.create(path)
        with directory.locked():
            _check_room(session, path)
            manifest = make_manifest(session, determinism)
            directory.write_manifest(manifest)
            _name_held_out(session, directory)
            listener.on_ready(session, path)
            _ask(session, directory, listener, trained=False)
            return _run_to_end(session, directory, listener, interrupted, _alarms(manifest), first_step=1)


def resume(
    run_dir: str | Path,
    *,
    listener: RunListener | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    base: Any = None,
) -> RunResult:
    """Go on with a run from its last checkpoint, as if it had never stopped.

    Raises:
        RunError: no such run, no checkpoint, already finished, being trained now, or its data, order or base has
            changed.
        JinmaekError: as for :func:`train`.
    """
    directory = RunDirectory.open(Path(run_dir))
    with directory.locked():
        return _resumed(directory, listener or RunListener(), interrupted, base)


def _resumed(directory: RunDirectory, listener: RunListener, interrupted: Callable[[], bool], base: Any) -> RunResult:
    manifest = directory.read_manifest()
    if any(event["end"] == "completed" for event in directory.read_events("end")):
        raise RunError("run.complete", path=directory.path)
    with _prepared(recipe_from_dict(manifest["recipe"]), listener, base) as (session, _):
        check_same(manifest, session)
        kept = list_checkpoints(directory.checkpoints_path)
        done = load_checkpoint(session.training, kept[-1]) if kept else 0
        directory.append_event("resumed", step=done)
        alarms = _alarms(manifest)
        if directory.steps_path.exists():
            for item in find_logs(str(directory.path))[0].items():
                if (item.step or 0) <= done:
                    alarms.observe(item)
        listener.on_ready(session, directory.path)
        return _run_to_end(session, directory, listener, interrupted, alarms, first_step=done + 1)


@contextmanager
def _prepared(recipe: Recipe, listener: RunListener, base: Any) -> Iterator[tuple[Session, str]]:
    """Data, then model; within, kernels repeat to the bit if the recipe wants it."""
    require_sound(recipe.optim, choose_device())
    listener.on_phase("reading_data")
    loaded = load_session_data(recipe)
    with repeatable(recipe.train.deterministic, choose_device()) as determinism:
        listener.on_phase("loading_model")
        yield make_session(recipe, loaded, base), determinism


def _alarms(manifest: dict[str, Any]) -> Alarms:
    facts = RunFacts(source="jinmaek", filters_loss=False, logging_steps=1)
    note_manifest(manifest, facts)
    return Alarms(facts)


def _check_room(session: Session, path: Path) -> None:
    """Refuse to start a run whose checkpoints and snapshots would not fit on the disk.

    Each holds the adapter and AdamW's two moments, in fp32 or in 8 bits; one more than are kept exists while
    a new one is written, and the result comes on top.
    """
    moments = 2 if session.recipe.optim.name.endswith("8bit") else 8
    capture = session.recipe.capture
    num_captures = capture.keep + capture.keep_found + 1 if capture.every else 0
    num_states = session.recipe.train.keep_checkpoints + 1 + num_captures
    need = session.num_weights * ((4 + moments) * num_states + 4)
    free = shutil.disk_usage(path).free
    if free < need:
        raise StorageError("storage.too_small", path=path.absolute(), need=need / 2**20, free=free / 2**20)


def _run_to_end(
    session: Session,
    directory: RunDirectory,
    listener: RunListener,
    interrupted: Callable[[], bool],
    alarms: Alarms,
    *,
    first_step: int,
) -> RunResult:
    guard = SkipGuard(session.recipe.train.max_skipped_steps)
    captures = Captures(directory.captures_path, session.recipe.capture, directory.append_event)
    captures.forget_after(first_step - 1)
    with StepWriter(directory.steps_path) as writer, closing(captures):
        recorder = Recorder(
            directory,
            writer=writer,
            guard=guard,
            alarms=alarms,
            captures=captures,
            listener=listener,
            interrupted=interrupted,
        )
        loop = Loop(
            training=session.training,
            plan=session.plan,
            held_out=session.data.held_out,
            settings=session.recipe.train,
            max_steps=session.max_steps,
            pad_id=session.pad_id,
            eval_tokens=session.eval_tokens,
            checkpoints=directory.checkpoints_path,
            captures=captures,
            listener=recorder,
        )
        step, reason = loop.run(first_step)
        if guard.tripped:
            reason = "skipped_steps"
        if reason is None:
            loop.evaluate(step)
        recorder.review()
    num_updates = sum(bool(record.optimizer_stepped) for record in read_steps(directory.steps_path))
    end: End = reason or ("completed" if num_updates else "no_updates")
    if end == "completed":
        _ask(session, directory, listener, trained=True)
        _write_adapter(session, directory)
    result = _result(session, directory, recorder, step, end, num_updates)
    directory.append_event("end", **result.as_dict())
    return result


def _name_held_out(session: Session, directory: RunDirectory) -> None:
    """By content, in the order of every evaluation's ``example_losses``: so runs are paired example by example."""
    held_out = session.data.held_out
    if held_out:
        counts = [example.num_loss_tokens for example in held_out]
        directory.append_event("held_out", keys=content_keys(held_out), num_loss_tokens=counts)


def _ask(session: Session, directory: RunDirectory, listener: RunListener, *, trained: bool) -> None:
    section = session.recipe.samples
    if section.questions:
        listener.on_phase("asking")
    for question in section.questions:
        said = answer(
            session.training.model,
            session.tokenizer,
            session.recipe.data,
            question,
            device=session.training.device,
            dtype=session.training.dtype,
            max_new_tokens=section.max_new_tokens,
        )
        directory.append_event("sample", question=question, answer=said, trained=trained)
        listener.on_sample(question, said, trained=trained)


def _write_adapter(session: Session, directory: RunDirectory) -> None:
    evaluations = directory.read_events("evaluation")

    def write(draft: Path) -> None:
        save_adapter(session.training.model, draft)
        write_card(draft, session, evaluations)

    with storage(directory.path):
        write_whole(directory.adapter_path, write)


def _result(
    session: Session, directory: RunDirectory, recorder: Recorder, step: int, end: End, num_updates: int
) -> RunResult:
    losses = {event["step"]: number(event["loss"]) for event in directory.read_events("evaluation")}
    asked = {
        trained: {
            event["question"]: event["answer"]
            for event in directory.read_events("sample")
            if event["trained"] is trained
        }
        for trained in (False, True)
    }
    kept = list_checkpoints(directory.checkpoints_path)
    return RunResult(
        path=directory.path,
        end=end,
        adapter=directory.adapter_path if end == "completed" else None,
        last_checkpoint=kept[-1] if kept else None,
        num_steps=step,
        max_steps=session.max_steps,
        num_updates=num_updates,
        held_out_before=losses.get(0),
        held_out_after=losses.get(step) if step else None,
        seconds=recorder.seconds,
        num_tokens=recorder.num_tokens,
        diagnosis=recorder.alarms.conclusion(str(directory.path)),
        streak=recorder.guard.streak if end in ("skipped_steps", "no_updates") else None,
        samples=tuple(
            (question, asked[False].get(question), asked[True].get(question))
            for question in session.recipe.samples.questions
        ),
    )
