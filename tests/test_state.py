"""The state of a training, read out, copied, laid flat, put back: always the same to the bit."""

import ast
import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.training.state import StateCopy, bring_to, state_of, unpacked
from jinmaek.training.step import run_step

# bitsandbytes keeps tensors of fewer than 4096 elements in 32 bits: rank 64 makes them large enough for 8.
LARGE = {"rank": 64, "dropout": 0.1}
CASES = {
    "adamw": {"optim": {"name": "adamw", "schedule": "cosine", "warmup_steps": 2}, "adapter": {"dropout": 0.1}},
    "adamw_8bit": {"optim": {"name": "adamw_8bit"}, "adapter": LARGE},
    "paged_adamw_8bit": {"optim": {"name": "paged_adamw_8bit"}, "adapter": LARGE},
    "paged_adamw_32bit": {"optim": {"name": "paged_adamw_32bit"}, "adapter": LARGE},
    "fp16": {"train": {"precision": "fp16", "loss_scale_init": 2.0**17, "loss_scale_growth_steps": 2}},
}
each_case = pytest.mark.parametrize("case", CASES)


def equal(one, two):
    """Whether two nested states are the same to the bit, in types as well."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(two, torch.Tensor) and one.dtype == two.dtype and one.shape == two.shape and raw(one) == raw(two)
        )
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(equal, one, two))
    return type(one) is type(two) and repr(one) == repr(two)


def raw(tensor):
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist())


def go(session, first, last):
    """Run steps ``first`` … ``last``; what they record but the clock."""
    session.training.model.train()
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in range(first, last + 1)]
    return [(each.digest, each.lr, each.loss_scale, each.optimizer_stepped, each.update_ratio) for each in records]


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [each for item in items for each in tensors(item)]


def test_two_unequal_states_are_told_apart():
    """The comparison itself."""
    zero = torch.zeros(2)
    assert equal({"a": [zero, 1]}, {"a": [zero.clone(), 1]})
    for other in (torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32), -zero, [0.0, 0.0]):
        assert not equal({"a": [zero, 1]}, {"a": [other, 1]})
    assert not equal((1,), [1])
    assert not equal(1, True)


@each_case
def test_a_packed_state_is_the_state_to_the_bit(make_session, case):
    session = make_session(**CASES[case])
    go(session, 1, 3)
    state = state_of(session.training, 3)
    expected = copy.deepcopy(state)
    packed = StateCopy(state).packed()
    assert set(packed) == {"rows", "layout"}
    assert all(
        row.dim() == 1 and name == f"{row.dtype}@cpu".removeprefix("torch.") for name, row in packed["rows"].items()
    )
    assert sum(row.numel() for row in packed["rows"].values()) == sum(each.numel() for each in tensors(state))
    assert isinstance(ast.literal_eval(packed["layout"]), dict)
    found = unpacked(packed)
    assert equal(found, expected)
    assert found["step"] == 3
    assert any(each.dtype == torch.uint8 for each in tensors(found["optimizer"])) is ("8bit" in case)
    assert (found["loss_scale"] is None) is (case != "fp16")


@each_case
def test_a_fresh_training_has_a_state_too(make_session, case):
    session = make_session(**CASES[case])
    state = StateCopy(state_of(session.training, 0)).wait()
    assert state["optimizer"]["state"] == {}
    expected = go(session, 1, 4)
    bring_to(session.training, state)
    assert go(session, 1, 4) == expected, "the moments of the steps that were undone are forgotten"


@each_case
def test_a_state_is_left_as_it_is_and_repeats_its_steps_every_time(make_session, case):
    session = make_session(**CASES[case])
    go(session, 1, 3)
    state = StateCopy(state_of(session.training, 3)).wait()
    kept = copy.deepcopy(state)
    expected = go(session, 4, 8)
    assert len({digest for digest, *_ in expected}) == 5
    for _ in range(2):
        bring_to(session.training, state)
        assert equal(state_of(session.training, 3) | {"rng": None}, kept | {"rng": None})
        assert go(session, 4, 8) == expected
        assert equal(state, kept), "a step wrote into the state that it was brought to"


def test_the_fp16_case_meets_an_overflow_and_a_growing_scale(make_session):
    """Else its equality above would say little."""
    steps = go(make_session(**CASES["fp16"]), 1, 8)
    assert {stepped for *_, stepped, _ in steps} == {False, True}
    scales = [scale for _, _, scale, *_ in steps]
    assert any(one > two for one, two in itertools.pairwise(scales))
    assert any(one < two for one, two in itertools.pairwise(scales))


@each_case
def test_another_session_goes_on_from_the_state(make_session, case):
    session = make_session(**CASES[case])
    go(session, 1, 3)
    state = StateCopy(state_of(session.training, 3)).wait()
    expected = go(session, 4, 6)
    other = make_session(**CASES[case])
    go(other, 1, 1)  # its own moments, which must go
    torch.manual_seed(99)
    bring_to(other.training, state)
    assert go(other, 4, 6) == expected


@each_case
def test_later_steps_do_not_change_a_copy(make_session, case):
    session = make_session(**CASES[case])
    go(session, 1, 2)
    snapshot = StateCopy(state_of(session.training, 2))
    before = copy.deepcopy(snapshot.wait())
    living = {each.data_ptr() for each in tensors(state_of(session.training, 2)) if each.numel()}
    assert not living & {each.data_ptr() for each in tensors(snapshot.wait()) if each.numel()}
    go(session, 3, 5)
    assert equal(snapshot.wait(), before)
    assert not equal(state_of(session.training, 2)["weights"], before["weights"])


def test_a_measured_step_without_an_update_is_forgotten(make_session):
    """fp16: what was unscaled and never updated must not stand in the way of the next step."""
    from jinmaek.training.step import measure_step

    session = make_session(**CASES["fp16"])
    go(session, 1, 2)
    state = StateCopy(state_of(session.training, 2)).wait()
    expected = go(session, 3, 4)
    bring_to(session.training, state)
    measure_step(session.training, 3, session.plan.batches(3))
    bring_to(session.training, state)
    assert go(session, 3, 4) == expected


DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.float64,
]


@st.composite
def small_tensors(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    values = torch.randint(0, 200, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    tensor = values.to(dtype)
    if tensor.dim() == 2 and draw(st.booleans()):
        tensor = tensor.t()  # not contiguous
    return tensor


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | small_tensors()
)
# A tuple that begins with the word "tensor" is how the layout names one; no state holds such.
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple).filter(lambda value: value[:1] != ("tensor",))
        | st.dictionaries(st.integers() | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), states, max_size=4))
def test_any_state_of_plain_values_survives(state):
    packed = StateCopy(state).packed()
    ast.literal_eval(packed["layout"])
    assert len(packed["rows"]) == len({each.dtype for each in tensors(state)})
    assert equal(unpacked(packed), state)
