/** Sweeps: all of them, and one as a table and a heat map of its first two axes. */

import { pause, query, read } from "./api.js";
import { Chart } from "./charts.js";
import { empty, h, replace, select } from "./dom.js";
import { ago, number, percent, words } from "./format.js";
import { badge } from "./list.js";

const MEASURES = {
  test_accuracy: ["test accuracy", percent, false], final_loss: ["final loss", number, true],
  delta_ratio_initial: ["δ first ÷ last, at the first step", number, true], delta_ratio_mean: ["δ first ÷ last, over the run", number, true],
};

export async function mount(view, { match, signal }) {
  if (!match[1]) return all(view, signal);
  const state = { measure: "test_accuracy", path: `/sweeps/${match[1]}` };
  const chart = new Chart("Heat map", { all: true, choices: [select("Measure", Object.entries(MEASURES).map(([name, [text]]) => [name, text]), state.measure, (value) => { state.measure = value; draw(); })] });
  signal.addEventListener("abort", () => chart.remove());
  const head = h("div", { class: "heading" }), table = h("section", { class: "card", "aria-label": "Members" });
  const draw = () => { heading(head, state); members(table, state); heat(chart, state); };
  const load = async () => { [state.sweep, state.compared] = await Promise.all([read(state.path, signal), read(`${state.path}/comparison`, signal)]); };
  await load();
  document.title = `${state.sweep.name ?? "Sweep"} · Gradprobe`;
  replace(view, head, h("div", { class: "grid" }, chart.element), h("div", { class: "foot" }), table);
  draw();
  watch(state, load, draw, signal);
  return undefined;
}

async function all(view, signal) {
  document.title = "Sweeps · Gradprobe";
  const { items } = await read("/sweeps?limit=100", signal);
  const heading = h("div", { class: "heading" }, h("h1", {}, "Sweeps"));
  if (!items.length) return replace(view, heading, empty("No sweeps yet", "A sweep trains every combination of some values: POST /sweeps, or gradprobe sweep."));
  return replace(view, heading, h("section", { class: "card" }, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table of sweeps" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Sweep", "Axes", "Members", "Done", "Created"].map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, items.map((one) => h("tr", {}, h("td", { class: "wrap" }, h("a", { href: `#/sweeps/${one.id}` }, one.name ?? one.id)),
      h("td", {}, Object.keys(one.axes).map(axis).join(", ")), h("td", {}, number(one.size)), h("td", {}, number(one.counts.succeeded ?? 0)), h("td", {}, ago(one.created_at)))))))));
}

function axis(pointer) {
  return words(pointer.split("/").slice(2).join(" ") || pointer.slice(1));
}

function shown(value) {
  if (typeof value === "object" && value !== null) return words(value.name ?? JSON.stringify(value));
  return typeof value === "number" ? number(value) : words(value);
}

function heading(element, { sweep }) {
  const done = sweep.members.filter((one) => one.status === "succeeded").length;
  replace(element, h("div", {}, h("h1", {}, sweep.name ?? "Sweep"), h("div", { class: "crumb" }, h("span", {}, `${done} of ${sweep.members.length} done`), h("span", {}, ago(sweep.created_at)), h("code", {}, sweep.id))),
    h("a", { class: "button", href: query("#/compare", { ids: sweep.members.slice(0, 20).map((one) => one.experiment_id).join(",") }) }, sweep.members.length > 20 ? "Compare the first 20" : "Compare"));
}

/** Of a word; δ keeps its case, since Δ is something else. */
function capital(text) {
  return text.replace(/^[a-z]/, (letter) => letter.toUpperCase());
}

function members(element, { sweep, compared }) {
  const pointers = Object.keys(sweep.axes);
  const head = ["Run", ...pointers.map(axis), "Status", "Verdict", ...Object.values(MEASURES).map(([text]) => text)];
  // A member's name repeats the values in the columns beside it; on a phone it would take half of the table.
  const runs = new Map(sweep.members.map((one, index) => [one.experiment_id, { text: `run ${index + 1}`, name: one.name ?? one.experiment_id }]));
  replace(element, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table of members" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, capital(text))))),
    h("tbody", {}, compared.experiments.map((id, row) => h("tr", {}, h("td", {}, h("a", { href: `#/experiments/${id}`, title: runs.get(id)?.name }, runs.get(id)?.text ?? id)),
      pointers.map((pointer) => h("td", {}, shown(compared.axes[pointer][row]))), h("td", {}, h("span", { class: `dot ${compared.columns.status[row]}` }, compared.columns.status[row] === "succeeded" ? "done" : compared.columns.status[row])), h("td", {}, badge(compared.columns.verdict[row])),
      Object.entries(MEASURES).map(([name, [, text]]) => h("td", {}, text(compared.columns[name][row])))))))));
}

/** The first axis against the second; of several members with both alike, the mean of what is known. */
function heat(chart, { sweep, compared, measure }) {
  const [rows, columns] = Object.keys(sweep.axes);
  const [text, format, logarithmic] = MEASURES[measure];
  const labels = (pointer) => (pointer ? sweep.axes[pointer].map(shown) : [""]);
  const cells = labels(rows).map((row) => labels(columns).map((column) => {
    const found = compared.experiments.map((_, index) => index).filter((index) => shown(compared.axes[rows][index]) === row && (!columns || shown(compared.axes[columns][index]) === column))
      .map((index) => compared.columns[measure][index]).filter((value) => Number.isFinite(value) && (!logarithmic || value > 0));
    if (!found.length) return null;
    return logarithmic ? Math.exp(found.reduce((sum, value) => sum + Math.log(value), 0) / found.length) : found.reduce((sum, value) => sum + value, 0) / found.length;
  }));
  if (!cells.flat().some((value) => value !== null)) return chart.blank("Nothing measured yet");
  const rest = Object.keys(sweep.axes).slice(2);
  chart.note.textContent = rest.length ? `The mean over ${rest.map(axis).join(", ")}${logarithmic ? ", on a logarithmic scale" : ""}.` : logarithmic ? "The colour is a logarithm." : "";
  return chart.draw(() => ({
    traces: [{ type: "heatmap", x: labels(columns), y: labels(rows), z: cells.map((row) => row.map((value) => (value === null ? null : logarithmic ? Math.log10(value) : value))), text: cells.map((row) => row.map((value) => (value === null ? "" : format(value)))),
      texttemplate: cells.flat().length <= 200 ? "%{text}" : undefined, hovertemplate: "%{y}, %{x}: %{text}<extra></extra>", colorscale: "Viridis", showscale: false, xgap: 2, ygap: 2, hoverongaps: false }],
    layout: { xaxis: { type: "category", title: columns ? axis(columns) : "", showgrid: false }, yaxis: { type: "category", title: axis(rows), showgrid: false } },
    says: `${text}: ${cells.map((row, index) => `${labels(rows)[index]} ${row.map(format).join(" ")}`).join("; ")}`,
  }));
}

async function watch(state, load, draw, signal) {
  while (!signal.aborted && state.sweep.members.some((one) => ["queued", "running"].includes(one.status))) {
    await pause(1500, signal);
    if (signal.aborted) return;
    if (!document.hidden) await load().then(draw).catch(() => {});
  }
}
