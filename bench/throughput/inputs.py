"""What all peers train on: random checkpoints of the compared shapes, and the same rows in two forms.

    python -m bench.throughput.inputs FOLDER [--rows ROWS.jsonl] [--tokenizer TOKENIZER.json] SHAPE...

Random weights give honest speed and memory, not quality. What is there already is left alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from bench.throughput.shapes import DTYPE, SHAPES, Fill, Shape, Weights
from founding_inputs import make_data

WRITERS = 4  # a disk takes more than one thread gives it
TEXTS, PAIRS = "texts.jsonl", "pairs.jsonl"


def missing(folder: Path, names: list[str]) -> list[str]:
    """What is not whole there yet: shapes, and the rows; a model's last file is its tokenizer's settings."""
    models = [name for name in names if not (folder / name / "tokenizer_config.json").exists()]
    return models + [name for name in (TEXTS, PAIRS) if not (folder / name).exists()]


def make_model(path: Path, shape: Shape, tokenizer: str) -> None:
    """Write a checkpoint of this shape, a file for each layer, a few files at a time."""
    path.mkdir(parents=True, exist_ok=True)
    shards = list(shape.shards())
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(partial(_write_shard, path), range(len(shards)), shards))
    index = {weight: name for name, weights in shards for weight in weights}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shape.config().save_pretrained(path)
    shutil.copyfile(tokenizer, path / "tokenizer.json")
    tokens = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<|unk|>"}
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))


def _write_shard(path: Path, seed: int, shard: tuple[str, Weights]) -> None:
    from safetensors.torch import save_file

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, DTYPE)
    generator = torch.Generator(device).manual_seed(seed)

    def filled(fill: Fill, size: tuple[int, ...]) -> torch.Tensor:
        if fill == "normal":
            return (torch.randn(size, device=device, dtype=dtype, generator=generator) * 0.02).cpu()
        return torch.ones(size, dtype=dtype) if fill == "one" else torch.zeros(size, dtype=dtype)

    name, weights = shard
    save_file({key: filled(*given) for key, given in weights.items()}, path / name, metadata={"format": "pt"})


def make_rows(folder: Path, rows: str) -> None:
    """The text-only file as TRL and Unsloth read it, and its instruction and output as jinmaek does."""
    shutil.copyfile(rows, folder / TEXTS)
    make_data(rows, str(folder / PAIRS))


def main() -> None:
    """Make what is missing and say how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=" ".join(SHAPES))
    parser.add_argument("--rows")
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    lacks = missing(args.folder, args.shapes)
    if (TEXTS in lacks or PAIRS in lacks) and not args.rows:
        parser.error("no rows in this folder yet: --rows ROWS.jsonl")
    if any(name in SHAPES for name in lacks) and not args.tokenizer:
        parser.error("no model in this folder yet: --tokenizer TOKENIZER.json")
    if TEXTS in lacks or PAIRS in lacks:
        make_rows(args.folder, args.rows)
    for name in args.shapes:
        if name in lacks:
            started = time.perf_counter()
            make_model(args.folder / name, SHAPES[name], args.tokenizer)
            print(json.dumps({"made": name, "s": round(time.perf_counter() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
