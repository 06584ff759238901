"""The memory plan: as much kept as fits, never more."""

from hypothesis import given
from hypothesis import strategies as st

from jinmaek.kernels.planner import LayerBytes, plan_memory
from jinmaek.kernels.stream import Keep

LAYER = LayerBytes(stream=10, attention=40, inner=40, working=100)


def plan(available, recompute=True, tokens=1000, layers=4, fixed=5000):
    return plan_memory(LAYER, layers, tokens, fixed, available, recompute=recompute)


def test_everything_is_kept_where_there_is_room():
    made = plan(10**9)
    assert made.keep == (Keep.ALL,) * 4
    assert not made.offload
    assert made.share_recomputed == 0


def test_the_last_layers_are_kept_first():
    made = plan(plan(0, recompute=False).needed_bytes - 1)
    assert made.keep == (Keep.ATTENTION, Keep.ALL, Keep.ALL, Keep.ALL)


def test_without_leave_to_recompute_everything_is_kept_whatever_it_takes():
    assert plan(0, recompute=False).keep == (Keep.ALL,) * 4


def test_what_does_not_fit_at_all_lies_on_the_host():
    made = plan(0)
    assert made.offload
    assert made.keep == (Keep.INPUT,) * 4
    assert made.share_recomputed == 1


@given(st.integers(0, 600_000), st.integers(1, 40), st.integers(1, 3000))
def test_a_plan_fits_or_is_the_smallest_there_is(available, layers, tokens):
    made = plan_memory(LAYER, layers, tokens, 5000, available, recompute=True)
    assert made.needed_bytes <= available or made.offload
    assert list(made.keep) == sorted(made.keep)
    more = plan_memory(LAYER, layers, tokens, 5000, available + 50_000, recompute=True)
    assert sum(more.keep) >= sum(made.keep), "more memory never keeps less"
