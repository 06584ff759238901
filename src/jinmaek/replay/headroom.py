"""How near its dtype's limit an operation came in the steps before."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jinmaek.core.verdict import Headroom, Location
from jinmaek.replay.case import Case
from jinmaek.replay.locate import limit_of, plain_name
from jinmaek.replay.scan import Op, OpScan
from jinmaek.training.state import bring_to

_SURE = 3.0  # standard errors that a slope must lie above 0
_ROUNDING = 1e-9  # of the values: a smaller rise in all is the arithmetic's own


def headroom_of(case: Case, op: Op, share: float) -> Headroom:
    """Of a healthy step: the operation that came nearest, and how it got there."""
    shares = {**_watched(case, op), case.step: share}
    return _headroom(plain_name(op.key[0]), limit_of(op.dtype), shares, shares)


def watched_headroom(case: Case, op: Op, place: Location) -> Headroom:
    """Of a failing step: the steps before it, whose trend is told, and the true value of the step itself."""
    before = _watched(case, op)
    shares = dict(before)
    if place.true_absmax is not None:
        shares[case.step] = place.true_absmax / place.limit
    return _headroom(place.module, place.limit, shares, before)


def _watched(case: Case, op: Op) -> dict[int, float]:
    """The operation's share of the limit in each replayed step before."""
    scene, start = case.scene, case.start
    shares: dict[int, float] = {}
    bring_to(scene.training, start)
    for step in range(start["step"] + 1, case.step):
        scan = OpScan(scene.training.model, watch=op.key)
        with scan.running():
            for _ in scene.go_on(step, step):
                pass
        finite = [value for value in scan.values() if math.isfinite(value)]
        if finite:
            shares[step] = max(finite) / limit_of(op.dtype)
    return shares


def _headroom(module: str, limit: float, shares: Mapping[int, float], trend: Mapping[int, float]) -> Headroom:
    return Headroom(module=module, limit=limit, shares=shares, steps_left=steps_left(trend))


def steps_left(shares: Mapping[int, float]) -> float | None:
    """Steps from the last one until the straight line through ``shares`` reaches 1; ``None`` if it does not rise.

    Least squares; the slope must lie three standard errors above 0, else it is scatter.
    """
    count = len(shares)
    if count < 4:
        return None
    steps, values = list(shares), list(shares.values())
    middle, level = sum(steps) / count, sum(values) / count
    width = sum((step - middle) ** 2 for step in steps)
    slope = sum((step - middle) * value for step, value in shares.items()) / width
    rest = sum((value - level - slope * (step - middle)) ** 2 for step, value in shares.items())
    error = math.sqrt(rest / (count - 2) / width)
    if slope <= _SURE * error or slope * (max(steps) - min(steps)) <= _ROUNDING * max(values):
        return None
    now = level + slope * (steps[-1] - middle)
    return max(0.0, (1.0 - now) / slope)
