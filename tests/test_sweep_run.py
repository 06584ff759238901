"""Running a design: order, budget, failures, going on, how many at a time; on an engine that needs no process."""

import math
import signal
import time

import pytest

from jinmaek.cli.sweeping import budget_seconds
from jinmaek.core.errors import RunError
from jinmaek.lab.comparison import compare_arms
from jinmaek.lab.estimate import Estimate
from jinmaek.lab.memory import GIB, trials_that_fit
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.progress import Progress, read_progress
from jinmaek.lab.sweep_directory import SweepDirectory
from jinmaek.lab.trial import run_trial
from jinmaek.store import read_steps
from sweeps import Inline, design_of, ends_with, finished, run, write_recipe

FAILED = Outcome(status="failed", error={"en": "no", "ko": "아니요"})


@pytest.fixture
def design():
    return design_of("quickstart", "train.max_steps=20,40,80", seeds=2)


def test_trials_run_once_and_in_order(design, tmp_path):
    end, outcomes, notes = run(design, tmp_path / "s", Inline(ends_with(lambda trial: finished())))
    assert (end, len(outcomes)) == ("done", 6)
    assert [number for number, _, _ in notes.starts] == [1, 2, 3, 4, 5, 6]
    end, outcomes, notes = run(design, tmp_path / "s", Inline(ends_with(lambda trial: pytest.fail("run again"))))
    assert (end, len(outcomes), notes.starts) == ("done", 6, [])


def test_a_failed_trial_does_not_stop_the_rest_and_is_tried_again(design, tmp_path):
    ends = {2: FAILED, 3: Outcome(status="collapsed"), 4: finished(status="not_finite", held_out_after=math.nan)}
    _, _, notes = run(design, tmp_path / "s", Inline(ends_with(lambda trial: ends.get(trial, finished()))))
    assert [status for _, status in notes.ends] == [
        "completed",
        "failed",
        "collapsed",
        "not_finite",
        "completed",
        "completed",
    ]
    _, _, notes = run(design, tmp_path / "s", Inline(ends_with(lambda trial: finished())))
    assert [number for number, _, _ in notes.starts] == [2], "the others ended as they would end again"


@pytest.mark.parametrize(
    ("code", "said"), [(-9, "killed from outside"), (-11, "exit code -11"), (1, "MemoryError: big")]
)
def test_a_process_that_died_is_a_failed_trial(code, said, design, tmp_path):
    def act(directory, trial):
        directory.log_path(trial).write_text("Traceback\nMemoryError: big\n\n")
        return code

    end, outcomes, _ = run(design, tmp_path / "s", Inline(act))
    assert end == "done"
    assert {outcome.status for outcome in outcomes.values()} == {"failed"}
    assert said in outcomes[1].error["en"]


def test_a_combination_that_cannot_be_is_a_failed_trial(tmp_path):
    settings = ["data.packing=true", "train.batch_size="]
    design = design_of("quickstart", "data.max_length=64,256", "train.batch_tokens=128,512", settings=settings)
    _, outcomes, notes = run(design, tmp_path / "s", Inline(ends_with(lambda trial: finished())))
    assert [number for number, _, _ in notes.starts] == [1, 2, 4]
    assert "팩" in outcomes[3].error["ko"]


def test_a_trial_that_cannot_end_in_the_budget_does_not_start_and_a_shorter_one_does(tmp_path):
    design = design_of("quickstart", "train.max_steps=20,80,40")
    engine = Inline(ends_with(lambda trial: finished(steps=20, max_steps=20, seconds=21.0)))  # a second a step
    end, outcomes, notes = run(design, tmp_path / "s", engine, budget_seconds=45.0)
    assert end == "budget"
    assert [number for number, _, _ in notes.starts] == [1, 3]
    assert notes.starts[1][2] == pytest.approx(41.0), "forty steps, and a second around them"
    assert sorted(outcomes) == [1, 3]


def test_what_runs_when_the_budget_is_over_saves_and_ends(tmp_path):
    design = design_of("quickstart", "train.max_steps=20,40")

    class Slow(Inline):
        def ended(self):
            stop = SweepDirectory(tmp_path / "s").stop_path
            return super().ended() if stop.exists() else {}

    engine = Slow(ends_with(lambda trial: Outcome(status="interrupted", steps=3, max_steps=20)))
    end, outcomes, notes = run(design, tmp_path / "s", engine, budget_seconds=0.3)
    assert (end, outcomes[1].status, notes.notes) == ("budget", "interrupted", ["lab.budget_over"])
    assert not (tmp_path / "s" / "stop").exists()


def test_ctrl_c_starts_nothing_more(design, tmp_path):
    asked = []
    engine = Inline(ends_with(lambda trial: (asked.append(trial), finished())[1]))
    end, outcomes, _ = run(design, tmp_path / "s", engine, interrupted=lambda: bool(asked))
    assert (end, sorted(outcomes)) == ("interrupted", [1])


def test_an_error_of_our_own_leaves_no_process_behind(design, tmp_path):
    engine = Inline(lambda directory, trial: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(design, tmp_path / "s", engine)
    assert engine.killed


def test_two_processes_do_not_run_one_sweep(design, tmp_path):
    directory = SweepDirectory(tmp_path / "s")
    directory.create_or_check(design, "compare")
    with directory.locked(), pytest.raises(RunError, match="another process"), directory.locked():
        pass


@pytest.mark.parametrize(("peak", "free", "most"), [(1.0, 8.0, 3), (3.0, 7.0, 2), (6.0, 7.0, 1), (None, 7.0, 1)])
def test_as_many_at_a_time_as_the_first_one_lets(peak, free, most, tmp_path, monkeypatch):
    monkeypatch.setattr("jinmaek.lab.memory.free_host_bytes", lambda: free * GIB)
    design = design_of("quickstart", "train.max_steps=20,40,80,160,200,220,230")
    size = None if peak is None else int(peak * GIB)
    engine = Inline(ends_with(lambda trial: finished(peak_bytes=size)), slots=3)
    _, outcomes, notes = run(design, tmp_path / "s", engine, measure_first=True)
    assert (len(outcomes), engine.most) == (7, most)
    key = {3: "lab.jobs_fit", 2: "lab.jobs_short", 1: "lab.jobs_short" if peak else "lab.jobs_unknown"}[most]
    assert notes.notes == [key]


def test_a_first_trial_that_never_ran_leaves_the_measuring_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("jinmaek.lab.memory.free_host_bytes", lambda: 8 * GIB)
    design = design_of("quickstart", "train.max_steps=20,40,80,160,200,220,230")
    dead = Outcome(status="failed", error={"en": "x", "ko": "x"})
    engine = Inline(ends_with(lambda trial: dead if trial == 1 else finished(peak_bytes=GIB)), slots=3)
    _, _, notes = run(design, tmp_path / "s", engine, measure_first=True)
    assert (engine.most, notes.notes) == (3, ["lab.jobs_fit"])


def test_a_gpu_is_shared_only_where_there_is_room_for_contexts_too(monkeypatch):
    monkeypatch.setattr("jinmaek.lab.memory.free_gpu_bytes", lambda: 24 * GIB)
    assert trials_that_fit(finished(peak_bytes=10 * GIB, on_gpu=True), 2)[0] == 2
    fit, note = trials_that_fit(finished(peak_bytes=11 * GIB, on_gpu=True), 2)
    assert (fit, note.key) == (1, "lab.jobs_gpu_short")


def test_times_come_from_the_same_arm_or_in_proportion_to_a_steps_size():
    design = design_of("quickstart", "train.batch_size=8,16", "train.max_steps=20,40")
    first, longer, larger, both = design.trials
    estimate = Estimate(design, {})
    assert estimate.seconds(first) is None
    estimate.learn(first, finished(steps=20, max_steps=20, seconds=25.0, seconds_per_step=1.0))
    assert estimate.seconds(first, 5) == pytest.approx(15 + 5)
    assert estimate.seconds(longer) == pytest.approx(40 + 5)
    assert estimate.seconds(both) == pytest.approx(80 + 5)
    estimate.learn(larger, finished(steps=20, max_steps=20, seconds=35.0, seconds_per_step=1.5))
    assert estimate.seconds(larger) == pytest.approx(30 + 5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("30", 1800), ("1.5h", 5400), (None, None)],
)
def test_budgets(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 hours", "-5m", "0", "1h30"])
def test_what_is_no_budget(text):
    with pytest.raises(RunError):
        budget_seconds(text)


def test_progress_is_the_last_whole_line(tmp_path):
    assert read_progress(tmp_path) == Progress()
    (tmp_path / "steps.jsonl").write_text('{"step":1,"loss":2.5}\n{"step":2,"loss":"NaN"}\n{"step":3,"lo', "utf-8")
    progress = read_progress(tmp_path)
    assert progress.step == 2
    assert math.isnan(progress.loss)


@pytest.fixture
def small(model_dir, pairs_file, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    yield lambda **settings: write_recipe(tmp_path, model_dir, pairs_file, **settings)
    signal.signal(signal.SIGINT, before)


def in_this_process():
    return Inline(lambda directory, trial: run_trial(directory.path, trial) and 0)


def test_an_lr_that_is_too_low_is_told_apart_and_a_setting_without_effect_is_not(small, tmp_path):
    recipe = small(train__max_steps=12)
    design = design_of(recipe, "optim.lr=1e-5,1e-2", seeds=3)
    _, outcomes, _ = run(design, tmp_path / "lr", in_this_process())
    found = compare_arms(design, outcomes)
    assert found.arms[0].difference.verdict == "higher"
    assert (found.lowest, found.contenders) == (1, ())
    equal = design_of(recipe, "train.log_every=1,2", settings=["train.max_steps=4"], seeds=2)
    _, outcomes, _ = run(equal, tmp_path / "equal", in_this_process())
    assert compare_arms(equal, outcomes).arms[1].difference.verdict == "same"


def test_seeds_give_every_arm_the_same_order_and_adapter(small, tmp_path):
    design = design_of(small(train__max_steps=3), "optim.lr=1e-3,1e-2", seeds=2)
    run(design, tmp_path / "s", in_this_process())
    runs = [SweepDirectory(tmp_path / "s").run_path(trial.number) for trial in design.trials]
    ids = [[record.example_ids for record in read_steps(path / "steps.jsonl")] for path in runs]
    first = [read_steps(path / "steps.jsonl")[0].loss for path in runs]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert first[0] == first[1] != first[2] == first[3]


def test_held_still_the_shorter_arms_are_the_first_steps_of_the_longest(small, tmp_path):
    recipe = small(optim__schedule="linear")

    def digests(controlled):
        design = design_of(recipe, "train.max_steps=3,6", controlled=controlled)
        directory = SweepDirectory(tmp_path / f"s{controlled}")
        run(design, directory.path, in_this_process())
        return [[record.digest for record in read_steps(directory.run_path(n) / "steps.jsonl")] for n in (1, 2)]

    short, long = digests(controlled=True)
    assert short == long[:3]
    short, long = digests(controlled=False)
    assert short != long[:3]


def test_a_stopped_trial_goes_on_to_the_same_bits(small, tmp_path):
    design = design_of(small(), "optim.lr=1e-3,1e-2")
    run(design, tmp_path / "whole", in_this_process())
    directory = SweepDirectory(tmp_path / "s")
    directory.create_or_check(design, "compare")
    directory.stop_path.touch()  # seen before the first step
    stopped = run_trial(directory.path, 1)
    assert (stopped.status, stopped.steps) == ("interrupted", 0)
    _, outcomes, _ = run(design, tmp_path / "s", in_this_process())
    assert outcomes[1].succeeded
    assert outcomes[1].seconds > stopped.seconds
    files = [tmp_path / name / "trials/001/adapter/adapter_model.safetensors" for name in ("whole", "s")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_that_ended_before_its_outcome_was_written_is_not_run_again(small, tmp_path):
    design = design_of(small(train__max_steps=3), "optim.lr=1e-3,1e-2")
    _, outcomes, _ = run(design, tmp_path / "s", in_this_process())
    directory = SweepDirectory(tmp_path / "s")
    directory.outcome_path(1).unlink()
    started = time.perf_counter()
    again = run_trial(directory.path, 1)
    assert time.perf_counter() - started < 1.0
    assert (again.status, again.loss) == ("completed", outcomes[1].loss)


def test_a_trial_that_learns_nothing_and_one_that_cannot_start_are_told(small, tmp_path):
    settings = ["train.precision=fp16", "train.loss_scale_init=1e30", "train.max_steps=3"]
    design = design_of(small(), 'adapter.targets=["nope"],["dense"]', settings=settings)
    _, outcomes, _ = run(design, tmp_path / "s", in_this_process())
    assert outcomes[1].status == "failed"
    assert "no module is called nope" in outcomes[1].error["en"]
    assert (outcomes[2].status, outcomes[2].skipped_steps) == ("collapsed", 3)
    assert "nothing was learnt" in outcomes[2].error["en"]
    assert "배운 것이 없어" in outcomes[2].error["ko"]
