"""Rows from files and from the hub: what is read, and what is said about files that cannot be."""

import json
import re
import subprocess
import sys
from textwrap import dedent

import pytest

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError
from jinmaek.training.sources import builtin_path, read_rows

ROWS = [{"question": "하늘은?", "answer": "파랗다."}, {"question": "바다는?", "answer": "깊다,\n그리고 넓다."}]


def read(path, **settings):
    return list(map(dict, read_rows(str(path), DataSection(source=str(path), **settings))))


@pytest.fixture
def write(tmp_path):
    def written(name, content, encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return written


def assert_told(path, *, key, english):
    """The error of a source that cannot be read: its key, the whole of its English text, and Korean beside it."""
    with pytest.raises(DataError) as caught:
        read(path)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert re.fullmatch(english.replace("PATH", re.escape(str(path))), str(caught.value), re.DOTALL)
    assert re.search("[가-힣]", caught.value.render("ko"))
    assert str(path) in caught.value.render("ko")


def json_lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("array.json", json.dumps(ROWS, ensure_ascii=False, indent=2)),
        ("escaped.json", "\n " + json.dumps(ROWS)),
        ("lines.json", json_lines(ROWS)),
        ("lines.jsonl", json_lines(ROWS)),
        ("LINES.JSONL", json_lines(ROWS)),
        ("gaps.jsonl", json_lines(ROWS).replace("\n", "\n\n  \n").rstrip()),
        ("crlf.jsonl", json_lines(ROWS).replace("\n", "\r\n")),
        ("commas.csv", 'question,answer\n하늘은?,파랗다.\n바다는?,"깊다,\n그리고 넓다."\n'),
        ("tabs.tsv", 'question\tanswer\n하늘은?\t파랗다.\n바다는?\t"깊다,\n그리고 넓다."\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_come_back_as_they_were_with_or_without_a_byte_order_mark(write, name, text, encoding):
    assert read(write(name, text, encoding)) == ROWS


def test_rows_of_a_parquet_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read(path) == ROWS


def test_an_excel_file_with_carriage_returns_keeps_its_rows(write):
    assert read(write("excel.csv", "question,answer\r\na,b\r\nc,d\r\n")) == [
        {"question": "a", "answer": "b"},
        {"question": "c", "answer": "d"},
    ]


def test_a_quoted_quote_and_an_empty_cell_stay_what_they_are(write):
    assert read(write("q.csv", 'question,answer\n"그는 ""네"" 했다",\n')) == [
        {"question": '그는 "네" 했다', "answer": ""}
    ]


def test_a_cell_may_be_as_long_as_a_book(write):
    assert len(read(write("book.csv", f"text\n{'글' * 200_000}\n"))[0]["text"]) == 200_000


def test_only_the_first_rows_are_read(write):
    """What comes after the limit is not even looked at."""
    path = write("rows.jsonl", json_lines(ROWS) + "not json\n")
    assert read(path, limit=2) == ROWS
    assert read(path, limit=1) == ROWS[:1]


def test_a_missing_file_is_told_with_the_place_that_was_looked_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_told(
        "rows.jsonl",
        key="data.file_missing",
        english=rf"No file PATH \(looked at {re.escape(str(tmp_path))}/rows\.jsonl\)\. Check data\.source\.",
    )


def test_a_folder_is_no_file(tmp_path):
    assert_told(tmp_path, key="data.file_missing", english="No file PATH .*")


def test_an_unknown_ending_is_told_with_the_known_ones(write):
    assert_told(
        write("rows.xlsx", "PK"),
        key="data.unknown_kind",
        english=r"PATH: this kind of file is not read\. Known endings: \.csv, \.json, \.jsonl, \.parquet, \.tsv\.",
    )


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_broken_line_is_told_with_its_number_and_text(write, name):
    assert_told(
        write(name, json_lines(ROWS) + '\n{"question": "끊긴\n'),
        key="data.broken_line",
        english=r'PATH, line 4: no valid JSON \([A-Z][^()]+\)\. \{"question": "끊긴',
    )


def test_a_long_broken_line_is_shortened(write):
    assert_told(write("rows.jsonl", "x" * 5000), key="data.broken_line", english=r"PATH, line 1: .{1,60} x{80}")


def test_a_broken_array_is_told_with_its_line(write):
    assert_told(
        write("rows.json", '[\n  {"question": "가"},\n  {"question": }\n]'),
        key="data.broken_line",
        english=r"PATH, line 3: no valid JSON \(Expecting value\)\. ",
    )


@pytest.mark.parametrize(("value", "shown"), [('["가"]', r"\['가'\]"), ("3", "3"), ('"글"', "'글'"), ("null", "None")])
def test_a_line_that_is_no_object_is_told(write, value, shown):
    assert_told(
        write("rows.jsonl", json_lines(ROWS) + value + "\n"),
        key="data.not_object_line",
        english=rf'PATH, line 3: expected an object like \{{"question": …\}}, found {shown}\.',
    )


def test_an_item_that_is_no_object_is_told(write):
    assert_told(
        write("rows.json", '[{"question": "가"}, "나"]'),
        key="data.not_object_item",
        english=r"PATH, item 2 of the array: expected an object like .*, found '나'\.",
    )


@pytest.mark.parametrize("row", ["나", "나,다,라"], ids=["short", "long"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_ragged_row_is_told_with_its_line(write, row, ending):
    text = f'question,answer\n"두\n줄",가\n{row}\n'.replace(",", "," if ending == "csv" else "\t")
    assert_told(
        write(f"rows.{ending}", text),
        key="data.ragged_row",
        english=r"PATH, line 4: more or fewer fields than the 2 columns of the header\.",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", json.dumps(ROWS, ensure_ascii=False)),
        ("rows.jsonl", json_lines(ROWS)),
        ("rows.csv", "question,answer\n하늘은?,파랗다.\n"),
        ("rows.tsv", "question\tanswer\n하늘은?\t파랗다.\n"),
    ],
)
def test_a_cp949_file_is_told_how_to_be_converted(write, name, text):
    assert_told(
        write(name, text, "cp949"),
        key="data.not_utf8",
        english=r"PATH is not UTF-8 \(.*\)\. Save it as UTF-8, for example: iconv -f cp949 -t utf-8\.",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", ""), ("rows.json", "[]"), ("rows.jsonl", "\n\n"), ("rows.csv", ""),
        ("rows.csv", "question,answer\n"), ("rows.tsv", "question\tanswer\n"), ("bom.jsonl", "\ufeff"),
    ],
)  # fmt: skip
def test_a_file_without_rows_is_told(write, name, text):
    assert_told(write(name, text), key="data.empty", english=r"PATH holds no examples\.")


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"{}"])
def test_a_broken_parquet_file_is_told(write, content):
    assert_told(write("rows.parquet", content), key="data.unreadable", english=r"PATH cannot be read: .+")


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    """A name in a loop of links is a file to nobody."""
    loop = tmp_path / "rows.jsonl"
    loop.symlink_to(loop)
    assert_told(loop, key="data.file_missing", english="No file PATH .*")


def test_what_is_not_shipped_is_told():
    with pytest.raises(DataError, match=r"^builtin:no-such-thing: nothing of that name is shipped with jinmaek\.$"):
        builtin_path("builtin:no-such-thing")


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing-v1.1a"])
def test_a_hub_name_that_cannot_be_loaded_is_named(monkeypatch, tmp_path, name):
    """In a process of its own: datasets reads these variables when it is imported."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = f"""
        from jinmaek.config.recipe import DataSection
        from jinmaek.core.errors import DataError
        from jinmaek.training.sources import read_rows
        try:
            read_rows({name!r}, DataSection(source={name!r}))
        except DataError as error:
            print(error.problems[0].key, error.render("en"), error.render("ko"), sep="\\n")
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60, check=True)
    key, english, korean = done.stdout.splitlines()
    assert key == "data.hub_failed"
    assert english.startswith(f"Data set {name} could not be loaded from the hub: ")
    assert korean.startswith(f"허브에서 데이터셋 {name} 을(를) 불러오지 못했습니다: ")


def test_every_ending_that_counts_as_a_file_is_read():
    from jinmaek.config.recipe import DATA_ENDINGS
    from jinmaek.training.sources import _READERS

    assert set(_READERS) == set(DATA_ENDINGS)
