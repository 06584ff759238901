"""The catalogue of messages: complete in both languages, and exactly what the code asks for."""

import ast
import re
import tomllib
from pathlib import Path
from string import Formatter

import pytest

import jinmaek
from jinmaek.config.load import defaults
from jinmaek.config.recipe import Recipe
from jinmaek.core import errors
from jinmaek.core.text import catalogue, default_lang, is_lang, say
from jinmaek.detect import RULES

SOURCE = Path(jinmaek.__file__).parent
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
NODES = [node for tree in TREES.values() for node in ast.walk(tree)]
MESSAGES = sorted((SOURCE / "core" / "messages").glob("*.toml"))
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
SPEAKERS = ERRORS | {"say", "_say", "Problem", "Conflict"}
SECTIONS = {key.partition(".")[0] for key in catalogue()}
PROOF_SECTIONS = ("proof_cause", "proof_arm", "proof_not_run", "proof_lost", "proof_difference")


def called(node):
    """Name of the function, method or class that is called."""
    return getattr(node.func, "attr", None) or getattr(node.func, "id", None)


def calls(*names):
    return [node for node in NODES if isinstance(node, ast.Call) and called(node) in names]


def text_of(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def first_texts(*names):
    """Literal first arguments of the calls of ``names``."""
    return {text_of(node.args[0]) for node in calls(*names) if node.args} - {None}


def literal(path, name):
    """The strings of ``name = Literal[...]`` or ``name: Literal[...]``."""
    for node in ast.walk(TREES[path]):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(target, "id", None) == name:
            value = node.annotation if isinstance(node, ast.AnnAssign) else node.value
            return {text_of(part) for part in ast.walk(value)} - {None}
    raise AssertionError(f"{path} has no {name}")


def returned_keys(path, name):
    """The literal keys of the mapping that the function ``name`` returns."""
    function = next(node for node in ast.walk(TREES[path]) if getattr(node, "name", None) == name)
    made = next(node.value for node in ast.walk(function) if isinstance(node, ast.Return))
    return {text_of(key) for key in made.keys}


def excluded():
    """Look-alikes that some pathology says why it is not."""
    return {key.partition(".not_")[2] for key in catalogue()}


def families():
    """Every way to make a key with an f-string, and all that can stand in its hole."""
    return {
        "help.": first_texts("_help"),
        "phase.": first_texts("on_phase"),
        "result.": literal("pulse/result.py", "End"),
        "streak.": literal("pulse/result.py", "cause"),
        "step.skipped_": literal("pulse/recorder.py", "Cause"),
        "run.changed_": returned_keys("training/manifest.py", "fingerprints") | {"settings"},
        "verdict.": literal("core/finding.py", "Health"),
        "weights.": literal("core/finding.py", "Weights"),
        "confidence.": literal("core/finding.py", "Confidence"),
        "outcome.": literal("core/finding.py", "Outcome"),
        "watch_family.": {rule.family for rule in RULES},
        "rule.": {rule.name for rule in RULES} | {"hidden-schedule-change"},
        "needs.": names_in("needs") & texts_of("detect"),
        "lookalike.": names_in("lookalike") & (texts_of("detect") | excluded()),
        "proof_headline.": literal("core/verdict.py", "Outcome"),
        "proof_line.": literal("core/verdict.py", "Outcome"),
        "proof_symptom.": literal("core/verdict.py", "Symptom"),
        "proof_outcome.": literal("core/verdict.py", "TrialOutcome"),
        "proof_status.": literal("core/verdict.py", "Status"),
        "proof_phase.": literal("core/verdict.py", "Phase"),
        # Said by names that only a replay knows: test_verdict_telling.py holds these to their lists.
        **{f"{section}.": names_in(section) for section in PROOF_SECTIONS},
    }


def texts_of(folder):
    """All texts in the code of a package, those divided by ``|`` apart."""
    trees = [tree for path, tree in TREES.items() if path.startswith(f"{folder}/")]
    texts = {text_of(node) for tree in trees for node in ast.walk(tree)} - {None}
    return {part for text in texts for part in text.split("|")}


def names_in(section):
    return {key.partition(".")[2] for key in catalogue() if key.startswith(f"{section}.")}


def pathology_keys():
    """The story of everything that detect names: its fixed parts, a sentence a number, one a look-alike."""
    named = texts_of("detect")
    part = re.compile(r"(?:title|what|why|remedy)(?:_as_nan)?|sure|detail_[a-z0-9_]+|not_[a-z0-9-]+")
    keys = {key for key in catalogue() if key.partition(".")[0] in named and part.fullmatch(key.partition(".")[2])}
    return keys | {f"detail.{name}" for name in names_in("detail") & texts_of("detect")}


def made_keys():
    return {prefix + part for prefix, parts in families().items() for part in parts} | pathology_keys()


def placeholders(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.name)
def test_every_message_speaks_both_languages_and_nothing_else(path):
    for section, entries in tomllib.loads(path.read_text("utf-8")).items():
        for name, entry in entries.items():
            assert set(entry) == {"en", "ko"}, f"{section}.{name}"
            assert all(text.strip() for text in entry.values()), f"{section}.{name}"


def test_no_message_hides_another_of_the_same_key():
    tables = [entries for path in MESSAGES for entries in tomllib.loads(path.read_text("utf-8")).values()]
    assert sum(map(len, tables)) == len(catalogue()) > 100


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_both_languages_tell_the_same_facts(key):
    entry = catalogue()[key]
    assert placeholders(entry["en"]) == placeholders(entry["ko"])
    assert all(name.isidentifier() for name in placeholders(entry["en"]))


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_korean_messages_are_korean_and_english_ones_are_not(key):
    assert re.search("[가-힣]", catalogue()[key]["ko"])
    assert not re.search("[가-힣]", catalogue()[key]["en"])


def test_every_message_that_the_code_says_exists():
    said = first_texts(*SPEAKERS) | made_keys()
    assert len(said) > 50
    assert said <= set(catalogue())


def test_every_string_that_looks_like_a_message_key_is_one():
    """Keys that are chosen first and said later; settings share some of the sections' names."""
    pattern = re.compile(rf"({'|'.join(SECTIONS)})\.[a-z0-9_]*[a-z0-9]")
    texts = {text_of(node) for node in NODES} - {None, "run.json", "report.html"}
    assert {text for text in texts if pattern.fullmatch(text)} <= set(catalogue()) | set(defaults())


def test_every_message_is_said_somewhere():
    texts = {text_of(node) for node in NODES}
    assert set(catalogue()) - texts - made_keys() == set()


def test_no_other_keys_are_made_with_f_strings():
    heads = {text_of(node.values[0]) for node in NODES if isinstance(node, ast.JoinedStr)} - {None}
    message_sections = SECTIONS - set(Recipe.model_fields)
    assert {head for head in heads if head.partition(".")[0] in message_sections and "." in head} == set(families())


def given_names(node):
    """Names of the values that a call passes to its message; ``None`` where only running it can tell."""
    if called(node) == "Problem":
        params = node.args[1] if len(node.args) > 1 else ast.Dict([], [])
        return {text_of(key) for key in params.keys} if isinstance(params, ast.Dict) else None
    if called(node) == "Conflict":
        return {text_of(read).replace(".", "_") for read in node.args[1].elts}
    names = {keyword.arg for keyword in node.keywords}
    return None if None in names else names


def test_every_placeholder_is_given_a_value():
    checked = 0
    for node in calls(*SPEAKERS):
        key = text_of(node.args[0]) if node.args else None
        names = given_names(node) if key is not None else None
        if names is not None:
            checked += 1
            assert placeholders(catalogue()[key]["en"]) <= names, key
    assert checked > 50


@pytest.mark.parametrize(
    ("environ", "lang"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko"}, "ko"),
        ({"LANG": "KO_KR.eucKR"}, "ko"),
        ({"LANG": "Korean_Korea.949"}, "ko"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LC_ALL": "C", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LC_MESSAGES": "ko_KR.UTF-8", "LANG": "en_US.UTF-8"}, "ko"),
        ({"LC_ALL": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "en"),
        ({"LC_TIME": "ko_KR.UTF-8", "LANG": "en_US.UTF-8"}, "en"),
    ],
)
def test_the_language_follows_the_locale(environ, lang):
    assert default_lang(environ) == lang


def test_konkani_is_not_korean():
    assert default_lang({"LANG": "kok_IN.UTF-8"}) == "en"


def test_only_korean_and_english_are_spoken():
    assert [value for value in ("en", "ko", "de", "KO", "") if is_lang(value)] == ["en", "ko"]


def test_saying_what_is_not_in_the_catalogue_is_our_own_mistake():
    with pytest.raises(KeyError):
        say("data.no_such_message", "en")
    with pytest.raises(KeyError, match="source"):
        say("data.empty", "ko")


def test_braces_in_a_value_are_left_alone():
    assert say("data.empty", "en", source="{source} {0}") == "{source} {0} holds no examples."


def test_several_problems_are_numbered_in_both_languages():
    problems = [errors.Problem("data.empty", {"source": name}) for name in ("a", "b")]
    error = errors.DataError.of(problems)
    assert str(error) == "2 problems:\n  1. a holds no examples.\n  2. b holds no examples."
    assert error.render("ko").splitlines()[0] == "문제 2가지:"
