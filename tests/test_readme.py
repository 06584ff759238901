"""What the READMEs say is what there is."""

import re
from pathlib import Path

import pytest

import jinmaek
from jinmaek.config import builtin_recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.ko.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_example_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [example] = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    exec(compile(example.replace("max_steps=20", "max_steps=11"), str(page), "exec"), {})
    said = capsys.readouterr().out
    assert "떼어 둔 데이터의 손실" in said
    assert "True" in said
    assert (tmp_path / "runs/first/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_files_and_commands_that_are_named_exist(page):
    text = page.read_text("utf-8")
    for name in re.findall(r"koalpaca-[a-z0-9.-]+[a-z0-9]", text):
        assert name in builtin_recipes(), name
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"`((?:bench|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_both_pages_tell_the_same_figures():
    figures = [set(re.findall(r"\d+\.\d{2,}", page.read_text("utf-8"))) for page in PAGES]
    assert figures[0] == figures[1]


def test_everything_exported_is_there():
    for name in jinmaek.__all__:
        assert getattr(jinmaek, name) is not None
    assert sorted(jinmaek.__all__) == jinmaek.__all__
