"""The split into training and held-out examples: a function of seed and content, and of nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError
from jinmaek.training.examples import MAX_HELD_OUT, Example, load_data, split

UNHURRIED = settings(deadline=None)  # other programs share the CPU
CONTENTS = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=3), min_size=2, max_size=30)
SHARES = st.floats(0.01, 0.99)


def example(ids, name="0"):
    return Example(name, np.asarray(ids, np.int64), np.ones(len(ids), bool))


def examples(contents):
    return [example(ids, str(row)) for row, ids in enumerate(contents)]


def texts(part):
    return {tuple(one.input_ids.tolist()) for one in part}


@UNHURRIED
@given(CONTENTS.filter(lambda contents: len(set(map(tuple, contents))) > 2), st.integers(0, 99), st.randoms())
def test_the_order_of_the_rows_does_not_matter_and_copies_stay_together(contents, seed, random):
    shuffled = contents.copy()
    random.shuffle(shuffled)
    train, held_out = split(examples(contents), 0.2, seed)
    again, held_out_again = split(examples(shuffled), 0.2, seed)
    assert (texts(train), texts(held_out)) == (texts(again), texts(held_out_again))
    assert texts(train).isdisjoint(texts(held_out))
    assert texts(train) | texts(held_out) == set(map(tuple, contents))


@UNHURRIED
@given(st.integers(2, 60), SHARES, st.integers(0, 99))
def test_the_share_that_is_asked_for_is_held_out_and_no_row_is_lost(count, share, seed):
    rows = examples([[number, 1] for number in range(count)])
    wanted = max(1, round(share * count))
    if wanted >= count:
        with pytest.raises(DataError):
            split(rows, share, seed)
        return
    train, held_out = split(rows, share, seed)
    assert len(held_out) == wanted
    assert sorted([*train, *held_out], key=lambda one: int(one.id)) == rows
    assert [int(one.id) for one in train] == sorted(int(one.id) for one in train)


def test_the_same_seed_holds_out_the_same_and_another_seed_others():
    rows = examples([[number, 1] for number in range(200)])
    ids = [[one.id for one in split(rows, 0.1, seed)[1]] for seed in (1, 1, 2)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_a_row_that_is_added_moves_few_others():
    rows = examples([[number, 1] for number in range(200)])
    before, after = (texts(split(part, 0.1, 0)[1]) for part in (rows[:190], rows))
    assert len(before - after) <= 1


def test_no_more_than_the_bound_is_held_out():
    rows = examples([[number, 1] for number in range(2 * MAX_HELD_OUT)])
    assert len(split(rows, 0.9, 0)[1]) == MAX_HELD_OUT


@pytest.mark.parametrize("seed", range(10))
def test_a_text_with_many_copies_does_not_blow_up_the_share(seed):
    """Ninety of a hundred rows are one text: holding them out would leave ten to learn from."""
    rows = examples([[0, 0]] * 90 + [[number, 1] for number in range(10)])
    assert len(split(rows, 0.05, seed)[1]) <= 5


@pytest.mark.parametrize("contents", [[[1, 2]], [[1, 2]] * 5])
def test_examples_that_are_too_few_or_too_alike_are_told(contents):
    with pytest.raises(DataError) as caught:
        split(examples(contents), 0.2, 0)
    count = len(contents)
    assert str(caught.value).startswith(f"{count} examples are too few (or too alike) to hold some out.")
    assert caught.value.render("ko").startswith(f"예제가 {count}개뿐이거나")


@pytest.fixture
def load(tmp_path):
    def loaded(rows, held_out_rows=(), seed=0, **settings):
        paths = []
        for name, part in (("rows.jsonl", rows), ("held_out.jsonl", held_out_rows)):
            paths.append(tmp_path / name)
            paths[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in part), "utf-8")
        if held_out_rows:
            settings["held_out_source"] = str(paths[1])
        letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
        return load_data(DataSection(source=str(paths[0]), **settings), wrapped, seed)

    return loaded


def test_a_recipe_without_a_share_trains_on_everything(load):
    data = load(["하나", "둘"], held_out=0.0)
    assert (len(data.train), len(data.held_out), data.report.num_held_out) == (2, 0, 0)


def test_the_share_of_the_recipe_is_held_out_and_counted(load):
    data = load([f"글 {number}" for number in range(40)], held_out=0.25)
    assert (data.report.num_examples, data.report.num_held_out) == (len(data.train), len(data.held_out)) == (30, 10)
    assert {one.id for one in data.train} | {one.id for one in data.held_out} == set(map(str, range(40)))


def test_a_source_of_its_own_is_held_out_whole(load):
    data = load(["하나", "둘", "셋"], ["넷", "다섯"])
    assert (len(data.train), len(data.held_out)) == (3, 2)
    assert texts(data.train).isdisjoint(texts(data.held_out))
