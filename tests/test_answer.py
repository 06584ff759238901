"""A question is asked as its training examples were."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from jinmaek.config.recipe import DataSection
from jinmaek.training.answer import end_tokens, prompt_document
from jinmaek.training.conversations import pair_document
from jinmaek.training.examples import prompt_ids, tokenise

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer(tokenizer_dir):
    return AutoTokenizer.from_pretrained(tokenizer_dir)


@pytest.mark.parametrize("template", ["koalpaca", "질문 {question}\n답 {answer}", "<|sep|>{question} → {answer}"])
def test_the_prompt_is_the_beginning_of_the_training_example(tokenizer, template):
    section = DataSection(source="x.jsonl", template=template)
    document = pair_document("0", template, "하늘은 왜 파란가요?", "", "빛이 흩어져서 파랗습니다.")
    [example], _ = tokenise([document], tokenizer, 512, learn_all=False)
    ids = prompt_ids(tokenizer, prompt_document(tokenizer, section, "하늘은 왜 파란가요?"))
    first_learnt = int(np.flatnonzero(example.learn)[0])
    assert ids == example.input_ids[:first_learnt].tolist()


def test_a_tokenizer_that_ends_every_text_does_not_end_the_prompt(tokenizer):
    from tokenizers.processors import TemplateProcessing

    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    section = DataSection(source="x.jsonl")
    assert tokenizer("가")["input_ids"][-1] == tokenizer.eos_token_id
    assert prompt_ids(tokenizer, prompt_document(tokenizer, section, "가"))[-1] != tokenizer.eos_token_id


def test_a_chat_prompt_has_the_system_message_and_opens_the_answer(tokenizer):
    tokenizer.chat_template = CHATML
    section = DataSection(source="x.jsonl", template="chat", system="짧게 답하세요.")
    text = prompt_document(tokenizer, section, "가?").text
    assert (
        text == "<|im_start|>system\n짧게 답하세요.<|im_end|>\n<|im_start|>user\n가?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_tokenizers_end_of_text_ends_an_answer_whatever_the_config_says(make_session):
    """polyglot-ko's config names token 0; its texts end with token 2."""
    session = make_session()
    assert session.training.model.generation_config.eos_token_id == 0
    assert end_tokens(session.training.model, session.tokenizer) == [0, 2]
