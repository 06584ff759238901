"use strict";
// The controls of the page: one state, one redraw; every chart shows the same stretch and the same moment.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const page = JSON.parse($("#page-data").textContent);
const root = document.documentElement;
const charts = new Map(page.charts.map((chart) => [chart.id, { ...chart, drawn: false, dirty: true, visible: false }]));
const state = {
  runs: [], shown: page.runs.map(() => true), kind: "step", range: [0, 1], whole: true, window: 1, log: {}, full: {},
  findings: page.findings, cursor: null, theme: "light", ink: {}, coarse: matchMedia("(pointer: coarse)").matches,
  xTitle: "", xTicks: () => ({}),
};
for (const chart of page.charts) state.log[chart.id] = chart.log;

const lang = () => root.lang;
const word = (name) => page.words[name][lang()];

const memory = { // what a reader chose last time; some browsers forbid this to a file
  get(name) { try { return localStorage.getItem("jinmaek." + name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem("jinmaek." + name, value); } catch { /* then not */ } },
};

function readTheme() {
  const chosen = root.dataset.theme;
  state.theme = chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const style = getComputedStyle(root);
  const ink = (name) => style.getPropertyValue("--" + name).trim();
  state.ink = {
    text: ink("text"), grid: ink("grid"), axis: ink("axis"), paper: ink("paper"), error: ink("error"), warning: ink("warning"),
    note: ink("note"), font: getComputedStyle(document.body).fontFamily,
  };
  $$(".chip").forEach((chip) => { chip.style.background = Plots.colour(Number(chip.dataset.run), state.theme); });
}

function wholeRange() {
  let low = Infinity, high = -Infinity;
  state.runs.forEach((run, number) => {
    const axis = Data.axis(run, state.kind);
    if (!state.shown[number] || !axis) return;
    const seen = [];
    if (axis.length) seen.push(axis[0], axis[axis.length - 1]);
    for (const step of run.evalSteps) seen.push(Data.xOf(run, state.kind, step));
    for (const x of seen) if (x !== null) { low = Math.min(low, x); high = Math.max(high, x); }
  });
  if (low > high) return [0, 1];
  const pad = (high - low) * 0.012 || Math.max(Math.abs(high) * 0.5, 1);
  return [low - pad, high + pad];
}

function setRange(range, whole = false) {
  const limits = wholeRange();
  if (range[1] - range[0] >= limits[1] - limits[0]) { range = limits; whole = true; }
  state.range = range;
  state.whole = whole;
  redraw();
}

function zoom(factor, shift = 0) {
  const [x0, x1] = state.range, size = x1 - x0;
  const middle = state.cursor !== null && state.cursor > x0 && state.cursor < x1 && factor !== 1 ? state.cursor : (x0 + x1) / 2;
  const limits = wholeRange();
  let from = middle - (middle - x0) * factor + shift * size, to = middle + (x1 - middle) * factor + shift * size;
  if (from < limits[0]) { to += limits[0] - from; from = limits[0]; }
  if (to > limits[1]) { from -= to - limits[1]; to = limits[1]; }
  setRange([Math.max(from, limits[0]), to]);
}

function redraw() {
  state.xTitle = word("x_" + state.kind);
  state.xTicks = state.kind === "time" ? (range) => Plots.timeTicks(range, page.units[lang()]) : () => ({ exponentformat: "SI", tickmode: "auto", nticks: 8 });
  for (const chart of charts.values()) { chart.dirty = true; if (chart.visible) draw(chart); }
  $("#whole").disabled = state.whole;
}

function draw(chart) {
  const holder = $("#chart-" + chart.id + " .plot");
  const { traces, layout } = Plots.figure(chart, state, holder.clientWidth - Plots.MARGIN.l - Plots.MARGIN.r);
  const config = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false, showTips: false };
  (chart.drawn ? Plotly.react : Plotly.newPlot)(holder, traces, layout, config);
  if (!chart.drawn) {
    holder.on("plotly_relayout", (change) => {
      if ("xaxis.range[0]" in change) setRange([change["xaxis.range[0]"], change["xaxis.range[1]"]]);
    });
    holder.on("plotly_doubleclick", () => setRange(wholeRange(), true));
    holder.on("plotly_clickannotation", (event) => showFinding(Number(event.annotation.name), false));
  }
  chart.drawn = true;
  chart.dirty = false;
  $("#chart-" + chart.id).dataset.state = "drawn";
}

// ---- the cursor: the same moment in every chart, with exact values

function moveCursor(x) {
  state.cursor = x;
  const share = x === null ? -1 : (x - state.range[0]) / (state.range[1] - state.range[0]);
  for (const chart of charts.values()) {
    if (!chart.drawn) continue;
    const card = $("#chart-" + chart.id), line = $(".cursor", card), readout = $(".readout", card);
    const inside = share >= 0 && share <= 1;
    line.hidden = readout.hidden = !inside;
    if (!inside) continue;
    const width = $(".plot", card).clientWidth - Plots.MARGIN.l - Plots.MARGIN.r;
    line.style.left = Plots.MARGIN.l + share * width + "px";
    readout.classList.toggle("left", share > 0.5);
    if (chart.visible) fillReadout(chart, readout, x);
  }
}

function fillReadout(chart, readout, x) {
  const rows = [];
  state.runs.forEach((run, number) => {
    if (!state.shown[number]) return;
    for (const one of Plots.seriesOf(run, chart, state.kind)) {
      if (!one.x.length) continue;
      let place = Data.lowerBound(one.x, x);
      if (place >= one.x.length || (place && x - one.x[place - 1] < one.x[place] - x)) place--;
      const record = one.series ? (one.series.index ? one.series.index[place] : place) : -1;
      const step = record < 0 ? run.evalSteps[place] : run.steps[record];
      rows.push([number, step, Data.format(one.values[place])]);
    }
  });
  readout.replaceChildren(...rows.slice(0, 12).map(([number, step, value]) => {
    const row = document.createElement("div"), chip = document.createElement("i");
    chip.style.background = Plots.colour(number, state.theme);
    row.append(chip, ` ${step.toLocaleString("en-US")}: `, Object.assign(document.createElement("b"), { textContent: value }));
    return row;
  }));
}

function stepCursor(direction) {
  const run = state.runs[state.shown.indexOf(true)];
  const axis = run && Data.axis(run, state.kind);
  if (!axis || !axis.length) return;
  let place = state.cursor === null ? Data.lowerBound(axis, state.range[0]) : Data.lowerBound(axis, state.cursor);
  if (state.cursor !== null) place += axis[place] === state.cursor || direction < 0 ? direction : 0;
  moveCursor(axis[Math.min(Math.max(place, 0), axis.length - 1)]);
}

// ---- findings

function showFinding(number, scroll) {
  const finding = state.findings.find((one) => one.number === number);
  const run = state.runs[finding.run];
  if (!state.shown[finding.run]) toggleRun(finding.run);
  const span = Math.max(finding.last - finding.first, 0), spacing = run.length > 1 ? (run.steps[run.length - 1] - run.steps[0]) / (run.length - 1) : 1;
  const room = Math.max(25 * spacing, Math.min(span * 0.2, 400 * spacing));
  const ends = [finding.first - room, Math.min(finding.last, finding.first + 4 * room) + room].map((step) => Data.xOf(run, state.kind, step));
  if (!ends.includes(null)) setRange([ends[0], Math.max(ends[1], ends[0] + 1e-9)]);
  moveCursor(Data.xOf(run, state.kind, finding.first));
  $$(".finding").forEach((card) => card.classList.toggle("chosen", Number(card.dataset.number) === number));
  const target = scroll ? $(".chart") : $(`.finding[data-number="${number}"]`);
  if (target) target.scrollIntoView({ block: scroll ? "start" : "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

// ---- controls

function toggleRun(number) {
  state.shown[number] = !state.shown[number];
  $(`.legend [data-run="${number}"]`).setAttribute("aria-pressed", state.shown[number]);
  if (state.whole) state.range = wholeRange();
  redraw();
}

function setKind(kind) {
  const run = state.runs.find((one, number) => state.shown[number] && Data.axis(one, kind) && Data.axis(one, state.kind));
  const steps = run && !state.whole ? state.range.map((x) => Data.stepAt(run, state.kind, x)) : null;
  state.kind = kind;
  const range = steps && steps.map((step) => Data.xOf(run, kind, step));
  if (range && range[1] > range[0]) state.range = range; else { state.range = wholeRange(); state.whole = true; }
  const lacking = page.runs.filter((one, number) => state.runs[number] && !Data.axis(state.runs[number], kind)).map((one) => one.label);
  $("#x-missing").textContent = lacking.length ? word("x_missing").replace("{runs}", lacking.join(", ")).replace("{missing}", word("missing_" + kind)) : "";
  moveCursor(null);
  redraw();
}

function setLang(chosen) {
  root.lang = chosen;
  document.title = page.title[chosen];
  $$("[data-label]").forEach((element) => { // texts that attributes hold
    const text = page.words[element.dataset.label][chosen];
    element.setAttribute("aria-label", text);
    element.title = text;
  });
  $$("option[data-word]").forEach((option) => { option.textContent = word(option.dataset.word); });
  for (const chart of charts.values()) $("#chart-" + chart.id + " .plot").setAttribute("aria-label", chart.title[chosen] + ". " + page.words.keys[chosen]);
}

function toggle(button, table, id) {
  table[id] = !table[id];
  button.setAttribute("aria-pressed", table[id]);
  draw(charts.get(id));
}

function onKey(event, chart) {
  const done = {
    ArrowLeft: () => stepCursor(event.shiftKey ? -10 : -1), ArrowRight: () => stepCursor(event.shiftKey ? 10 : 1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => setRange(wholeRange(), true),
    l: () => $(`#chart-${chart.id} .log`).click(), L: () => $(`#chart-${chart.id} .log`).click(), Escape: () => moveCursor(null),
  }[event.key];
  if (done && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); done(); }
}

function listen() {
  $("#lang").addEventListener("click", () => { setLang(lang() === "ko" ? "en" : "ko"); memory.set("lang", lang()); redraw(); });
  $("#theme").addEventListener("click", () => {
    root.dataset.theme = state.theme === "dark" ? "light" : "dark";
    memory.set("theme", root.dataset.theme);
    readTheme(); redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); redraw(); });
  $$('input[name="x"]').forEach((input) => input.addEventListener("change", () => setKind(input.value)));
  $("#smoothing").addEventListener("change", (event) => { state.window = Number(event.target.value); redraw(); });
  const buttons = { whole: () => setRange(wholeRange(), true), in: () => zoom(0.5), out: () => zoom(2), earlier: () => zoom(1, -0.3), later: () => zoom(1, 0.3) };
  for (const [id, does] of Object.entries(buttons)) $("#" + id).addEventListener("click", does);
  $$(".legend button").forEach((button) => button.addEventListener("click", () => toggleRun(Number(button.dataset.run))));
  $$("[data-finding]").forEach((button) => button.addEventListener("click", () => showFinding(Number(button.dataset.finding), true)));
  for (const chart of charts.values()) {
    const card = $("#chart-" + chart.id), plot = $(".plot", card);
    $(".log", card).addEventListener("click", (event) => toggle(event.currentTarget, state.log, chart.id));
    $(".full", card).addEventListener("click", (event) => toggle(event.currentTarget, state.full, chart.id));
    for (const format of ["png", "svg"]) $("." + format, card).addEventListener("click", () => save(chart, format));
    plot.addEventListener("keydown", (event) => onKey(event, chart));
    plot.addEventListener("pointermove", (event) => {
      const width = plot.clientWidth - Plots.MARGIN.l - Plots.MARGIN.r;
      const share = (event.clientX - plot.getBoundingClientRect().left - Plots.MARGIN.l) / width;
      moveCursor(share < 0 || share > 1 ? null : state.range[0] + share * (state.range[1] - state.range[0]));
    });
    plot.addEventListener("pointerleave", () => moveCursor(null));
  }
  let theme = "";
  addEventListener("beforeprint", () => { theme = root.dataset.theme; root.dataset.theme = "light"; drawAll(); });
  addEventListener("afterprint", () => { root.dataset.theme = theme; drawAll(); });
}

function save(chart, format) {
  const size = { png: { width: 1000, height: 420, scale: 2 }, svg: { width: 1000, height: 420 } }[format];
  Plotly.downloadImage($(`#chart-${chart.id} .plot`), { format, ...size, filename: "jinmaek-" + chart.id });
}

function drawAll() {
  readTheme();
  for (const chart of charts.values()) draw(chart);
}

function watchVisible() {
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.get(entry.target.dataset.chart);
      chart.visible = entry.isIntersecting;
      if (chart.visible && chart.dirty) draw(chart);
    }
    performance.mark("jinmaek-drawn"); // what is on the screen is drawn; bench/report_page.py reads the first of these
  }, { rootMargin: "200px" });
  $$(".chart").forEach((card) => watcher.observe(card));
}

function usualWindow() {
  const longest = Math.max(0, ...state.runs.map((run) => run.length));
  return [1, 10, 50, 200, 1000].filter((each) => each * 40 <= longest).pop() || 1;
}

async function start() {
  root.dataset.theme = memory.get("theme") || root.dataset.theme || "";
  setLang(memory.get("lang") || lang());
  if (typeof DecompressionStream === "undefined") { $("#old-browser").hidden = false; return; }
  const packed = [...page.runs.map((run, number) => $("#block-" + number)), ...$$("#plotly")];
  const blocks = await Promise.all(packed.map((element) => Data.inflate(element.textContent)));
  packed.forEach((element) => element.remove());
  if (charts.size) { // known to the page's policy by its hash; packed, it is three megabytes less
    const source = new TextDecoder().decode(blocks[page.runs.length]);
    document.head.append(Object.assign(document.createElement("script"), { textContent: source }));
  }
  state.runs = page.runs.map((run, number) => Data.run(run.layout, blocks[number]));
  state.window = usualWindow();
  $("#smoothing").value = String(state.window);
  readTheme();
  listen();
  state.range = wholeRange();
  redraw();
  watchVisible();
  root.dataset.ready = "yes";
  if (typeof Live !== "undefined") Live.start();
}

start();
