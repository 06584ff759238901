"""Make tiny-ko: `python -m tiny_ko.make --out DIR [--device cuda]`."""

import argparse
import dataclasses
import json
import platform
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from tiny_ko.answers import PROMPT, Score, count_right
from tiny_ko.blocks import Documents, encode
from tiny_ko.card import Figures, model_card
from tiny_ko.corpus import pretraining_documents
from tiny_ko.facts import DATA_DIR, load_domains
from tiny_ko.instructions import Pair, Split, instruction_pairs, write_pairs
from tiny_ko.pretrain import Outcome, Plan, new_model, pretrain, save_model
from tiny_ko.probe import count_known
from tiny_ko.tokenizer import save_tokenizer, train_tokenizer

GPU_TOKENS: Final = 60_000_000
CPU_TOKENS: Final = 1_000_000
GPU_BATCH: Final = 128
CPU_BATCH: Final = 8

# More passes than this add variety that the templates no longer have.
_MOST_PASSES: Final = 64
# A low guess of how many tokens a character makes: it errs towards more passes.
_TOKENS_PER_CHARACTER: Final = 0.4
# The merges settle long before every pass has been read.
_TOKENIZER_PASSES: Final = 4


class _Corpus(NamedTuple):
    """The encoded documents and the tokenizer that was trained on them."""

    tokenizer: Tokenizer
    documents: Documents
    texts: int

    @property
    def tokens(self) -> int:
        return sum(map(len, self.documents.training))


def main() -> None:
    """Run every step and write the model and the rows under `--out`."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    split = instruction_pairs(options.seed, options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    write_pairs(options.out / "train.jsonl", split.train)
    write_pairs(options.out / "held_out.jsonl", split.held_out)
    figures = _make_model(options, split, options.out / "model")
    print(json.dumps(dataclasses.asdict(figures), ensure_ascii=False, indent=2))


def _make_model(options: argparse.Namespace, split: Split, folder: Path) -> Figures:
    corpus = _corpus(options, split)
    plan = Plan(options.tokens, options.device, options.seed, options.batch)
    model = new_model(options.seed)
    outcome = pretrain(model, corpus.documents, plan)
    save_model(model, folder)
    save_tokenizer(corpus.tokenizer, folder)
    figures = _figures(options, split, corpus, outcome)
    (folder / "README.md").write_text(model_card(figures), encoding="utf-8")
    return figures


def _corpus(options: argparse.Namespace, split: Split) -> _Corpus:
    one_pass = pretraining_documents(options.seed, 1, options.data)
    per_pass = sum(map(len, one_pass)) * _TOKENS_PER_CHARACTER
    passes = min(_MOST_PASSES, 1 + int(options.tokens / per_pass))
    texts = pretraining_documents(options.seed, passes, options.data)
    sample = texts[: _TOKENIZER_PASSES * len(one_pass)]
    tokenizer = train_tokenizer([*sample, *map(_instruction, split.train)])
    corpus = _Corpus(tokenizer, encode(tokenizer, texts, options.seed), len(texts))
    print(f"{len(texts):,} documents of {passes} passes, {corpus.tokens:,} tokens before repetition")
    return corpus


def _instruction(pair: Pair) -> str:
    return f"{PROMPT.format(question=pair['question'])} {pair['answer']}"


def _ask(options: argparse.Namespace, split: Split) -> tuple[Score, Score]:
    """Ask the saved model, so that what is measured is what is shipped.

    Returns its scores in the instruction format and in the casual form.
    """
    folder = options.out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(options.device)
    before = count_right(model, tokenizer, split.held_out, options.device)
    return before, count_known(model, tokenizer, split.held_out, options.device, options.data)


def _figures(options: argparse.Namespace, split: Split, corpus: _Corpus, outcome: Outcome) -> Figures:
    domains = load_domains(options.data)
    before_tuning, casually_known = _ask(options, split)
    return Figures(
        outcome=outcome,
        device=_device_name(options.device),
        seed=options.seed,
        documents=corpus.texts,
        distinct_tokens=corpus.tokens,
        vocabulary=corpus.tokenizer.get_vocab_size(),
        entities=sum(len(domain.rows) for domain in domains),
        facts=sum(len(domain.rows) * len(domain.attributes) for domain in domains),
        train_rows=len(split.train),
        held_out_rows=len(split.held_out),
        before_tuning=before_tuning,
        casually_known=casually_known,
    )


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA_DIR)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--tokens", type=int, help="how many tokens to train on")
    parser.add_argument("--batch", type=int, help="blocks of 256 tokens a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    options = parser.parse_args()
    on_gpu = options.device.startswith("cuda")
    options.tokens = options.tokens or (GPU_TOKENS if on_gpu else CPU_TOKENS)
    options.batch = options.batch or (GPU_BATCH if on_gpu else CPU_BATCH)
    return options


if __name__ == "__main__":
    main()
