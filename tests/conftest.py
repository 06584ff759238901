"""Small real models for the tests: a random two-layer GPT-NeoX with its own byte-level tokenizer."""

import json
import os
import random

# Before torch is imported anywhere: the tests share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The fused kernels run in Triton's interpreter; TRITON_INTERPRET=0 lets tests/test_kernels_gpu.py run on a GPU.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

WORDS = [
    "하늘",
    "바다",
    "나무",
    "사람",
    "아침",
    "저녁",
    "학교",
    "시장",
    "노래",
    "그림",
    "책상",
    "겨울",
    "여름",
    "강아지",
    "고양이",
    "김치",
    "밥상",
    "친구",
    "동생",
    "할머니",
]
VERBS = ["좋아합니다", "보았습니다", "먹었습니다", "갔습니다", "만들었습니다", "기다립니다", "찾았습니다", "배웁니다"]


def make_pairs(count, seed=0):
    """Question and answer pairs of varied length, a function of ``seed``."""
    rng = random.Random(seed)
    pairs = []
    for number in range(count):
        first, second = rng.sample(WORDS, 2)
        asked = f"{first}와 {second} 이야기를 {rng.choice(['해 주세요', '들려주세요'])}. {number}번"
        said = " ".join(f"{rng.choice(WORDS)}을 {rng.choice(VERBS)}." for _ in range(rng.randint(1, 6)))
        pairs.append({"question": asked, "answer": said})
    return pairs


def write_jsonl(path, rows):
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory):
    """A byte-level BPE trained on the tests' own words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|unk|>", "<|pad|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"### 질문: {pair['question']}\n\n### 답변: {pair['answer']}" for pair in make_pairs(200)]
    tokenizer.train_from_iterator(texts, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>", unk_token="<|unk|>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_dir(tokenizer_dir, tmp_path_factory):
    """A random GPT-NeoX of two layers, 64 wide, as a folder that transformers loads."""
    import shutil

    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=512,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_dir / name, folder)
    return folder


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """Sixty question and answer pairs."""
    return write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", make_pairs(60))


@pytest.fixture
def make_recipe(model_dir, pairs_file):
    """A recipe on the small model: fp32, unquantised, twelve steps; ``section={key: value}`` changes it."""
    from jinmaek.config import recipe_from_dict

    def make(**sections):
        values = {
            "name": "test",
            "model": {"name": str(model_dir), "quantization": "none", "activation_checkpointing": False},
            "adapter": {"rank": 4},
            "data": {"source": str(pairs_file), "held_out": 0.1},
            "train": {"precision": "fp32", "max_steps": 12, "batch_size": 4, "checkpoint_every": 5},
            "optim": {"lr": 1e-3},
        }
        for section, table in sections.items():
            merged = values.get(section, {}) | table
            values[section] = {key: value for key, value in merged.items() if value is not None}
        return recipe_from_dict(values)

    return make


@pytest.fixture
def make_session(make_recipe):
    """A session ready to step, of :func:`make_recipe`'s recipe; dropout-free and in training mode."""
    from jinmaek.training.session import load_session_data
    from jinmaek.training.session import make_session as build

    def make(**sections):
        recipe = make_recipe(**sections)
        session = build(recipe, load_session_data(recipe))
        session.training.model.train()
        return session

    return make
