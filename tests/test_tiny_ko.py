"""The embedded model's sources and what is shipped of them."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from tiny_ko.facts import DATA_DIR, load_domains
from tiny_ko.instructions import instruction_pairs
from tiny_ko.josa import attach

ASSETS = Path(str(files("jinmaek").joinpath("assets/tiny-ko")))


@pytest.mark.parametrize(
    ("word", "particle", "expected"),
    [
        ("사과", "은", "사과는"),
        ("수박", "은", "수박은"),
        ("서울", "으로", "서울로"),
        ("부산", "으로", "부산으로"),
        ("제주", "으로", "제주로"),
        ("바다", "이다", "바다다"),
        ("산", "이다", "산이다"),
        ("의사", "이에요", "의사예요"),
        ("학생", "이에요", "학생이에요"),
        ("곰", "과", "곰과"),
        ("새", "과", "새와"),
    ],
)
def test_particles_follow_the_final_consonant(word, particle, expected):
    assert attach(word, particle) == expected


def test_an_unknown_particle_is_an_error():
    with pytest.raises(Exception, match="랑"):
        attach("곰", "랑")


def test_there_are_many_facts_in_several_domains():
    domains = load_domains(DATA_DIR)
    assert len(domains) == 7
    assert sum(len(domain.rows) for domain in domains) > 1000


def shipped(name):
    return [json.loads(line) for line in (ASSETS / name).read_text("utf-8").splitlines()]


def test_the_shipped_pairs_are_those_of_the_sources():
    made = instruction_pairs(0)
    assert [dict(pair) for pair in made.train] == shipped("train.jsonl")
    assert [dict(pair) for pair in made.held_out] == shipped("held_out.jsonl")


def test_what_is_held_out_is_not_trained_on():
    train, held_out = shipped("train.jsonl"), shipped("held_out.jsonl")
    assert len(train) >= 600
    assert len({pair["kind"] for pair in train}) > 7
    assert not {pair["id"] for pair in train} & {pair["id"] for pair in held_out}
    assert not {pair["question"] for pair in train} & {pair["question"] for pair in held_out}


def test_all_that_is_shipped_is_under_12_mb():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 12e6


def test_the_shipped_model_is_a_half_rotary_gpt_neox_with_its_own_tokenizer():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(ASSETS / "model")
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "model")
    assert model.config.model_type == "gpt_neox"
    assert model.config.rope_parameters["partial_rotary_factor"] == 0.5
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1)
    for text in ("### 질문: 똠양꿍은 매운가요?\n\n### 답변:", "뷁 🙂 café"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
