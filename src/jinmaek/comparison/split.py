"""The first step at which two trajectories part, and whether rounding explains it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from jinmaek.comparison.facts import suspects
from jinmaek.comparison.reading import Row, Run
from jinmaek.comparison.windows import Window
from jinmaek.core.comparison import LrDifference, Split
from jinmaek.core.manifest import settings_of

EPSILON = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}
# How many of them the loss may move by: in fp32 another order of adding moves it by a few; half precision rounds what
# is added in fp32 over all tokens, which leaves less than one.
_MOST = {"fp32": 16.0, "fp16": 1.0, "bf16": 1.0}
_LATER = (10, 30)  # steps after the split whose difference tells how it grew


def find_split(
    first: Run, other: Run, windows: Sequence[Window], lr: LrDifference | None, order_differs_at: int | None
) -> Split | None:
    """Where they part; ``None`` where they do not in what is common."""
    at = next((number for number, window in enumerate(windows) if not _same(window)), None)
    if at is None:
        return None
    exact = all(row.digest is not None for window in windows[:: max(1, len(windows) - 1)] for row in _rows(window))
    relative, later = _relative(windows[at]), _later(windows, at)
    coarsest = _coarsest(first, other)
    epsilon = EPSILON[coarsest] if coarsest is not None else None
    step = windows[at].step

    def split(rounding: Any, gap: Any = None, causes: Sequence[str] = ()) -> Split:
        return Split(
            step=step,
            exact=exact,
            relative=relative,
            relative_later=later,
            epsilon=epsilon,
            rounding=rounding,
            gap=gap,
            causes=tuple(causes),
        )

    found = suspects(first, other)
    reasons = list(found[0]) if found is not None else []
    if lr is not None and lr.first_step < step:
        reasons.append("lr")
    if order_differs_at is not None and order_differs_at <= step:
        reasons.append("order")
    if reasons:
        return split("other_cause", causes=reasons)
    if not exact:
        return split("unknown", "printed_digits")
    if found is None:
        return split("unknown", "not_recorded")
    if relative is None:
        return split("unknown", "size")
    if coarsest is None:
        return split("unknown", "precision")
    return split("fits" if relative <= _MOST[coarsest] * EPSILON[coarsest] else "too_large", causes=found[1])


def _rows(window: Window) -> tuple[Row, ...]:
    return (*window.first, *window.other)


def _same(window: Window) -> bool:
    if len(window.first) == len(window.other) == 1:
        one, two = window.first[0], window.other[0]
        if one.digest is not None and two.digest is not None:
            return one.digest == two.digest
        return repr((one.printed, one.grad_norm)) == repr((two.printed, two.grad_norm))
    means = [sum((row.printed or 0.0) * row.width for row in rows) for rows in (window.first, window.other)]
    return means[0] == means[1]


def _relative(window: Window) -> float | None:
    """Relative difference of the loss, or where that is the same, of the gradient norm."""
    for pair in (window.losses, (window.first[-1].grad_norm, window.other[-1].grad_norm)):
        if pair is None or pair[0] is None or pair[1] is None:
            continue
        size = max(abs(pair[0]), abs(pair[1]))
        if pair[0] != pair[1] and size > 0:
            return abs(pair[0] - pair[1]) / size
    return None


def _later(windows: Sequence[Window], at: int) -> float | None:
    step = windows[at].step
    after = [window for window in windows[at + 1 :] if _LATER[0] <= window.step - step <= _LATER[1]]
    found = [each for each in map(_relative, after) if each is not None]
    return median(found) if found else None


def _coarsest(first: Run, other: Run) -> str | None:
    """The coarsest precision that one of them computes its forward pass in; ``None`` where one does not say."""
    names: list[Any] = []
    for run in (first, other):
        settings = settings_of(run.manifest) if run.manifest is not None else {}
        if settings.get("kernels.fp8"):
            return None  # its rounding is coarser than any of EPSILON's
        names.append(run.facts.precision)
        if settings.get("model.quantization") not in (None, "none"):
            names.append(settings.get("model.compute_dtype"))
    known = [name for name in names if name in EPSILON]
    said = first.facts.precision in EPSILON and other.facts.precision in EPSILON
    return max(known, key=EPSILON.__getitem__) if said else None
