"""Coverage and error rates on simulated series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from bench.experiments.bowls import CAPABLE_OF_NO_MORE, DAMPED, NOISY, SLOW, WILD, Source, run

from jinmaek.comparison.compare import decide
from jinmaek.comparison.differences import mean_difference
from jinmaek.detect import diagnose
from jinmaek.detect.robust_variance import LEVEL, mean_interval, slope_interval
from jinmaek.detect.trend import linear_trend

Series = tuple[np.ndarray, np.ndarray]
STEPS = 300  # of the second half, which decides


def print_coverage(tries: int) -> None:
    """Share of intervals, nominal 95 %, that hold the true mean and slope of AR(1) noise."""
    print("| AR(1) coefficient | points | mean | slope | slope, Newey-West with normal quantiles |")
    print("| --- | --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.8, 0.9):
        for num in (20, 50, 200, 1000):
            held = np.zeros(3)
            for _ in range(tries):
                series = _autoregressive(rng, rho, num)
                mean, slope = mean_interval(series), slope_interval(series)
                usual = linear_trend([float(at) for at in range(num)], series)
                assert mean is not None
                assert slope is not None
                assert usual is not None
                held += (
                    abs(mean.value) <= mean.half_width(),
                    abs(slope.value) <= slope.half_width(),
                    abs(usual.change) <= usual.half_width,
                )
            print(f"| {rho} | {num} | " + " | ".join(f"{share:.1%}" for share in held / tries) + " |", flush=True)


def _autoregressive(rng: np.random.Generator, rho: float, num: int) -> list[float]:
    value, series = 0.0, []
    for shock in rng.normal(size=num + 100):
        value = rho * value + shock
        series.append(float(value))
    return series[100:]


def print_rates(tries: int) -> None:
    """Verdicts on pairs of losses whose difference is known; a batch's loss varies by 0.2 nats."""
    cases: dict[str, Callable[[np.random.Generator], Series]] = {
        "equal, same batches": lambda rng: _paired(rng, 0.0),
        "a tenth of the noise apart, same batches": lambda rng: _paired(rng, 0.02),
        "equal, other batches": lambda rng: _apart(rng, 0.0),
        "a tenth of the noise apart, other batches": lambda rng: _apart(rng, 0.02),
    }
    names = ("separated", "equivalent", "different", "not_enough")
    print("| pair | " + " | ".join(names) + " | interval holds the truth |")
    print("| --- |" + " --- |" * (len(names) + 1))
    for name, make in cases.items():
        rng, counted, held = np.random.default_rng(1), Counter[str](), 0
        true = 0.02 if "tenth" in name else 0.0
        for _ in range(tries):
            one, two = make(rng)
            estimated = mean_difference(list(zip(one.tolist(), two.tolist(), strict=True)))
            assert estimated is not None
            outcome, equivalence = decide(estimated, "train", None, LEVEL, 0.02)
            counted.update((outcome, str(equivalence)))
            held += abs(estimated.value - true) <= estimated.half_width()
        shares = " | ".join(f"{counted[each] / tries:.1%}" for each in names)
        print(f"| {name} | {shares} | {held / tries:.1%} |", flush=True)


def _paired(rng: np.random.Generator, difference: float) -> Series:
    shared = 2 + rng.normal(0, 0.2, STEPS)
    own = [np.convolve(rng.normal(0, 0.02, STEPS + 9), np.ones(10) / 10**0.5, "valid") for _ in range(2)]
    return shared + own[0], shared + own[1] + difference


def _apart(rng: np.random.Generator, difference: float) -> Series:
    return 2 + rng.normal(0, 0.2, STEPS), 2 + rng.normal(0, 0.2, STEPS) + difference


def print_limits(num_seeds: int) -> None:
    """What is named as the limit of runs whose limit is known."""
    cases = {
        "noise of the gradient": NOISY,
        "capacity": CAPABLE_OF_NO_MORE,
        "too low an lr": SLOW,
        "an optimizer whose updates are a thousandth": DAMPED,
        "an optimizer whose updates are twelve times Adam's": WILD,
    }
    print("| true limit | named, of", num_seeds, "seeds | true excess loss | told as cost of the noise |")
    print("| --- | --- | --- | --- |")
    for name, bowl in cases.items():
        runs, excess = run(bowl, range(num_seeds))
        found = [diagnose(Source("run", records)).diagnosis.limits for records in runs]
        counted = Counter(each.limiting for each in found if each is not None)
        told = ", ".join(f"{limit} {count}" for limit, count in counted.most_common())
        cost = np.mean([each.facts["noise_cost"] for each in found if each is not None])
        print(f"| {name} | {told} | {excess.mean():.3g} | {cost:.3g} |", flush=True)
