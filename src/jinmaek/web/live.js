"use strict";
// Joined to the report's own scripts by `jinmaek web`: lets its curves grow while the runs go on.

const Live = { TELL_EVERY: 30000, told: performance.now() };

Live.start = function () {
  const link = document.createElement("a");
  link.href = "/";
  link.textContent = "← " + word("all_runs");
  $(".brand").append(" · ", link);
  const query = page.live.map((id) => "run=" + encodeURIComponent(id)).join("&");
  const records = state.runs.map((run) => run.length).join(",");
  const source = new EventSource(`/live?${query}&records=${records}`);
  source.addEventListener("grow", (event) => Live.queue(() => Live.grow(JSON.parse(event.data))));
  source.addEventListener("news", () => Live.queue(Live.refresh));
  source.addEventListener("anew", () => location.reload());
  Live.source = source;
};

// One after the other: unpacking takes its time, and the order matters.
Live.last = Promise.resolve();
Live.queue = function (does) { Live.last = Live.last.then(does).catch((error) => console.error(error)); };

Live.grow = async function ({ parts }) {
  const before = state.runs.map((run) => Object.keys(run.series).length + (run.evalSteps.length > 0));
  for (const { run, layout, block } of parts) Data.extend(state.runs[run], Data.run(layout, await Data.inflate(block)));
  // A field that was never seen before may need a chart that is not on the page yet.
  if (state.runs.some((run, number) => Object.keys(run.series).length + (run.evalSteps.length > 0) > before[number]) && Live.lacksChart()) {
    location.reload();
    return;
  }
  if (state.whole) state.range = wholeRange();
  redraw();
  if (performance.now() - Live.told > Live.TELL_EVERY) await Live.refresh(); // the figures above the curves
};

Live.lacksChart = function () {
  return state.runs.some((run) => ["grad_norm", "lr", "loss_scale", "update_ratio", "memory_bytes", "token_accuracy"].some((name) => run.series[name] && !charts.has(name))
    || (run.evalSteps.length && !charts.has("held_out")) || (run.series.loss && !charts.has("loss")));
};

// A finding, a verdict or the end: the words are taken from the page as it is now, the curves stay.
Live.refresh = async function () {
  Live.told = performance.now();
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of [".heads", "aside", "#verdicts"]) {
    const now = $(part), then = fresh.querySelector(part);
    if (now && then) now.replaceWith(document.adoptNode(then));
    else if (then) { location.reload(); return; }
  }
  state.findings = JSON.parse(fresh.querySelector("#page-data").textContent).findings;
  $$("[data-finding]").forEach((button) => button.addEventListener("click", () => showFinding(Number(button.dataset.finding), true)));
  readTheme();
  redraw();
};
