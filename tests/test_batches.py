"""Which examples a step sees, and the tensors it gets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.training.batches import IGNORED, BatchPlan, epoch_order, pack, pack_first_fit, pad
from jinmaek.training.examples import Example

UNHURRIED = settings(deadline=None)  # other programs share the CPU
LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=40)
PLANS = [
    {"batch_size": 1, "accumulation": 1},
    {"batch_size": 4, "accumulation": 1},
    {"batch_size": 3, "accumulation": 2},
    {"batch_size": 8, "accumulation": 3},
    {"batch_size": 1, "accumulation": 1, "batch_tokens": 24},
    {"batch_size": 1, "accumulation": 3, "batch_tokens": 24},
]
EVERY_PLAN = pytest.mark.parametrize("settings", PLANS, ids=str)


def example(length, name="0", learn=None):
    """Tokens are told apart by their values; without ``learn`` all but the first third is learnt."""
    rng = np.random.default_rng(length + 1000 * int(name))
    flags = np.arange(length) >= length // 3 if learn is None else np.asarray(learn, bool)
    return Example(name, rng.integers(5, 99, length), flags)


def make_examples(lengths):
    return [example(length, str(number)) for number, length in enumerate(lengths)]


EXAMPLES = make_examples([3 + number * 7 % 19 for number in range(23)])

MANY = st.lists(
    st.integers(1, 9).flatmap(lambda length: st.lists(st.booleans(), min_size=length, max_size=length)),
    min_size=1,
    max_size=6,
).map(lambda flags: [example(len(learn), str(number), learn) for number, learn in enumerate(flags)])


def next_tokens(one):
    """What each token of one document is to predict, said slowly."""
    targets = []
    for at in range(one.num_tokens):
        learnt = at + 1 < one.num_tokens and one.learn[at + 1]
        targets.append(int(one.input_ids[at + 1]) if learnt else IGNORED)
    return targets


@pytest.mark.parametrize(
    ("count", "seed", "epoch", "order"),
    [
        (8, 42, 0, [0, 4, 6, 5, 1, 7, 2, 3]),
        (8, 42, 1, [0, 3, 4, 2, 6, 5, 7, 1]),
        (8, 7, 0, [0, 1, 4, 7, 5, 2, 6, 3]),
        (5, 0, 0, [1, 3, 4, 0, 2]),
        (0, 42, 0, []),
    ],
)
def test_the_order_of_an_epoch_is_the_same_for_ever(count, seed, epoch, order):
    """A change here would make every run so far impossible to go on with."""
    assert epoch_order(count, seed, epoch) == order


@UNHURRIED
@given(st.integers(0, 200), st.integers(0, 2**32), st.integers(0, 100))
def test_the_order_of_an_epoch_is_a_permutation(count, seed, epoch):
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


def test_the_order_does_not_touch_the_random_numbers_of_torch():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    epoch_order(50, 1, 0)
    assert torch.equal(torch.get_rng_state(), before)


@UNHURRIED
@given(LENGTHS, st.integers(20, 50), st.randoms())
def test_packing_puts_every_document_once_into_bins_that_hold_it(lengths, budget, random):
    order = list(range(len(lengths)))
    random.shuffle(order)
    bins = pack_first_fit(lengths, order, budget)
    assert sorted(index for one in bins for index in one) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in one) <= budget for one in bins)


@UNHURRIED
@given(LENGTHS, st.integers(20, 50))
def test_each_document_goes_into_the_first_bin_with_room(lengths, budget):
    slow = []
    for index, length in enumerate(lengths):
        fitting = [one for one in slow if sum(lengths[other] for other in one) + length <= budget]
        if fitting:
            fitting[0].append(index)
        else:
            slow.append([index])
    assert pack_first_fit(lengths, range(len(lengths)), budget) == slow


def make_plan(settings, seed=42, examples=EXAMPLES):
    return BatchPlan(examples, seed=seed, **settings)


def ids(micros):
    return [[one.id for one in micro] for micro in micros]


def read_epoch(plan, before=0):
    """The last step of the epoch behind step ``before``, and what it showed, found by reading on."""
    seen, step = [], before
    while len(seen) < len(EXAMPLES):
        step += 1
        seen += [name for micro in ids(plan.microbatches(step)) for name in micro]
    return step, seen


@EVERY_PLAN
def test_every_example_is_seen_once_an_epoch(settings):
    plan = make_plan(settings)
    step, first = read_epoch(plan)
    assert plan.steps_per_epoch == step
    for _ in range(3):
        assert sorted(map(int, first)) == list(range(len(EXAMPLES)))
        step, first = read_epoch(plan, step)


@EVERY_PLAN
def test_microbatches_are_full_but_for_the_last_ones(settings):
    plan = make_plan(settings)
    steps = [plan.microbatches(step) for step in range(1, plan.steps_per_epoch + 1)]
    assert all(len(micros) == settings["accumulation"] for micros in steps[:-1])
    assert 1 <= len(steps[-1]) <= settings["accumulation"]
    for micro in (micro for micros in steps for micro in micros):
        if "batch_tokens" in settings:
            assert sum(one.num_tokens for one in micro) <= settings["batch_tokens"]
        else:
            assert len(micro) == settings["batch_size"] or micro is steps[-1][-1]


@EVERY_PLAN
def test_any_step_can_be_asked_for_by_itself(settings):
    """Going on from step 40, or replaying it, needs no memory of the steps before."""
    walked = make_plan(settings)
    sequence = [ids(walked.microbatches(step)) for step in range(1, 41)]
    for step in (40, 17, 1, 25, 2):
        assert ids(make_plan(settings).microbatches(step)) == sequence[step - 1]
    jumping = make_plan(settings)
    assert [ids(jumping.microbatches(step)) for step in (33, 4, 40, 1)] == [sequence[at - 1] for at in (33, 4, 40, 1)]


@EVERY_PLAN
def test_epochs_and_seeds_have_orders_of_their_own(settings):
    plan = make_plan(settings)
    step, first = read_epoch(plan)
    assert read_epoch(plan, step)[1] != first
    assert read_epoch(make_plan(settings, seed=43))[1] != first


def test_the_fingerprint_names_the_order_and_how_it_is_cut():
    plans = [make_plan(settings) for settings in PLANS] + [make_plan(PLANS[0], seed=1)]
    assert len({plan.fingerprint(30) for plan in plans}) == len(plans)
    assert make_plan(PLANS[2]).fingerprint(30) == make_plan(PLANS[2]).fingerprint(30) != plans[2].fingerprint(29)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 50), (2, 100), (0.5, 25), (0.001, 1), (1.01, 51), (0.14, 7), (0.28, 14), (0.58, 29)]
)
def test_epochs_are_turned_into_steps_and_a_begun_step_is_a_step(epochs, steps):
    """Also where floating point makes 0.14 · 50 a little more than 7."""
    plan = make_plan({"batch_size": 2, "accumulation": 1}, examples=make_examples([4] * 100))
    assert plan.num_steps(epochs) == steps


@UNHURRIED
@given(MANY)
def test_padded_rows_hold_their_examples_and_predict_the_next_token(many):
    batch = pad(many, pad_id=3)
    width = max(one.num_tokens for one in many)
    assert batch.input_ids.shape == batch.targets.shape == (len(many), width)
    assert batch.position_ids is None
    for row, one in enumerate(many):
        rest = width - one.num_tokens
        assert batch.input_ids[row].tolist() == one.input_ids.tolist() + [3] * rest
        assert batch.targets[row].tolist() == next_tokens(one) + [IGNORED] * rest


@UNHURRIED
@given(MANY)
def test_a_pack_holds_its_examples_and_predicts_the_next_token_of_the_same_document(many):
    batch = pack(many)
    assert batch.input_ids.tolist() == [[token for one in many for token in one.input_ids.tolist()]]
    assert batch.targets.tolist() == [[target for one in many for target in next_tokens(one)]]
    assert batch.position_ids.tolist() == [[at for one in many for at in range(one.num_tokens)]]


def test_the_first_token_of_a_document_is_no_target_of_the_one_before():
    many = [example(4, "1", [True] * 4), example(3, "2", [True] * 3), example(2, "3", [True] * 2)]
    targets = pack(many).targets[0]
    assert [targets[at].item() for at in (3, 6, 8)] == [IGNORED] * 3
    assert (targets != IGNORED).sum() == 3 + 2 + 1


@UNHURRIED
@given(MANY)
def test_tokens_are_counted_without_padding(many):
    for batch in (pad(many, pad_id=3), pack(many)):
        assert batch.num_tokens == sum(one.num_tokens for one in many)
        assert batch.num_loss_tokens == sum(one.num_loss_tokens for one in many)
        assert batch.num_loss_tokens == sum(target != IGNORED for one in many for target in next_tokens(one))
        assert batch.example_ids == tuple(one.id for one in many)
        assert batch.input_ids.dtype == batch.targets.dtype == torch.int64


def test_a_padding_token_that_is_learnt_elsewhere_is_learnt_there_only():
    """Padding with end-of-text must not hide the end of a text, nor teach the padding."""
    short, long = example(3, "0", [False, True, True]), example(5, "1", [True] * 5)
    end = int(short.input_ids[-1])
    targets = pad([short, long], pad_id=end).targets[0].tolist()
    assert targets == [int(short.input_ids[1]), end, IGNORED, IGNORED, IGNORED]


@EVERY_PLAN
def test_a_plan_makes_the_tensors_of_its_examples(settings):
    plan = make_plan(settings | {"pad_id": 3})
    for step in (1, plan.steps_per_epoch):
        micros, batches = plan.microbatches(step), plan.batches(step)
        assert [batch.example_ids for batch in batches] == [tuple(names) for names in ids(micros)]
        wanted = [pack(micro) if "batch_tokens" in settings else pad(micro, 3) for micro in micros]
        assert all(torch.equal(made.input_ids, want.input_ids) for made, want in zip(batches, wanted, strict=True))


def test_a_batch_that_stays_on_the_cpu_keeps_everything():
    batch = pack(EXAMPLES[:3])
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.position_ids, batch.position_ids)
    assert (moved.num_tokens, moved.num_loss_tokens, moved.example_ids) == (
        batch.num_tokens, batch.num_loss_tokens, batch.example_ids,
    )  # fmt: skip
