"""The faults, and what is true of each."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from bench.faults import injections as put
from bench.faults.stage import Stage, largest_output

from jinmaek.config.recipe import Recipe
from jinmaek.core.verdict import Outcome
from jinmaek.pulse.listener import RunListener
from jinmaek.replay.dequantisation import dequantised
from jinmaek.training.batches import epoch_order
from jinmaek.training.session import load_session_data

FP16 = ("train.precision=fp16", "model.compute_dtype=fp16")
FP16_LIMIT = 65504.0
SKIPPED, WORST = -1, -2  # steps to prove: the first without update, the one of the largest loss in the second half
Rows = list[dict[str, str]]
Context = contextlib.AbstractContextManager[None]


@dataclass(frozen=True)
class Fault:
    """One scenario.

    Attributes:
        settings: of the recipe.
        there: what is broken, in training and in the proof (a property of the model, the software, the data).
        watching: a listener of the training that breaks something once.
        rows: changes the data before training.
        resume_without: stop at ``resume_at``, lose this, go on.
        step: the step to prove; by default what `jinmaek prove` chooses.
        outcome: the true verdict.
        must: causes that have to be confirmed.
        may: causes that are true as well; a confirmed one that is in neither is a false one.
    """

    name: str
    outcome: Outcome
    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    settings: tuple[str, ...] = ()
    there: Callable[[Stage, Recipe], Context] = lambda stage, recipe: contextlib.nullcontext()
    watching: Callable[[], RunListener] = RunListener
    rows: Callable[[Stage, Rows, int], Rows] = lambda stage, rows, seed: rows
    resume_without: str | None = None
    resume_at: int = 6
    step: int | None = None
    steps: int = 10
    trained_only: bool = False  # means nothing on random weights


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


def _first_ids(recipe: Recipe, stage: Stage) -> torch.Tensor:
    _, _, plan, _ = load_session_data(recipe)
    return plan.batches(1)[0].input_ids.to(stage.base.device)


def _overflowing(module: str, times: float) -> Callable[[Stage, Recipe], Context]:
    """``module`` scaled so that its largest output on the first batch is ``times`` fp16's limit."""

    def there(stage: Stage, recipe: Recipe) -> Context:
        largest = largest_output(stage.base, module, _first_ids(recipe, stage))
        return put.scaled(stage.base, module, times * FP16_LIMIT / largest)

    return there


def _overflowing_head(stage: Stage, recipe: Recipe) -> Context:
    head = stage.base.get_output_embeddings()
    name = next(path for path, module in stage.base.named_modules() if module is head)
    return _overflowing(name, 1.5)(stage, recipe)


def _attention_scores(stage: Stage, recipe: Recipe) -> Context:
    """Query and key large enough that their product overflows, and they themselves do not."""
    largest = largest_output(stage.base, "query_key_value", _first_ids(recipe, stage))
    return put.scaled(stage.base, "query_key_value", 6000.0 / largest)


def _rare_token(stage: Stage, rows: list[dict[str, str]]) -> int:
    """A token that no row has, and that reads back as itself."""
    used = Counter(each for row in rows for each in stage.tokenizer(" ".join(map(str, row.values())))["input_ids"])
    for token in range(len(stage.tokenizer) - 1, 300, -1):
        text = stage.tokenizer.decode([token])
        again = stage.tokenizer(f"답은 {text}!")["input_ids"]
        if token not in used and text.strip() and "�" not in text and token in again:
            return token
    raise AssertionError("no rare token")


def _changed_row(rows: list[dict[str, str]], seed: int, example: int, change: Callable[[str], str]) -> Rows:
    """``rows`` with another answer in the one that training sees as number ``example``."""
    place = epoch_order(len(rows), seed, 0)[example]
    answer = "output" if "output" in rows[place] else "answer"
    return [*rows[:place], {**rows[place], answer: change(rows[place][answer])}, *rows[place + 1 :]]


def _with_rare_token(stage: Stage, rows: Rows, seed: int) -> Rows:
    text = stage.tokenizer.decode([_rare_token(stage, rows)])
    return _changed_row(rows, seed, 8, lambda answer: f"답은 {text}! {answer}")


def _nan_embedding(stage: Stage, recipe: Recipe) -> Context:
    """The rare token's embedding is NaN."""
    weight = stage.base.get_input_embeddings().weight
    token = _rare_token(stage, stage.rows)
    return put.row_replaced(weight, token, torch.full_like(weight.data[token], torch.nan))


@contextlib.contextmanager
def _poisonous_token(stage: Stage, recipe: Recipe) -> Iterator[None]:
    """The rare token's embedding lies along a row of the first projection, which makes that output overflow.

    Every other token's stays well below the limit.
    """
    layer = stage.base.gpt_neox.layers[0]
    norm, linear = layer.input_layernorm, layer.attention.query_key_value
    weight = stage.base.get_input_embeddings().weight
    rows = dequantised(linear.weight) * norm.weight.float()
    along = rows[int(rows.norm(dim=1).argmax())]
    along = along - along.mean()
    token = _rare_token(stage, stage.rows)
    with put.row_replaced(weight, token, (along / along.norm() * weight.data.norm(dim=1).mean()).to(weight.dtype)):
        ids = torch.tensor([[token]], device=weight.device)
        poison = largest_output(stage.base, "layers.0.attention.query_key_value", ids)
        with put.scaled(stage.base, "layers.0.attention.query_key_value", 1.3 * FP16_LIMIT / poison):
            yield


def _alike(stage: Stage, rows: Rows, seed: int) -> Rows:
    """Twenty rows over and over: a calm loss."""
    return [rows[number % 20] for number in range(400)]


def _garbled_row(stage: Stage, rows: Rows, seed: int) -> Rows:
    """One answer of random words among rows that repeat each other: hard for any model, and no fault."""
    words = random.Random(seed).sample(range(400, len(stage.tokenizer)), 100)
    return _changed_row(_alike(stage, rows, seed), seed, 4 * 85, lambda _: stage.tokenizer.decode(words))


def _garbage_attention(stage: Stage, recipe: Recipe) -> Context:
    """Garbage for the widest batch of the first steps only."""
    _, _, plan, _ = load_session_data(recipe)
    widths = sorted(batch.input_ids.shape[1] for step in range(1, 11) for batch in plan.batches(step))
    return put.garbage_attention(longer_than=widths[-1] - 1)


@contextlib.contextmanager
def _broken_moments(stage: Stage, recipe: Recipe) -> Iterator[None]:
    from tests.broken_optimizer import broken_second_moments

    with broken_second_moments(), put.unsound_optimizer_allowed():
        yield


def _flipped_head(stage: Stage, recipe: Recipe) -> Context:
    weight = stage.base.get_output_embeddings().weight
    return put.bit_flipped(weight, int(weight.abs().flatten().argmax()))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "attention-scores-overflow", "CONFIRMED", _names("overflow"), _names("base"),
        settings=(*FP16, "model.attention=eager"), there=_attention_scores, steps=4,
    ),
    Fault(
        "mlp-overflow", "CONFIRMED", _names("overflow"), _names("base", "example"),
        settings=FP16, there=_overflowing("dense_4h_to_h", 1.5), steps=4,
    ),
    Fault(
        "logits-overflow", "CONFIRMED", _names("overflow"), _names("base", "example"),
        settings=FP16, there=_overflowing_head, steps=4,
    ),
    Fault(
        "grown-adapter", "CONFIRMED", _names("overflow", "adapter", "lr"), _names("example", "loss_scale"),
        settings=(*FP16, "optim.lr=0.05"), steps=16,
    ),
    Fault(
        "poisonous-example", "CONFIRMED", _names("overflow", "example"), _names("base"),
        settings=FP16, there=_poisonous_token, rows=_with_rare_token, steps=8,
    ),
    Fault(
        "nan-embedding", "CONFIRMED", _names("bad_weight", "example"), _names("base"),
        there=_nan_embedding, rows=_with_rare_token, steps=20,
    ),
    Fault(
        "broken-second-moments", "CONFIRMED", _names("optimizer"), _names("adapter"),
        settings=("optim.name=adamw_8bit",), there=_broken_moments, steps=20,
    ),
    Fault(
        "loss-scale-runaway", "CONFIRMED", _names("loss_scale"), _names("overflow"),
        settings=(*FP16, "train.loss_scale_growth_steps=1"), steps=14, step=SKIPPED,
    ),
    Fault(
        "lr-spike", "CONFIRMED", _names("adapter", "lr"), _names("overflow"),
        there=lambda stage, recipe: put.lr_spike(74, 3000.0), steps=80, rows=_alike,
        trained_only=True, settings=("train.batch_size=4",),
    ),
    Fault("garbage-attention", "CONFIRMED", _names("kernel"), _names("example", "base"), there=_garbage_attention),
    Fault(
        "garbage-dequantisation", "CONFIRMED", _names("kernel"), _names("base"), steps=4,
        there=lambda stage, recipe: put.garbage_dequantisation(3 * stage.base.config.hidden_size),
    ),
    Fault(
        "flipped-bit-of-adapter", "CONFIRMED", _names("outside_change"), watching=lambda: put.FlipsBit(7, "adapter"),
    ),
    Fault("flipped-bit-of-base", "NOT_REPRODUCED", watching=lambda: put.FlipsBit(7, "base")),
    Fault(
        "two-faults", "CONFIRMED", _names("combined"), settings=FP16, steps=4,
        there=lambda stage, recipe: _both(_overflowing_head(stage, recipe), put.garbage_attention(longer_than=1)),
    ),
    Fault(
        "damaged-weight", "CONFIRMED", _names("outlier_weight"), _names("overflow", "base"),
        settings=FP16, there=_flipped_head, steps=4,
    ),
    Fault(
        "not-deterministic", "REFUTED", _names("not_deterministic"), step=5, steps=6,
        there=lambda stage, recipe: put.unrepeatable(stage.base, "dense_4h_to_h", 1e-2),
    ),
    Fault(
        "overflow-without-determinism", "CONFIRMED", _names("overflow", "example", "not_deterministic"), _names("base"),
        settings=FP16, rows=_with_rare_token, steps=8,
        there=lambda stage, recipe: _both(
            _poisonous_token(stage, recipe), put.unrepeatable(stage.base, "layers.2.mlp.dense_4h_to_h", 1e-2)
        ),
    ),
    Fault(
        "resume-without-optimizer", "CONFIRMED", _names("wrong_resume"), resume_without="optimizer", step=9,
    ),
    Fault(
        "resume-without-loss-scale", "CONFIRMED", _names("wrong_resume"),
        settings=(*FP16, "train.loss_scale_init=1024.0", "train.loss_scale_growth_steps=2"),
        resume_without="loss_scale", step=9,
    ),
    Fault(
        "hard-example", "CONFIRMED", _names("hard_example"), rows=_garbled_row, trained_only=True, steps=90, step=WORST,
        settings=("optim.lr=1e-3", "train.batch_size=4", "data.max_length=128"),
    ),
    Fault("healthy", "REFUTED", step=8),
    Fault("healthy-fp16", "REFUTED", settings=FP16, step=4, steps=5),
    Fault("healthy-8bit", "REFUTED", settings=("optim.name=adamw_8bit",), step=30, steps=32),
    Fault("healthy-resume", "REFUTED", resume_without="nothing", step=9),
)  # fmt: skip


@contextlib.contextmanager
def _both(one: Context, other: Context) -> Iterator[None]:
    with one, other:
        yield
