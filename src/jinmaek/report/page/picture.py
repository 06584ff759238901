"""One chart as a PNG or SVG for a paper or a post, drawn by matplotlib: offline, without a browser.

Text in an SVG becomes outlines, so that Korean looks the same on a machine without a Korean font.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jinmaek.core.errors import RunError, StorageError
from jinmaek.core.text import Lang, say
from jinmaek.report.page.charts import CHARTS, missing, missing_words, observed
from jinmaek.report.page.decimate import keep
from jinmaek.report.page.gather import RunView
from jinmaek.report.page.sections import labels
from jinmaek.report.page.series import Curve, curves, smooth, top_of, usual_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES, DPI = (8.0, 4.0), 200
COLUMNS = 1600  # points a line is thinned out to
COLOURS = (
    "#2458c5", "#c8501a", "#1f8a4c", "#8a3fb0", "#c2185b", "#00798a", "#8a6a00", "#5b6b78", "#7a4a33", "#5f8a17",
)  # fmt: skip
SEVERITIES = {"error": "#b3261e", "warning": "#8f5f00"}
FAMILIES = (
    "Pretendard", "Noto Sans KR", "Noto Sans CJK KR", "Noto Sans CJK JP", "Apple SD Gothic Neo", "AppleGothic",
    "Malgun Gothic", "NanumGothic", "NanumBarunGothic", "NanumSquare", "UnDotum",
)  # fmt: skip
_SVG = {"svg.fonttype": "path", "svg.hashsalt": "jinmaek"}
MARKS = {"nan": ("x", 0.03), "plus": ("^", 0.97), "minus": ("v", 0.03), "zero": ("o", 0.03), "skipped": ("|", 0.09)}


def draw_picture(runs: Sequence[RunView], chart: str, target: Path, kind: Literal["png", "svg"], lang: Lang) -> None:
    """Write ``chart`` of ``runs`` to ``target``.

    Raises:
        RunError: there is no such chart, no run has its fields, or matplotlib or a Korean font is not installed.
        StorageError: it cannot be written.
    """
    spec = next((one for one in CHARTS if one.id == chart), None)
    if spec is None:
        raise RunError("html.no_chart", name=chart, names=", ".join(one.id for one in CHARTS))
    gaps = [missing(spec, observed(run.columns)) for run in runs]
    if all(gaps):
        raise RunError("html.nothing_to_draw", name=chart, missing=missing_words(gaps[0])[lang])
    if find_spec("matplotlib") is None:
        raise RunError("html.no_matplotlib")
    names = labels([run.name for run in runs])
    title = say(spec.title, lang)
    korean = re.search("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]", "".join((title, say("html.x_step", lang), *names)))
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    family = [*filter(None, [_korean_family(required=korean is not None)]), "DejaVu Sans"]
    with rc_context({"font.family": family, "axes.unicode_minus": False, **_SVG}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, spec.id, runs, names, log=spec.log, smoothed=spec.smooth)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel(say("html.x_step", lang))
        _save(figure, target, kind)


def _save(figure: Any, target: Path, kind: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The same run gives the same bytes.
        figure.savefig(target, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else {"Software": None})
    except OSError as error:
        raise StorageError("html.not_written", path=target, error=error.strerror or error) from error


@cache
def _korean_family(*, required: bool) -> str | None:
    """An installed Korean font; else the one that the package koreanize-matplotlib brings.

    Only its font file is used: its code does not run on Python 3.12.
    """
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    for family in FAMILIES:
        if family in installed:
            return family
    spec = find_spec("koreanize_matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "fonts" / "NanumGothic.ttf"
        if path.is_file():
            font_manager.fontManager.addfont(path)
            return "NanumGothic"
    if required:
        raise RunError("html.no_korean_font")
    return None


def _draw(axes: Axes, chart: str, runs: Sequence[RunView], names: Sequence[str], *, log: bool, smoothed: bool) -> None:
    told = [(number, curve) for number, run in enumerate(runs) for curve in curves(run.columns, chart)]
    finite = [curve.values[np.isfinite(curve.values)] for _, curve in told]
    seen = np.concatenate([*finite, np.empty(0)])
    log = log and bool((seen > 0).any())
    top = float("inf") if log or not len(seen) else top_of(seen)
    labelled: set[int] = set()
    marks: dict[str, list[tuple[float, int]]] = {}
    for number, curve in told:
        name = names[number] if number not in labelled and len(runs) > 1 else None
        labelled.add(number)
        _draw_curve(axes, curve, COLOURS[number % len(COLOURS)], name, smoothed=smoothed, log=log)
        _collect(marks, curve, number, top, log=log)
    if chart in ("loss", "loss_scale"):
        for number, run in enumerate(runs):
            marks.setdefault("skipped", []).extend((run.columns.steps[each], number) for each in run.columns.skipped)
    if log:
        axes.set_yscale("log")
        # Plain numbers: the exponents of mathematics need a sign that Korean fonts lack.
        axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, place: "")
    elif len(seen) and top < float(seen.max()):
        low = float(seen.min())
        axes.set_ylim(low - 0.06 * (top - low), top + 0.06 * (top - low))
    _draw_marks(axes, marks)
    _draw_findings(axes, runs)
    axes.grid(visible=True, color="#e4e1db", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=9)


def _draw_curve(axes: Axes, curve: Curve, colour: str, name: str | None, *, smoothed: bool, log: bool) -> None:
    window = usual_window(len(curve.values)) if smoothed and curve.role == "raw" else 1
    style: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.1,
        "label": name,
        "marker": "o" if len(curve.values) <= 60 else None,
    }
    if curve.role == "window":
        axes.step(*_line(curve, curve.values, log=log), where="pre", markersize=3, **style)
        return
    if window > 1:
        axes.plot(*_line(curve, curve.values, log=log), color=colour, linewidth=0.5, alpha=0.35)
        style["linewidth"] = 1.6
    values = smooth(curve.values, window) if window > 1 else curve.values
    axes.plot(*_line(curve, values, log=log), markersize=3, **style)


def _line(curve: Curve, values: Any, *, log: bool) -> tuple[Any, Any]:
    """The thinned-out line; NaN breaks it where something was not finite, or cannot be on a logarithmic axis."""
    if not len(values):
        return curve.steps, values
    chosen = keep(curve.steps, values, curve.steps[0], curve.steps[-1] + 1, COLUMNS)
    shown = np.where(np.isfinite(values[chosen]) & ((values[chosen] > 0) | (not log)), values[chosen], np.nan)
    return curve.steps[chosen], shown


def _collect(marks: dict[str, list[tuple[float, int]]], curve: Curve, number: int, top: float, *, log: bool) -> None:
    values = curve.values
    kinds = {"nan": np.isnan(values), "plus": (values == np.inf) | (values > top), "minus": values == -np.inf}
    if log:
        kinds["zero"] = values == 0
        kinds["minus"] = values < 0
    for kind, where in kinds.items():
        marks.setdefault(kind, []).extend((step, number) for step in curve.steps[where])


def _draw_marks(axes: Axes, marks: dict[str, list[tuple[float, int]]]) -> None:
    for kind, places in marks.items():
        sign, height = MARKS[kind]
        colours = [COLOURS[number % len(COLOURS)] for _, number in places]
        hollow = {"facecolors": "none", "edgecolors": colours} if kind == "zero" else {"c": colours}
        transform = axes.get_xaxis_transform()
        steps = [step for step, _ in places]
        axes.scatter(steps, [height] * len(steps), s=24, marker=sign, transform=transform, linewidths=1, **hollow)


def _draw_findings(axes: Axes, runs: Sequence[RunView]) -> None:
    for run in runs:
        for finding in run.diagnosed.diagnosis.causes:
            axes.axvline(finding.first_step, color=SEVERITIES.get(finding.severity, "#555555"), ls="--", lw=1)
