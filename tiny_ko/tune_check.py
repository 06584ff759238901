"""Check that LoRA fine-tuning teaches the model to answer.

`python -m tiny_ko.tune_check DIR` reads what `tiny_ko.make --out DIR` wrote.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from tiny_ko.answers import PROMPT, Score, answer, scores, total_score
from tiny_ko.instructions import Pair, read_pairs
from tiny_ko.lora import backend, with_adapters

_IGNORED: Final = -100
_WARM_UP_SHARE: Final = 0.05
_LARGEST_GRADIENT: Final = 1.0


class Example(NamedTuple):
    """A row's token ids and how many of them are the prompt."""

    ids: list[int]
    prompt: int


class Result(NamedTuple):
    """What was measured before tuning, or after it with one seed."""

    label: str
    loss: float
    everyday_loss: float
    score: Score
    by_kind: dict[str, Score]
    seconds: float


class Bench:
    """The model's folder, its rows and the settings of the check."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device: str = options.device
        self.folder: Path = options.folder / "model"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        self.train = read_pairs(options.folder / "train.jsonl")
        self.held_out = read_pairs(options.folder / "held_out.jsonl")

    def load(self) -> Any:
        """Return a fresh copy of the model in single precision."""
        model: Any = GPTNeoXForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        return model.to(self.device)

    def examples(self, pairs: Sequence[Pair]) -> list[Example]:
        """Encode rows; the prompt is encoded alone, as generation does."""
        found: list[Example] = []
        for pair in pairs:
            prompt = self.tokenizer.encode(PROMPT.format(question=pair["question"]))
            told = f" {pair['answer']}{self.tokenizer.eos_token}"
            found.append(Example(prompt + self.tokenizer.encode(told), len(prompt)))
        return found

    def tune(self, seed: int) -> Any:
        """Train adapters on the rows and return the tuned model."""
        torch.manual_seed(seed)
        model = with_adapters(self.load()).to(self.device)
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.options.rate, weight_decay=0.0)
        examples = self.examples(self.train)
        size: int = self.options.batch
        steps = self.options.epochs * -(-len(examples) // size)
        warm_up = max(1, int(steps * _WARM_UP_SHARE))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min((step + 1) / warm_up, (steps - step) / (steps - warm_up)),
        )
        random = Random(seed)
        for _ in range(self.options.epochs):
            random.shuffle(examples)
            for start in range(0, len(examples), size):
                summed, count = self._losses(model, examples[start : start + size])
                torch.autograd.backward(summed / count)
                torch.nn.utils.clip_grad_norm_(trained, _LARGEST_GRADIENT)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
        return model

    def measure(self, model: Any, label: str, seconds: float = 0.0) -> Result:
        """Measure the loss on held-out answers and count the right ones."""
        model.eval()
        facts = [pair for pair in self.held_out if pair.get("expects") is not None]
        other = [pair for pair in self.held_out if pair.get("expects") is None]
        questions = [pair["question"] for pair in facts]
        texts = answer(model, self.tokenizer, questions, self.device)
        by_kind = scores(facts, texts)
        for pair, text in list(zip(facts, texts, strict=True))[: self.options.show]:
            print(f"  {pair['question']} -> {text!r} (expects {pair.get('expects')})")
        return Result(
            label=label,
            loss=self._mean_loss(model, facts),
            everyday_loss=self._mean_loss(model, other),
            score=total_score(by_kind),
            by_kind=by_kind,
            seconds=seconds,
        )

    @torch.no_grad()
    def _mean_loss(self, model: Any, pairs: Sequence[Pair]) -> float:
        if not pairs:
            return float("nan")
        summed, count = self._losses(model, self.examples(pairs))
        return summed.item() / count

    def _losses(self, model: Any, examples: Sequence[Example]) -> tuple[torch.Tensor, int]:
        """Return the answers' summed loss and how many tokens they have."""
        width = max(len(example.ids) for example in examples)
        ids = torch.full((len(examples), width), self.tokenizer.pad_token_id)
        labels = torch.full((len(examples), width), _IGNORED)
        for line, (tokens, prompt) in enumerate(examples):
            ids[line, : len(tokens)] = torch.tensor(tokens)
            labels[line, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        # Padding on the right is never looked at by the tokens before it.
        logits = model(input_ids=ids.to(self.device)).logits[:, :-1]
        wanted = labels[:, 1:].to(self.device).flatten()
        summed = functional.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=_IGNORED, reduction="sum")
        return summed, int((labels[:, 1:] != _IGNORED).sum())


def commonest_answers(train: Sequence[Pair], held_out: Sequence[Pair]) -> Score:
    """Score the guess of each attribute's commonest value in training.

    What tuning gains over this comes from pre-training, not from the rows.
    """
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in train:
        if (expected := pair.get("expects")) is not None:
            values[_attribute(pair)][expected] += 1
    asked = [pair for pair in held_out if pair.get("expects") is not None]
    guesses = [counter.most_common(1)[0][0] if (counter := values[_attribute(pair)]) else "" for pair in asked]
    return total_score(scores(asked, guesses))


def _attribute(pair: Pair) -> str:
    kind, _, attribute = pair["id"].split("/")
    return f"{kind}/{attribute}"


def main() -> None:
    """Measure before tuning and after it with each seed."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    results = [bench.measure(bench.load(), "before")]
    for seed in range(options.seeds):
        start = time.monotonic()
        tuned = bench.tune(seed)
        seconds = time.monotonic() - start
        results.append(bench.measure(tuned, f"seed {seed}", seconds))
    guessed = commonest_answers(bench.train, bench.held_out)
    print(f"LoRA by {backend()}; {len(bench.train)} rows; {options.epochs} epochs")
    print(f"guessing the commonest value: {guessed.right}/{guessed.total} right")
    _print_table(results)
    rows = [result._asdict() for result in results]
    found = {"guessed": guessed, "results": rows}
    print(json.dumps(found, ensure_ascii=False))


def _print_table(results: Sequence[Result]) -> None:
    print(f"{'':8} {'loss':>7} {'everyday':>9} {'right':>9} {'seconds':>8}  by kind")
    for result in results:
        kinds = " ".join(f"{kind} {score.right}/{score.total}" for kind, score in sorted(result.by_kind.items()))
        right = f"{result.score.right}/{result.score.total}"
        print(
            f"{result.label:8} {result.loss:7.3f} {result.everyday_loss:9.3f} {right:>9} {result.seconds:8.1f}  {kinds}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what make wrote with --out")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--show", type=int, default=0, help="answers to print")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
