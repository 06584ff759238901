"""From rows to texts: which columns hold what, and the templates for questions and answers."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError
from jinmaek.training.conversations import (
    Columns,
    find_columns,
    pair_document,
    pair_texts,
    prompt_segments,
    row_messages,
)

UNHURRIED = settings(deadline=None)  # other programs share the CPU
TALK = [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": "안녕!"}]


def section(**changes):
    return DataSection(source="rows.jsonl", **changes)


def told(function, *args, key):
    """The English text of the DataError that ``function`` raises; it speaks Korean too."""
    with pytest.raises(DataError) as caught:
        function(*args)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert re.search("[가-힣]", caught.value.render("ko"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["instruction", "output"], Columns("pairs", question="instruction", answer="output")),
        (
            ["output", "input", "instruction", "url"],
            Columns("pairs", question="instruction", answer="output", context="input"),
        ),
        (["question", "answer"], Columns("pairs", question="question", answer="answer")),
        (["question", "context", "answer"], Columns("pairs", question="question", answer="answer", context="context")),
        (["Q", "A", "label"], Columns("pairs", question="Q", answer="A")),
        (
            ["Instruction", "Output", "INPUT"],
            Columns("pairs", question="Instruction", answer="Output", context="INPUT"),
        ),
        (["prompt", "completion"], Columns("pairs", question="prompt", answer="completion")),
        (["prompt", "response", "id"], Columns("pairs", question="prompt", answer="response")),
        (["messages"], Columns("messages", messages="messages")),
        (["id", "conversations"], Columns("messages", messages="conversations")),
        (["text"], Columns("text", text="text")),
        (["prompt", "messages", "answer"], Columns("messages", messages="messages")),
        (["text", "question", "answer"], Columns("pairs", question="question", answer="answer")),
        (["input", "output", "text"], Columns("text", text="text")),
    ],
)
def test_columns_are_found_by_their_names(names, columns):
    assert find_columns(dict.fromkeys(names, ""), section()) == columns


@pytest.mark.parametrize(
    ("names", "changes", "columns"),
    [
        (
            ["ask", "say"],
            {"question_column": "ask", "answer_column": "say"},
            Columns("pairs", question="ask", answer="say"),
        ),
        (
            ["ask", "say", "more"],
            {"question_column": "ask", "answer_column": "say", "context_column": "more"},
            Columns("pairs", question="ask", answer="say", context="more"),
        ),
        (
            ["instruction", "input", "output", "better"],
            {"answer_column": "better"},
            Columns("pairs", question="instruction", answer="better", context="input"),
        ),
        (["body"], {"text_column": "body"}, Columns("text", text="body")),
        (["talk"], {"messages_column": "talk"}, Columns("messages", messages="talk")),
        (["text", "question", "answer"], {"format": "text"}, Columns("text", text="text")),
        (["messages", "q", "a"], {"format": "pairs"}, Columns("pairs", question="q", answer="a")),
    ],
)
def test_columns_that_are_named_are_taken(names, changes, columns):
    assert find_columns(dict.fromkeys(names, ""), section(**changes)) == columns


@pytest.mark.parametrize(
    ("names", "changes", "columns"),
    [
        (["question", "answer", "body"], {"text_column": "body"}, Columns("text", text="body")),
        (
            ["messages", "ask", "say"],
            {"question_column": "ask", "answer_column": "say"},
            Columns("pairs", question="ask", answer="say"),
        ),
    ],
)
def test_a_column_that_is_named_is_not_passed_over_for_one_that_is_guessed(names, changes, columns):
    assert find_columns(dict.fromkeys(names, ""), section(**changes)) == columns


@pytest.mark.parametrize("key", ["question", "answer", "context", "text", "messages"])
def test_a_named_column_that_is_missing_is_told_with_those_that_are_there(key):
    row = {"question": "", "answer": ""}
    text = told(find_columns, row, section(**{f"{key}_column": "nope"}), key="data.no_column")
    assert text == f"data.{key}_column = nope: no such column. The data has: question, answer."


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (["title", "body"], {}),
        (["title", "question"], {"question_column": "question"}),
        (["question", "answer"], {"format": "text"}),
        (["text"], {"format": "pairs"}),
        (["text"], {"format": "messages"}),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(names, changes):
    text = told(find_columns, dict.fromkeys(names, ""), section(**changes), key="data.columns_unknown")
    assert f"(data.format = {changes.get('format', 'auto')})" in text
    assert f"The data has: {', '.join(names)}." in text


def test_the_koalpaca_template_without_context():
    document = pair_document("7", "koalpaca", "양파는 어떤 식물인가요?", "", "백합과에 속합니다.")
    assert document.id == "7"
    assert document.text == "### 질문: 양파는 어떤 식물인가요?\n\n### 답변: 백합과에 속합니다."
    assert not document.complete


def test_the_koalpaca_template_with_context():
    document = pair_document("7", "koalpaca", "뭐예요?", "양파에 관하여", "식물입니다.")
    assert document.text == "### 질문: 뭐예요?\n\n### 맥락: 양파에 관하여\n\n### 답변: 식물입니다."


def test_the_space_before_the_answer_belongs_to_the_answer():
    prompt, answer = pair_document("0", "koalpaca", "뭐?", "", "네.").segments
    assert (prompt.text, prompt.learn) == ("### 질문: 뭐?\n\n### 답변:", False)
    assert (answer.text, answer.learn) == (" 네.", True)


def test_a_line_break_before_the_answer_belongs_to_the_prompt():
    prompt, answer = pair_document("0", "{question}\n{answer}", "뭐?", "", "네.").segments
    assert (prompt.text, answer.text) == ("뭐?\n", "네.")


def test_text_behind_the_answer_is_learnt_with_it():
    document = pair_document("0", "<q>{question} ({context})</q><a>{answer}</a>", "뭐?", "곁", "네.")
    assert [(part.text, part.learn) for part in document.segments] == [("<q>뭐? (곁)</q><a>", False), ("네.</a>", True)]


TEXTS = st.text(max_size=20)
TEMPLATES = ["koalpaca", "{question} {answer}", "{question}{answer}", "Q: {question}  C: {context}   {answer}\n###"]


@UNHURRIED
@given(st.sampled_from(TEMPLATES), TEXTS, TEXTS, TEXTS)
def test_the_prompt_that_is_asked_is_always_a_prefix_of_the_text_that_is_learnt(template, question, context, answer):
    document = pair_document("0", template, question, context, answer)
    prompt, gap, after = prompt_segments(template, question, context)
    assert document.text == prompt + gap + answer + after
    assert document.segments[0].text == prompt
    assert not prompt.endswith(" ")
    assert gap.strip(" ") == ""


@UNHURRIED
@given(st.sampled_from(TEMPLATES), TEXTS | st.sampled_from(["{answer}", "a {question} b", "{", "%s{0}"]), TEXTS)
def test_braces_in_a_question_or_an_answer_are_only_text(template, question, answer):
    text = pair_document("0", template, question, "", answer + "{answer}{question}").text
    assert question in text
    assert answer + "{answer}{question}" in text


def test_a_question_that_names_a_placeholder_is_not_filled():
    assert prompt_segments("koalpaca", "파이썬에서 {context} 는?", "맥락")[0].startswith(
        "### 질문: 파이썬에서 {context} 는?"
    )


COLUMNS = Columns("pairs", question="question", answer="answer", context="context")


def test_a_pair_becomes_a_conversation_with_the_context_under_the_question():
    row = {"question": "뭐?", "answer": "네.", "context": "곁"}
    assert row_messages(row, COLUMNS, 0) == [
        {"role": "user", "content": "뭐?\n\n곁"},
        {"role": "assistant", "content": "네."},
    ]


@pytest.mark.parametrize("context", ["", None])
def test_an_empty_context_leaves_no_trace(context):
    row = {"question": "뭐?", "answer": "네.", "context": context}
    assert pair_texts(row, COLUMNS, 0) == ("뭐?", "", "네.")
    assert row_messages(row, COLUMNS, 0)[0]["content"] == "뭐?"


@pytest.mark.parametrize(
    ("row", "column", "shown"),
    [
        ({"question": None, "answer": "네."}, "question", "None"),
        ({"question": "뭐?", "answer": 3.5}, "answer", "3.5"),
        ({"question": "뭐?"}, "answer", "None"),
    ],
)
def test_a_question_or_answer_that_is_no_text_is_told_with_its_row(row, column, shown):
    text = told(pair_texts, row, COLUMNS, 12, key="data.not_text")
    assert text == f"Row 12 (counting from 0): column {column} holds no text but {shown}."


MESSAGES = Columns("messages", messages="messages")


def test_messages_are_taken_as_they_are():
    tagged = [message | {"id": 3} for message in TALK]
    assert row_messages({"messages": tagged}, MESSAGES, 0) == TALK


def test_sharegpt_conversations_are_understood():
    talk = [
        {"from": "system", "value": "친절히."},
        {"from": "human", "value": "안녕?"},
        {"from": "gpt", "value": "안녕!"},
        {"from": "user", "value": "또?"},
        {"from": "assistant", "value": "또."},
    ]
    roles = ["system", "user", "assistant", "user", "assistant"]
    read = row_messages({"conversations": talk}, Columns("messages", messages="conversations"), 0)
    assert [message["role"] for message in read] == roles
    assert [message["content"] for message in read] == [item["value"] for item in talk]


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "안녕",
        ["안녕"],
        [None],
        [{"role": "user"}],
        [{"from": "human"}],
        {"role": "user", "content": "x"},
        [{"role": "user", "content": "안녕?"}, {"role": "assistant", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "안녕?"}]}, {"role": "assistant", "content": "안녕!"}],
        [{"role": None, "content": "안녕?"}],
        [{"from": ["gpt"], "value": "안녕?"}],
    ],
)
def test_what_is_no_conversation_is_told_with_its_row(value):
    text = told(row_messages, {"messages": value}, MESSAGES, 4, key="data.bad_messages")
    assert text.startswith("Row 4 (counting from 0): no list of messages with role and content: ")


def test_a_row_that_lacks_its_conversation_is_told():
    text = told(row_messages, {"id": 1}, MESSAGES, 4, key="data.bad_messages")
    assert text.startswith("Row 4 ")
