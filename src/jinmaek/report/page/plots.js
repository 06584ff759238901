"use strict";
// Draws the charts with Plotly: one function from the state of the page to the traces and layout of a chart.

const Plots = {};

Plots.PALETTE = {
  light: ["#2458c5", "#c8501a", "#1f8a4c", "#8a3fb0", "#c2185b", "#00798a", "#8a6a00", "#5b6b78", "#7a4a33", "#5f8a17"],
  dark: ["#7aa7ff", "#ff9a5c", "#5fd18e", "#cf93f0", "#ff7fb0", "#4fd0e0", "#e0bd4c", "#a9b8c4", "#d3a288", "#abd45f"],
};
Plots.DASHES = ["solid", "dash", "dot"];
Plots.MARGIN = { l: 64, r: 14, t: 20, b: 40 };
Plots.FEW = 60; // points that get a dot each
Plots.MARK_PIXELS = 7; // marks of one kind nearer than this are one
Plots.MARKS = {
  nan: { symbol: "x", y: 0.03, size: 7 },
  plus: { symbol: "triangle-up", y: 0.97, size: 9 },
  clipped: { symbol: "triangle-up-open", y: 0.97, size: 8 },
  minus: { symbol: "triangle-down", y: 0.03, size: 9 },
  zero: { symbol: "circle-open", y: 0.03, size: 7 },
  skipped: { symbol: "line-ns-open", y: 0.09, size: 9 },
};

Plots.colour = (number, theme) => Plots.PALETTE[theme][number % Plots.PALETTE[theme].length];
Plots.dash = (number) => Plots.DASHES[Math.floor(number / Plots.PALETTE.light.length) % Plots.DASHES.length];

// The series of a run that a chart shows: what they are drawn as, where they lie, and their values.
Plots.seriesOf = function (run, chart, kind) {
  if (chart.id === "held_out") {
    if (!run.evalSteps.length) return [];
    const places = Array.from(run.evalSteps, (step) => Data.xOf(run, kind, step));
    if (places.includes(null)) return [];
    return [{ role: "points", x: Float64Array.from(places), values: run.evalLosses, dense: false }];
  }
  const axis = Data.axis(run, kind);
  if (!axis) return [];
  const named = chart.id === "speed" ? [["raw", Data.speed(run)]]
    : chart.id === "loss" ? [["window", run.series.loss_reported], ["raw", run.series.loss]]
      : [["raw", run.series[chart.id]]];
  return named.filter(([, series]) => series).map(([role, series]) => ({
    role, series, x: Data.placesOf(axis, series), values: series.values,
    dense: series.values.length > run.length / 2,
  }));
};

// x and y of the kept values with a gap (null) wherever something between them is not finite or not recorded; and
// the marks of what cannot be drawn on the line.
Plots.line = function (one, kept, top, log) {
  const x = [], y = [], marks = [];
  let before = -1;
  for (const i of kept) {
    const value = one.values[i];
    const odd = Number.isNaN(value) ? "nan" : value === Infinity ? "plus" : value === -Infinity ? "minus"
      : log && value === 0 ? "zero" : log && value < 0 ? "minus" : null;
    const index = one.series && one.series.index;
    if (before >= 0 && one.dense && index && index[i] - index[before] > i - before) { x.push(one.x[i]); y.push(null); }
    before = i;
    if (odd) { marks.push([odd, one.x[i]]); x.push(one.x[i]); y.push(null); continue; }
    if (value > top) marks.push(["clipped", one.x[i]]);
    x.push(one.x[i]);
    y.push(value);
  }
  return { x, y, marks };
};

// Sizes of the dots that make values visible which have no neighbour to be joined with; null where there are none.
Plots.lonely = function (y) {
  const sizes = y.map((value, i) => (value !== null && (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null ? 4 : 0));
  return sizes.some((size) => size) ? sizes : null;
};

// One mark where several of a kind would lie upon each other.
Plots.thinMarks = function (marks, x0, x1, width) {
  const seen = new Set(), kept = [];
  const scale = width / (x1 - x0) / Plots.MARK_PIXELS;
  for (const [kind, x] of marks) {
    if (x < x0 || x > x1) continue;
    const key = kind + Math.floor((x - x0) * scale);
    if (!seen.has(key)) { seen.add(key); kept.push([kind, x]); }
  }
  return kept;
};

Plots.range = function (values, log, full) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (log && value <= 0) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return { range: log ? [-1, 1] : [0, 1], top: Infinity };
  if (log) {
    low = Math.log10(low); high = Math.log10(high);
    const pad = Math.max(0.06 * (high - low), 0.05);
    return { range: [low - pad, high + pad], top: Infinity };
  }
  const top = full ? high : Data.top(values);
  const pad = 0.06 * (top - low) || Math.abs(top) * 0.1 || 1;
  return { range: [low - pad, top + pad], top: top < high ? top : Infinity };
};

// Everything Plotly needs for `chart`. `state`: runs, shown (booleans), kind, range, window, log, full, theme, ink.
Plots.figure = function (chart, state, width) {
  const [x0, x1] = state.range, columns = Math.max(50, Math.floor(width));
  const log = state.log[chart.id], full = state.full[chart.id];
  const lines = [], inView = [];
  state.runs.forEach((run, number) => {
    if (!state.shown[number]) return;
    for (const one of Plots.seriesOf(run, chart, state.kind)) {
      const kept = Data.keep(one.x, one.values, x0, x1, columns);
      for (const i of kept) {
        // Of points far apart the neighbours count as well: the line between them goes through the picture.
        const inside = one.role === "points" || (one.x[i] >= x0 && one.x[i] <= x1);
        if (inside && Number.isFinite(one.values[i])) inView.push(one.values[i]);
      }
      lines.push({ number, one, kept });
    }
  });
  const { range, top } = Plots.range(inView, log, full);
  const traces = [];
  for (const { number, one, kept } of lines) {
    const colour = Plots.colour(number, state.theme), dash = Plots.dash(number);
    const { x, y, marks } = Plots.line(one, kept, top, log);
    const smooth = chart.smooth && one.role === "raw" && state.window > 1 && one.values.length > 2 * state.window;
    if (one.role === "window" && kept[0] === 0 && state.kind === "step" && one.x.length) { // a window reaches back
      x.unshift(one.x[0] - state.runs[number].firstWindow);
      y.unshift(y[0]);
    }
    const few = kept.length <= Plots.FEW;
    const dots = few || one.role === "points", lonely = dots ? null : Plots.lonely(y);
    traces.push({
      x, y, type: "scatter", hoverinfo: "skip", opacity: smooth ? 0.32 : 1, mode: dots || lonely ? "lines+markers" : "lines",
      marker: { color: colour, size: lonely || (one.values.length === 1 ? 9 : 5), line: { width: 0 } },
      line: { color: colour, dash, width: smooth ? 1 : 1.5, shape: one.role === "window" ? "vh" : "linear", simplify: false },
      connectgaps: false,
    });
    if (smooth) traces.push(Plots.smoothTrace(one, state, x0, x1, columns, log, colour, dash));
    if (one.role !== "window" && chart.id === "loss" || chart.id === "loss_scale") marks.push(...Plots.skipped(state, number));
    traces.push(Plots.markTrace(Plots.thinMarks(marks, x0, x1, width), colour));
  }
  if (chart.id === "loss_scale") {
    state.runs.forEach((run, number) => {
      if (!state.shown[number] || run.series.loss_scale) return;
      const marks = Plots.thinMarks(Plots.skipped(state, number), x0, x1, width);
      traces.push(Plots.markTrace(marks, Plots.colour(number, state.theme)));
    });
  }
  return { traces, layout: Plots.layout(chart, state, range, log) };
};

Plots.skipped = function (state, number) {
  const run = state.runs[number], axis = Data.axis(run, state.kind);
  return axis ? Array.from(run.skipped, (record) => ["skipped", axis[record]]) : [];
};

Plots.smoothed = new WeakMap(); // values -> [window, smoothed values]
Plots.smoothTrace = function (one, state, x0, x1, columns, log, colour, dash) {
  let known = Plots.smoothed.get(one.values);
  if (!known || known[0] !== state.window) {
    known = [state.window, Data.smooth(one.values, state.window)];
    Plots.smoothed.set(one.values, known);
  }
  const soft = { ...one, values: known[1] };
  const { x, y } = Plots.line(soft, Data.keep(one.x, known[1], x0, x1, columns), Infinity, log);
  return { x, y, type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: colour, dash, width: 2.2, simplify: false } };
};

Plots.markTrace = function (marks, colour) {
  const of = (name) => marks.map(([kind]) => Plots.MARKS[kind][name]);
  return {
    x: marks.map(([, x]) => x), y: of("y"), yaxis: "y2", type: "scatter", mode: "markers", hoverinfo: "skip",
    cliponaxis: false, marker: { symbol: of("symbol"), size: of("size"), color: colour, line: { color: colour, width: 1.6 } },
  };
};

Plots.layout = function (chart, state, range, log) {
  const ink = state.ink;
  const axis = { gridcolor: ink.grid, zeroline: false, linecolor: ink.axis, ticks: "outside", tickcolor: ink.axis, fixedrange: true };
  return {
    margin: Plots.MARGIN, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { color: ink.text, family: ink.font, size: 12 }, hovermode: false, autosize: true,
    dragmode: state.coarse ? false : "zoom", selectdirection: "h",
    xaxis: {
      ...axis, fixedrange: state.coarse, range: state.range.slice(), title: { text: state.xTitle, font: { size: 11 }, standoff: 6 },
      ...state.xTicks(state.range),
    },
    yaxis: { ...axis, type: log ? "log" : "linear", range, automargin: false, ...Plots.yTicks(range, log, chart.id === "memory_bytes") },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
    ...Plots.findings(state),
  };
};

// On a log axis: decades where there are several, else 1, 2, 5, else whatever fits.
Plots.yTicks = function ([low, high], log, bytes) {
  const [least, most] = log ? [10 ** low, 10 ** high] : [Math.max(Math.abs(low), Math.abs(high)), Math.max(Math.abs(low), Math.abs(high))];
  if (bytes) return { nticks: 6, exponentformat: "SI", ticksuffix: "B" };
  const exponentformat = least >= 1e-3 && most < 1e7 ? "none" : "e", decades = high - low;
  if (!log || decades < 0.7) return { nticks: 6, exponentformat };
  return { dtick: decades < 2 ? "D2" : Math.ceil(decades / 6), exponentformat };
};

// Where the findings begin and how far they reach, with their numbers on top.
Plots.findings = function (state) {
  const shapes = [], annotations = [];
  for (const finding of state.findings) {
    if (!state.shown[finding.run]) continue;
    const run = state.runs[finding.run];
    const from = Data.xOf(run, state.kind, finding.first), to = Data.xOf(run, state.kind, finding.last);
    if (from === null || to < state.range[0] || from > state.range[1]) continue;
    const colour = state.ink[finding.severity];
    if (finding.severity === "error") shapes.push({ type: "rect", x0: from, x1: to, yref: "paper", y0: 0, y1: 1, fillcolor: colour, opacity: 0.08, line: { width: 0 }, layer: "below" });
    shapes.push({ type: "line", x0: from, x1: from, yref: "paper", y0: 0, y1: 1, line: { color: colour, width: 1.4, dash: "dash" } });
    if (from >= state.range[0]) annotations.push({
      x: from, yref: "paper", y: 1, yanchor: "bottom", text: String(finding.number), showarrow: false, captureevents: true,
      font: { color: state.ink.paper, size: 11 }, bgcolor: colour, borderpad: 2, name: String(finding.number),
    });
  }
  state.runs.forEach((run, number) => {
    if (!state.shown[number]) return;
    for (const step of run.resumed) {
      const x = Data.xOf(run, state.kind, step);
      if (x !== null && x > 0) shapes.push({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: state.ink.axis, width: 1, dash: "dot" } });
    }
  });
  return { shapes, annotations: Plots.spread(annotations, state) };
};

// Numbers that would lie upon each other stand beside each other.
Plots.spread = function (annotations, state) {
  annotations.sort((one, other) => one.x - other.x);
  const apart = (state.range[1] - state.range[0]) / 40;
  let row = 0;
  annotations.forEach((note, i) => {
    row = i && note.x - annotations[i - 1].x < apart ? row + 1 : 0;
    note.xshift = row * 15;
  });
  return annotations;
};

Plots.UNITS = [[180, 1, "s"], [10800, 60, "min"], [Infinity, 3600, "h"]];

// Ticks for time: whole numbers of the unit that fits the stretch.
Plots.timeTicks = function ([x0, x1], words) {
  const [, size, unit] = Plots.UNITS.find(([limit]) => x1 - x0 <= limit);
  const rough = (x1 - x0) / size / 6, power = 10 ** Math.floor(Math.log10(rough || 1));
  const stride = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) || power;
  const tickvals = [], ticktext = [];
  for (let tick = Math.ceil(x0 / size / stride) * stride; tick * size <= x1 && tickvals.length < 50; tick += stride) {
    tickvals.push(tick * size);
    ticktext.push(`${Number(tick.toPrecision(8))} ${words[unit]}`);
  }
  return { tickmode: "array", tickvals, ticktext };
};

if (typeof module !== "undefined") module.exports = Plots;
