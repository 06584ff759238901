"""What the tests of sweeps share: a recipe file, a design on it, and an engine that needs no process."""

from jinmaek.lab.design import make_design, parse_factor
from jinmaek.lab.outcome import Outcome, encode_outcome
from jinmaek.lab.run_trials import SweepListener, SweepRun
from jinmaek.lab.sweep_directory import SweepDirectory, write_json


def write_recipe(folder, model_dir, pairs_file, **settings):
    """A recipe file on the small model of the tests; ``section__key=value`` adds to it."""
    tables = {
        "model": {"name": str(model_dir), "quantization": "none", "activation_checkpointing": False},
        "adapter": {"rank": 4},
        "data": {"source": str(pairs_file), "held_out": 0.2},
        "train": {"precision": "fp32", "max_steps": 8, "batch_size": 4},
        "optim": {"lr": 1e-2, "schedule": "constant"},
        "capture": {"every": 0},
    }
    for key, value in settings.items():
        section, _, name = key.partition("__")
        tables[section][name] = value
    lines = []
    for section, table in tables.items():
        lines.append(f"[{section}]")
        lines += [
            f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in table.items()
        ]
    path = folder / "small.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def design_of(recipe, *vary, settings=(), **options):
    return make_design(str(recipe), settings, [parse_factor(text) for text in vary], **options)


class Notes(SweepListener):
    """Keeps what it is told."""

    def __init__(self):
        self.starts, self.ends, self.notes = [], [], []

    def on_start(self, trial, *, resumed, seconds):
        self.starts.append((trial.number, resumed, seconds))

    def on_end(self, trial, outcome):
        self.ends.append((trial.number, outcome.status))

    def on_note(self, note):
        self.notes.append(note.key)


class Inline:
    """An engine that runs ``act(directory, trial)`` at once; its result is the exit code."""

    def __init__(self, act, slots=1):
        self.act, self.slots, self.most = act, slots, 0
        self.started, self.killed = {}, False

    def start(self, directory, trial):
        self.started[trial] = self.act(directory, trial)
        self.most = max(self.most, len(self.started))

    def ended(self):
        done, self.started = self.started, {}
        return done

    def kill(self):
        self.killed = True

    def close(self):
        pass


def finished(**facts):
    """The outcome of a trial that went well: ten steps of a second, and two seconds besides."""
    values = {"status": "completed", "steps": 10, "max_steps": 10, "held_out_before": 4.0, "held_out_after": 3.0}
    values |= {"held_out_tokens": 100, "train_loss": 3.1, "seconds": 12.0, "seconds_per_step": 1.0}
    return Outcome(**values | facts)


def ends_with(outcome_of):
    """An engine's act that writes ``outcome_of(trial)``."""

    def act(directory, trial):
        write_json(directory.outcome_path(trial), encode_outcome(outcome_of(trial)))
        return 0

    return act


def run(design, folder, engine, *, interrupted=lambda: False, **options):
    """Run a design in ``folder``; returns end, outcomes and what was told."""
    directory, notes = SweepDirectory(folder), Notes()
    directory.create_or_check(design, "compare")
    with directory.locked():
        end, outcomes = SweepRun(directory, design, engine, notes, interrupted, **options).run()
    return end, outcomes, notes
