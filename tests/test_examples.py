"""From documents to tokens: what is learnt, what is cut, what is left out, and what is held out."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError, ModelError
from jinmaek.training.conversations import Document, Segment, pair_document
from jinmaek.training.examples import load_data, tokenise

UNHURRIED = settings(deadline=None)  # other programs share the CPU
END, START = "<|endoftext|>", "<s>"
PAIRS = [("하늘은 무슨 색인가요?", "파란색입니다."), ("바다는 어떤가요?", "넓고 깊습니다."), ("밤은?", "어둡습니다.")]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(*, merges=0, frame="$A", end=END, **names):
    """A byte-level tokenizer, one token a byte unless ``merges`` are learnt; ``frame`` is put around every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=258 + merges,
        special_tokens=[END, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [pair_document("0", "koalpaca", question, "", answer).text for question, answer in PAIRS] * 3
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=[(END, 0), (START, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, **names)


BYTES = make_tokenizer(pad_token=END)
MERGED = make_tokenizer(merges=200)
STARTING = make_tokenizer(merges=200, frame=f"{START} $A", bos_token=START)
ENDING = make_tokenizer(merges=200, frame=f"$A {END}")
TOKENIZERS = pytest.mark.parametrize(
    "tokenizer", [BYTES, MERGED, STARTING, ENDING], ids=["bytes", "merged", "starting", "ending"]
)


def pair(answer="네.", question="뭐?", template="koalpaca", name="0"):
    return pair_document(name, template, question, "", answer)


def only(documents, tokenizer, max_length=10_000, *, learn_all=False):
    (example,), counts = tokenise(documents, tokenizer, max_length, learn_all=learn_all)
    return example, counts


def learnt_text(example, tokenizer):
    return tokenizer.decode(example.input_ids[example.learn])


@TOKENIZERS
@pytest.mark.parametrize(("question", "answer"), PAIRS)
def test_the_answer_and_the_end_are_learnt_and_nothing_else(tokenizer, question, answer):
    example, _ = only([pair(answer, question)], tokenizer)
    assert learnt_text(example, tokenizer) == f" {answer}{END}"
    given_text = tokenizer.decode(example.input_ids[~example.learn]).removeprefix(START)
    assert given_text == f"### 질문: {question}\n\n### 답변:"
    assert np.flatnonzero(example.input_ids == tokenizer.eos_token_id).tolist() == [example.num_tokens - 1]
    assert example.num_loss_tokens == example.learn.sum()


@UNHURRIED
@given(st.text(max_size=20), st.text(min_size=1, max_size=20).filter(str.strip))
def test_whatever_is_asked_and_said_the_answer_is_learnt_to_the_byte(question, answer):
    example, _ = only([pair(answer, question)], MERGED)
    assert learnt_text(example, MERGED) == f" {answer}{END}"
    assert MERGED.decode(example.input_ids) == pair(answer, question).text + END


def test_the_merged_tokenizer_joins_the_space_with_the_word_behind_it():
    """Or the tests above would not show that the space must belong to the answer."""
    assert any(MERGED.decode([number]) == " 파란색입니다" for number in only([pair(PAIRS[0][1])], MERGED)[0].input_ids)


def test_the_end_is_learnt_where_padding_is_the_same_token():
    assert BYTES.pad_token_id == BYTES.eos_token_id
    example, _ = only([pair()], BYTES)
    assert example.input_ids[-1] == BYTES.eos_token_id
    assert example.learn[-1]


def test_an_end_that_the_template_brings_is_learnt_and_not_doubled():
    example, _ = only([pair(template="{question}\n{answer}" + END)], BYTES)
    assert list(example.input_ids).count(BYTES.eos_token_id) == 1
    assert example.learn[-1]


def test_every_token_counts_when_all_is_learnt():
    example, _ = only([pair()], BYTES, learn_all=True)
    assert example.learn.all()
    assert example.num_loss_tokens == example.num_tokens - 1  # nothing predicts the first


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_text_that_is_cut_gets_no_end_and_what_it_lost_is_counted(cut):
    whole, _ = only([pair("네, 그렇습니다.")], BYTES)
    short, counts = only([pair("네, 그렇습니다.")], BYTES, whole.num_tokens - cut)
    assert np.array_equal(short.input_ids, whole.input_ids[:-cut])
    assert np.array_equal(short.learn, whole.learn[:-cut])
    assert BYTES.eos_token_id not in short.input_ids
    assert counts == {"num_truncated": 1, "num_truncated_tokens": cut, "num_without_answer": 0}


def test_a_text_that_fits_to_the_token_is_not_cut():
    whole, _ = only([pair()], BYTES)
    again, counts = only([pair()], BYTES, whole.num_tokens)
    assert np.array_equal(again.input_ids, whole.input_ids)
    assert set(counts.values()) == {0}


def test_a_document_whose_answer_is_cut_off_is_left_out_and_counted():
    prompt = len(BYTES("### 질문: 뭐?\n\n### 답변:")["input_ids"])
    examples, counts = tokenise([pair(name="0"), pair(name="1", question="")], BYTES, prompt, learn_all=False)
    assert [example.id for example in examples] == ["1"]
    assert (counts["num_without_answer"], counts["num_truncated"]) == (1, 2)


def test_learnt_segments_between_others_are_learnt_to_the_byte():
    parts = [("질문 ", False), ("답 하나", True), ("\n질문", False), (" 답 둘", True), ("\n", False)]
    document = Document("0", tuple(Segment(text, learn) for text, learn in parts), complete=True)
    example, _ = only([document], BYTES)
    assert learnt_text(example, BYTES) == "답 하나 답 둘"
    assert BYTES.decode(example.input_ids) == document.text  # a complete text gets no end of ours


@pytest.mark.parametrize("template", ["koalpaca", START + "{question}\n{answer}"])
def test_a_text_begins_with_one_opening_token_however_it_gets_it(template):
    example, _ = only([pair(template=template)], STARTING)
    assert example.input_ids[0] == STARTING.bos_token_id
    assert list(example.input_ids).count(STARTING.bos_token_id) == 1


def test_a_complete_text_keeps_the_opening_token_it_brings_and_gets_no_other():
    document = Document("0", (Segment(f"{START}물음", False), Segment("답", True)), complete=True)
    example, _ = only([document], STARTING)
    assert list(example.input_ids).count(STARTING.bos_token_id) == 1


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(ModelError, match="no end-of-text token"):
        tokenise([pair()], make_tokenizer(end=None), 100, learn_all=False)


@pytest.fixture
def load(tmp_path):
    """The data set of some rows."""

    def loaded(rows, tokenizer=BYTES, seed=0, **settings):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return load_data(DataSection(source=str(path), **{"held_out": 0.0} | settings), tokenizer, seed)

    return loaded


def rows(*answers, question="뭐?"):
    return [{"question": question, "answer": answer} for answer in answers]


def test_every_example_keeps_the_number_of_its_row(load):
    """Also behind rows that are left out."""
    long = {"question": "길다" * 40, "answer": "네."}
    data = load([long, *rows("하나"), long, *rows("둘")], max_length=64)
    assert [example.id for example in data.train] == ["1", "3"]


def test_the_report_tells_what_became_of_the_rows(load):
    long = {"question": "길다" * 40, "answer": "네."}
    data = load([*rows("하나", "둘", "셋" * 20), long], max_length=64)
    report = data.report
    assert (report.num_examples, report.num_held_out, report.loss) == (3, 0, "answer")
    assert (report.num_truncated, report.num_without_answer, report.num_composed) == (2, 1, 0)
    whole = [pair("셋" * 20), pair_document("3", "koalpaca", long["question"], "", "네.")]
    assert report.num_truncated_tokens == sum(len(document.text.encode()) + 1 - 64 for document in whole)
    assert report.num_tokens == sum(len(example.input_ids) for example in data.train)
    assert report.num_loss_tokens == sum(int(example.learn.sum()) for example in data.train)


def test_rows_with_nothing_left_to_learn_are_an_error(load):
    with pytest.raises(DataError) as caught:
        load(rows("하나", "둘", question="길다" * 40), max_length=64)
    assert str(caught.value).startswith("None of the 2 rows has a token to learn within data.max_length = 64:")
    assert caught.value.render("ko").startswith("행 2개 가운데 data.max_length = 64 안에")


@pytest.mark.parametrize("template", ["koalpaca", "<q>{question}</q><a>{answer}</a>"])
def test_a_row_with_an_empty_answer_is_left_out(load, template):
    """It would teach the model to say nothing."""
    data = load(rows("하나", "", "  \n", "둘"), template=template)
    assert [example.id for example in data.train] == ["0", "3"]
    assert data.report.num_without_answer == 2


def test_decomposed_hangul_is_composed_and_counted(load):
    composed = load(rows("고양이", "강아지"))
    decomposed = load(rows("고양이", unicodedata.normalize("NFD", "강아지")))
    assert (composed.report.num_composed, decomposed.report.num_composed) == (0, 1)
    for before, after in zip(composed.train, decomposed.train, strict=True):
        assert np.array_equal(before.input_ids, after.input_ids)
        assert np.array_equal(before.learn, after.learn)


def test_a_hanja_with_two_code_points_is_no_decomposed_hangul(load):
    """KS X 1001 gives some characters a second code point; NFC changes them, but nothing was decomposed."""
    assert load(rows("\uf9e1 씨")).report.num_composed == 0


def test_half_a_character_is_told_with_its_row(load):
    """JSON can name half of an emoji; no tokenizer takes it."""
    with pytest.raises(DataError, match="^Row 1 "):
        load(rows("네.", "네 \ud83d"))


def test_loss_on_all_learns_the_questions_too(load):
    data = load(rows("하나"), loss="all")
    assert data.report.loss == "all"
    assert data.train[0].learn.all()


def test_plain_text_is_learnt_whole(load):
    data = load([{"text": "옛날 옛적에"}])
    assert data.report.loss == "all"
    assert BYTES.decode(data.train[0].input_ids) == f"옛날 옛적에{END}"
    assert data.train[0].learn.all()


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"loss": "answer"}, "data.text_has_no_answer"), ({"template": "koalpaca"}, "data.template_ignored")],
)
def test_plain_text_refuses_settings_that_it_would_ignore(load, settings, key):
    with pytest.raises(DataError) as caught:
        load([{"text": "옛날"}], **settings)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert "column text" in str(caught.value)


def test_plain_text_that_is_none_is_told_with_its_row(load):
    with pytest.raises(DataError, match=r"^Row 1 \(counting from 0\): column text holds no text but None\.$"):
        load([{"text": "옛날"}, {"text": None}])


CHATTING = make_tokenizer(merges=200, frame=f"{START} $A", bos_token=START, chat_template=CHATML)


@pytest.mark.parametrize("system", [None, "친절히."])
def test_a_chat_template_is_tokenised_as_it_stands(load, system):
    data = load(rows("하나"), CHATTING, template="chat", **({"system": system} if system else {}))
    example = data.train[0]
    opening = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    text = f"{opening}<|im_start|>user\n뭐?<|im_end|>\n<|im_start|>assistant\n하나<|im_end|>\n"
    assert CHATTING.decode(example.input_ids) == text
    assert learnt_text(example, CHATTING) == "하나<|im_end|>"


def test_a_system_message_of_the_data_is_kept(load):
    talk = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    data = load([{"messages": talk}], CHATTING, template="chat", system="다른 것")
    assert CHATTING.decode(data.train[0].input_ids).count("<|im_start|>system\n") == 1


def test_an_empty_conversation_is_told_with_its_row(load):
    with pytest.raises(DataError, match="^Row 0 "):
        load([{"messages": []}], CHATTING, template="chat", system="친절히.")


def test_conversations_need_the_chat_template(load):
    with pytest.raises(DataError, match='Column messages holds conversations: set data.template = "chat"'):
        load([{"messages": []}], CHATTING)


def test_a_tokenizer_without_a_chat_template_is_told(load):
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        load(rows("하나"), template="chat")
