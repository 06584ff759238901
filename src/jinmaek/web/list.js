"use strict";
// The list of runs: choose some to compare, start a proof and see how it goes.

const page = JSON.parse(document.querySelector("#page-data").textContent);
const root = document.documentElement;
const word = (name) => page.words[name][root.lang];

const memory = {
  get(name) { try { return localStorage.getItem("jinmaek." + name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem("jinmaek." + name, value); } catch { /* then not */ } },
};
root.lang = memory.get("lang") || root.lang;
root.dataset.theme = memory.get("theme") || "";
document.querySelector("#lang").addEventListener("click", () => {
  root.lang = root.lang === "ko" ? "en" : "ko";
  memory.set("lang", root.lang);
});
document.querySelector("#theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  memory.set("theme", root.dataset.theme);
});

const boxes = Array.from(document.querySelectorAll("input[name=run]"));
function count() {
  const compare = document.querySelector("#compare");
  if (compare) compare.disabled = !boxes.some((box) => box.checked);
}
boxes.forEach((box) => box.addEventListener("change", count));
count();

async function prove(button) {
  const row = button.closest("tr").nextElementSibling;
  const address = `/prove?run=${encodeURIComponent(button.dataset.prove)}&lang=${root.lang}`;
  const tell = (text) => { row.hidden = false; row.querySelector("pre").textContent = text; };
  button.disabled = true;
  try {
    const started = await fetch(address, { method: "POST", headers: { "X-Jinmaek": "1" } });
    if (started.status === 409) { tell(word("busy")); button.disabled = false; return; }
    for (;;) {
      const told = await (await fetch(address)).json();
      if (told.code !== null) { // 0 the step is healthy, 1 a cause is shown, 3 undecided
        tell((told.code in { 0: 1, 1: 1, 3: 1 } ? word("proved") : word("proof_failed")) + "\n" + told.output);
        break;
      }
      tell(word("proving") + "\n" + told.output.split("\n").slice(-4).join("\n"));
      await new Promise((wait) => setTimeout(wait, 1000));
    }
  } catch { tell(word("failed")); }
  button.disabled = false;
}
document.querySelectorAll("[data-prove]").forEach((button) => button.addEventListener("click", () => prove(button)));
root.dataset.ready = "yes";
