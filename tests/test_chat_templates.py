"""Chat templates of the kinds in use: every answer with its end mark is learnt, and nothing else is."""

import re
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jinmaek.core.errors import DataError
from jinmaek.training.conversations import chat_document

UNHURRIED = settings(deadline=None)  # other programs share the CPU

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""

# As Qwen3's: the answer to the last question gets its thought, or an empty one; earlier thoughts are taken out.
QWEN3 = """\
{%- set ns = namespace(last=-1) -%}
{%- for message in messages -%}{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for message in messages -%}
{%- if message.role != 'assistant' -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- else -%}
{%- set said = message.content.split('</think>')[-1].lstrip('\n') -%}
{%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
{{ '<|im_start|>assistant\n' }}
{%- if loop.index0 > ns.last -%}
{{ '<think>\n' + (thought if '</think>' in message.content else '') + '\n</think>\n\n' }}
{%- endif -%}
{{ said + '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"""

LLAMA3 = """\
{{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"""

GEMMA = """\
{{- '<bos>' -}}
{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- set role = 'model' if message.role == 'assistant' else message.role -%}
{{ '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""

EXAONE = """\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}{{ '[|system|][|endofturn|]\n' }}{%- endif -%}
{{ '[|' + message.role + '|]' + message.content }}
{%- if message.role == 'user' -%}{{ '\n' }}{%- else -%}{{ '[|endofturn|]\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[|assistant|]' }}{%- endif -%}"""

# Template, end mark of a turn, what stands before the answer to the last question.
KINDS = {
    "chatml": (CHATML, "<|im_end|>", ""),
    "qwen3": (QWEN3, "<|im_end|>", "<think>\n\n</think>\n\n"),
    "llama3": (LLAMA3, "<|eot_id|>", ""),
    "gemma": (GEMMA, "<end_of_turn>", ""),
    "exaone": (EXAONE, "[|endofturn|]", ""),
}


def byte_tokenizer(chat_template):
    """A real tokenizer of one token a byte; only its chat template matters here."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", chat_template=chat_template)


RENDER = {
    kind: partial(byte_tokenizer(template).apply_chat_template, tokenize=False)
    for kind, (template, _, _) in KINDS.items()
}


def talk(*texts):
    """A conversation of questions and answers in turn."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def learnt(document):
    return [part.text for part in document.segments if part.learn]


def told(messages, render, number=3):
    with pytest.raises(DataError) as caught:
        chat_document("0", messages, render, number)
    assert re.search("[가-힣]", caught.value.render("ko"))
    return str(caught.value)


def test_the_templates_render_as_the_real_ones_do():
    first = talk("안녕?", "안녕!")
    assert RENDER["chatml"](first) == "<|im_start|>user\n안녕?<|im_end|>\n<|im_start|>assistant\n안녕!<|im_end|>\n"
    assert RENDER["qwen3"](first).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n안녕!<|im_end|>\n")
    assert RENDER["gemma"](first, add_generation_prompt=True).endswith("안녕!<end_of_turn>\n<start_of_turn>model\n")
    assert RENDER["exaone"](first) == "[|system|][|endofturn|]\n[|user|]안녕?\n[|assistant|]안녕![|endofturn|]\n"
    assert RENDER["llama3"](first[:1], add_generation_prompt=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n안녕?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_answer_is_learnt_with_its_end_mark(kind):
    _, end, thought = KINDS[kind]
    messages = talk("안녕?", "안녕!")
    document = chat_document("9", messages, RENDER[kind], 9)
    assert document.id == "9"
    assert document.complete
    assert document.text == RENDER[kind](messages)
    assert learnt(document) == [f"{thought}안녕!{end}"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_of_a_long_conversation_is_learnt_and_nothing_else(kind):
    _, end, thought = KINDS[kind]
    messages = talk("하나?", "하나.", "둘?", "둘,\n그리고 둘.", "셋?", "셋.")
    document = chat_document("0", messages, RENDER[kind], 0)
    assert document.text == RENDER[kind](messages)
    assert learnt(document) == [f"하나.{end}", f"둘,\n그리고 둘.{end}", f"{thought}셋.{end}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_that_ends_with_a_question_teaches_the_answers_before_it(kind):
    document = chat_document("0", talk("하나?", "하나.", "둘?"), RENDER[kind], 0)
    assert learnt(document) == [f"하나.{KINDS[kind][1]}"]
    assert document.text.count("둘?") == 1


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"gemma"}))
def test_a_system_message_is_not_learnt(kind):
    messages = [{"role": "system", "content": "친절히."}, *talk("안녕?", "안녕!")]
    document = chat_document("0", messages, RENDER[kind], 0)
    assert "친절히." in document.segments[0].text
    assert learnt(document) == [f"{KINDS[kind][2]}안녕!{KINDS[kind][1]}"]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_answers_and_questions_are_not_mixed_up(kind):
    _, end, thought = KINDS[kind]
    document = chat_document("0", talk("네", "네", "네", "네"), RENDER[kind], 0)
    assert learnt(document) == [f"네{end}", f"{thought}네{end}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["d", "n", " e\n", "turn", "|"])
def test_an_answer_that_also_stands_in_a_mark_of_the_template_is_learnt_whole(kind, answer):
    """Answers to multiple-choice questions are as short as that."""
    _, end, thought = KINDS[kind]
    first, second = learnt(chat_document("0", talk("가?", answer, "나?", answer), RENDER[kind], 0))
    assert first.removesuffix(end).strip() == second.removeprefix(thought).removesuffix(end).strip() == answer.strip()
    assert first.endswith(end)
    assert second.endswith(end)


SAID = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() and "<" not in text and "[" not in text)


@UNHURRIED
@given(st.sampled_from(sorted(KINDS)), st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3))
def test_whatever_is_said_the_answers_and_their_marks_are_learnt(kind, turns):
    _, end, thought = KINDS[kind]
    messages = talk(*(text for turn in turns for text in turn))
    document = chat_document("0", messages, RENDER[kind], 0)
    assert document.text == RENDER[kind](messages)
    answers = [part.removeprefix(thought).removesuffix(end).strip() for part in learnt(document)]
    assert answers == [answer.strip() for _, answer in turns]
    assert all(part.endswith(end) for part in learnt(document))
    given_text = "".join(part.text for part in document.segments if not part.learn)
    assert given_text.count(end) == document.text.count(end) - len(turns)


def test_a_conversation_without_an_answer_is_told():
    text = told(talk("안녕?"), RENDER["chatml"], 5)
    assert text == "Row 5 (counting from 0): the conversation has no assistant turn to learn."


def test_a_template_that_rewrites_answers_is_told():
    shouting = partial(byte_tokenizer(CHATML.replace("message.content", "message.content | upper")).apply_chat_template)
    text = told(talk("how?", "like this"), partial(shouting, tokenize=False))
    assert text.startswith("Row 3 (counting from 0), turn 2: the chat template rewrites the answer")


def test_a_thought_that_the_template_takes_out_of_an_earlier_answer_is_told():
    text = told(talk("하나?", "<think>음</think>\n\n하나.", "둘?", "둘."), RENDER["qwen3"])
    assert text.startswith("Row 3 (counting from 0), turn 2: ")


THOUGHTFUL = "<think>\n음\n</think>\n\n하나."


def test_a_thought_before_the_last_answer_is_learnt_with_it():
    document = chat_document("0", talk("하나?", THOUGHTFUL), RENDER["qwen3"], 0)
    assert learnt(document) == [f"{THOUGHTFUL}<|im_end|>"]


def test_an_answer_that_is_gone_is_not_looked_for_in_a_later_question():
    """The words of the user must never be learnt in place of an answer that the template has changed."""
    assert "turn 2" in told(talk("하나?", THOUGHTFUL, f"왜 {THOUGHTFUL} 라고 해?", "둘."), RENDER["qwen3"])


def test_an_empty_answer_teaches_nothing():
    document = chat_document("0", talk("하나?", "", "둘?", "둘."), RENDER["chatml"], 0)
    assert learnt(document) == ["둘.<|im_end|>"]


def test_a_template_that_changes_what_came_before_is_told():
    counting = byte_tokenizer(CHATML.replace("{%- for", "{{ messages | length }}{%- for", 1))
    text = told(talk("하나?", "하나."), partial(counting.apply_chat_template, tokenize=False))
    assert "rewrites the answer" in text


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        ("gemma", [{"role": "system", "content": "친절히."}, *talk("안녕?", "안녕!")]),
        ("gemma", [*talk("안녕?", "안녕!"), {"role": "assistant", "content": "또."}]),
        ("chatml", [{"role": "assistant", "content": "무엇을 도울까요?"}, *talk("안녕?", "안녕!")]),
        ("chatml", []),
    ],
    ids=["system", "two answers", "answer first", "nothing"],
)
def test_a_conversation_that_the_template_does_not_take_is_told_with_its_row(kind, messages):
    assert told(messages, RENDER[kind], 8).startswith("Row 8 (counting from 0)")
