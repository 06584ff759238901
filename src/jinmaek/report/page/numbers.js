"use strict";
// The numbers of the runs: unpacking what embed.py packed, the three x axes, and thinning out for the eye.
// Nothing here touches the page, so that node can test it (tests/test_page_data.py).

const Data = {};

Data.TYPES = { f4: Float32Array, f8: Float64Array, u4: Uint32Array };

Data.bytes = function (text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
};

Data.inflate = async function (text) {
  const stream = new Blob([Data.bytes(text.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// One column; its bytes lie transposed: all first bytes, then all second bytes …
Data.column = function (block, place) {
  const type = Data.TYPES[place.type], size = type.BYTES_PER_ELEMENT, length = place.length;
  const bytes = new Uint8Array(length * size);
  for (let plane = 0; plane < size; plane++) {
    const from = place.at + plane * length;
    for (let i = 0; i < length; i++) bytes[i * size + plane] = block[from + i];
  }
  return new type(bytes.buffer);
};

Data.run = function (layout, block) {
  const length = layout.num_records;
  let steps;
  if ("stride" in layout.steps) {
    steps = new Float64Array(length);
    for (let i = 0; i < length; i++) steps[i] = layout.steps.start + i * layout.steps.stride;
  } else steps = Data.column(block, layout.steps);
  const series = {};
  for (const [name, packed] of Object.entries(layout.series)) {
    series[name] = {
      values: Data.column(block, packed.values),
      index: packed.index ? Data.column(block, packed.index) : null,
    };
  }
  return {
    length, steps, series, judged: layout.judged, resumed: layout.resumed, firstWindow: layout.first_window,
    skipped: Data.column(block, layout.skipped),
    evalSteps: Data.column(block, layout.eval_steps), evalLosses: Data.column(block, layout.eval_losses),
    axes: {},
  };
};

// First place in rising `array` whose value is not below `value`.
Data.lowerBound = function (array, value) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
};

Data.SUMMED = { tokens: "num_tokens", time: "seconds" };

// x of every record: its step, or what was summed up to its end; null where the run does not record it.
Data.axis = function (run, kind) {
  if (kind === "step") return run.steps;
  if (kind in run.axes) return run.axes[kind];
  const series = run.series[Data.SUMMED[kind]];
  let axis = null;
  if (series) {
    axis = new Float64Array(run.length);
    series.values.forEach((value, i) => {
      axis[series.index ? series.index[i] : i] = Number.isFinite(value) ? value : 0;
    });
    for (let i = 1; i < run.length; i++) axis[i] += axis[i - 1];
  }
  run.axes[kind] = axis;
  return axis;
};

// x of the moment after `step`; null where this run has no such axis.
Data.xOf = function (run, kind, step) {
  if (kind === "step") return step;
  const axis = Data.axis(run, kind);
  if (!axis) return null;
  const place = Data.lowerBound(run.steps, step + 0.5) - 1;
  return place < 0 ? 0 : axis[place];
};

Data.stepAt = function (run, kind, x) {
  const axis = Data.axis(run, kind);
  if (!axis || !run.length || kind === "step") return x;
  return run.steps[Math.min(Data.lowerBound(axis, x), run.length - 1)];
};

// x of every value of a series.
Data.placesOf = function (axis, series) {
  if (!series.index) return axis;
  return Float64Array.from(series.index, (record) => axis[record]);
};

// Tokens per second of each record that has both; the quotient of two series.
Data.speed = function (run) {
  const tokens = run.series.num_tokens, seconds = run.series.seconds;
  if (!tokens || !seconds) return null;
  const took = new Float64Array(run.length).fill(-1);
  seconds.values.forEach((value, i) => { took[seconds.index ? seconds.index[i] : i] = value; });
  const index = [], values = [];
  tokens.values.forEach((value, i) => {
    const record = tokens.index ? tokens.index[i] : i;
    if (took[record] > 0) { index.push(record); values.push(value / took[record]); }
  });
  return { values: Float64Array.from(values), index: index.length === run.length ? null : Uint32Array.from(index) };
};

// Exponential moving average over about `window` values, free of the pull towards its start. What is not finite
// joins no average and stays what it is.
Data.smooth = function (values, window) {
  const keep = 1 - 1 / window, out = new Float64Array(values.length);
  let sum = 0, weight = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (!Number.isFinite(value)) { out[i] = value; continue; }
    sum = keep * sum + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    out[i] = sum / weight;
  }
  return out;
};

// Which of the values between x0 and x1 to draw on `columns` pixels: all of them where they are few; else of each
// column the first, the last, the lowest and the highest (M4: Jugel et al., VLDB 2014, which draws the same line
// to the pixel), and the first NaN, infinity and minus infinity, so that none of them ever vanishes. One value
// beyond each edge is kept: the line goes on. decimate.py is the same in Python.
Data.keep = function (x, values, x0, x1, columns) {
  const from = Math.max(0, Data.lowerBound(x, x0) - 1);
  let to = Data.lowerBound(x, x1);
  while (to < x.length && x[to] === x1) to++;
  to = Math.min(x.length, to + 1);
  const kept = [];
  if (to - from <= 4 * columns) {
    for (let i = from; i < to; i++) kept.push(i);
    return kept;
  }
  const scale = columns / (x1 - x0);
  let place = from;
  while (place < to) {
    const column = Math.floor((x[place] - x0) * scale);
    let first = -1, last = -1, low = -1, high = -1, nan = -1, plus = -1, minus = -1;
    for (; place < to && Math.floor((x[place] - x0) * scale) === column; place++) {
      const value = values[place];
      if (Number.isNaN(value)) { if (nan < 0) nan = place; continue; }
      if (value === Infinity) { if (plus < 0) plus = place; continue; }
      if (value === -Infinity) { if (minus < 0) minus = place; continue; }
      if (first < 0) first = low = high = place;
      last = place;
      if (value < values[low]) low = place;
      if (value > values[high]) high = place;
    }
    const chosen = [first, last, low, high, nan, plus, minus].filter((one) => one >= 0).sort((a, b) => a - b);
    chosen.forEach((one, i) => { if (!i || one !== chosen[i - 1]) kept.push(one); });
  }
  return kept;
};

// The highest value that an axis makes room for: eight times the median, as on the terminal. One loss of 1e5 must
// not flatten the rest; what lies above is marked at the edge.
Data.OUTLIER = 8;
Data.top = function (values) {
  const sizes = values.filter((value) => value !== 0).map(Math.abs).sort((a, b) => a - b);
  if (!sizes.length) return values.length ? Math.max(...values.slice(0, 1)) : 1;
  const limit = Data.OUTLIER * sizes[sizes.length >> 1];
  let highest = -Infinity;
  for (const value of values) if (value <= limit && value > highest) highest = value;
  return highest;
};

Data.format = function (value) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return value.toLocaleString("en-US");
  if (size >= 1e6 || size < 1e-3) return value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(value.toPrecision(size >= 1000 ? 6 : 5)));
};

// New records behind the old ones: what a followed run has grown by.
Data.extend = function (run, more) {
  const first = run.length;
  const join = (type, one, two) => { const out = new type(one.length + two.length); out.set(one); out.set(two, one.length); return out; };
  const places = (series, length, shift) => series.index ? series.index.map((i) => i + shift)
    : Uint32Array.from({ length }, (_, i) => i + shift);
  run.steps = join(Float64Array, run.steps, more.steps);
  for (const [name, added] of Object.entries(more.series)) {
    const old = run.series[name] || { values: new Float32Array(0), index: first ? new Uint32Array(0) : null };
    const whole = !old.index && !added.index && old.values.length === first;
    run.series[name] = {
      values: join(Float64Array, old.values, added.values),
      index: whole ? null : join(Uint32Array, places(old, old.values.length, 0), places(added, added.values.length, first)),
    };
  }
  for (const [name, old] of Object.entries(run.series)) {
    if (!(name in more.series) && !old.index && more.length) old.index = places(old, old.values.length, 0);
  }
  run.skipped = join(Uint32Array, run.skipped, more.skipped.map((i) => i + first));
  run.evalSteps = more.evalSteps;
  run.evalLosses = more.evalLosses;
  run.resumed = more.resumed;
  run.judged = run.judged || more.judged;
  run.length += more.length;
  run.axes = {};
  return run;
};

if (typeof module !== "undefined") module.exports = Data;
