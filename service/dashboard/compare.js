/** Up to twenty runs over one another, and their distributions side by side. */

import { ended, pause, query, read } from "./api.js";
import { Chart, RUNS, colour, lines, logarithmic, translucent } from "./charts.js";
import { empty, h, replace, segmented } from "./dom.js";
import { layerNames, number, percent, title, words } from "./format.js";
import { badge, progress } from "./list.js";
import { buckets, lastFinite, magnitudes, summarized } from "./series.js";

const MOST = 20;
const DASHES = ["solid", "dash", "dot"];

export async function mount(view, { parameters, signal }) {
  document.title = "Compare · Gradprobe";
  const ids = [...new Set((parameters.get("ids") ?? "").split(",").filter(Boolean))];
  if (ids.length > MOST) return replace(view, empty("Too many to compare", `At most ${MOST} at once; ${ids.length} were asked for.`, h("a", { class: "button", href: "#/" }, "Choose others")));
  const picker = await chooser(ids, signal);
  if (!ids.length) return replace(view, h("div", { class: "heading" }, h("h1", {}, "Compare")), empty("Choose what to compare", "Take two or more experiments here, or tick them in the list.", picker));
  const state = { place: "first", of: "outputs", runs: [] };
  const charts = panels();
  signal.addEventListener("abort", () => { Object.values(charts).forEach((chart) => chart.remove?.()); state.tiles?.forEach((tile) => tile.remove()); });
  const table = h("section", { class: "card", "aria-label": "Runs" });
  const tiles = h("div", { class: "tiles" });
  const distributions = h("section", { class: "card chart all", "aria-label": "Distributions" }, h("header", {}, h("h2", {}, "Distributions side by side")),
    h("p", { class: "note" }, "Magnitude of each gradient element at the last histogram, of the layer chosen above, all on one axis."), tiles);
  state.runs = await Promise.all(ids.map((id, index) => load(id, index, state, signal)));
  const draw = () => { drawTable(table, state, ids); drawCharts(charts, state); drawTiles(tiles, state); };
  state.again = async () => { state.runs = await Promise.all(ids.map((id, index) => load(id, index, state, signal))); if (!signal.aborted) draw(); };
  const choices = h("div", { class: "filters" }, segmented("Layer", [["first", "first layer"], ["middle", "middle layer"], ["last", "last hidden"]], state.place, (value) => { state.place = value; state.again(); }),
    segmented("Gradient", [["outputs", "δ"], ["weights", "∂L/∂W"]], state.of, (value) => { state.of = value; state.again(); }));
  replace(view, h("div", { class: "heading" }, h("h1", {}, `${ids.length} ${ids.length === 1 ? "run" : "runs"} compared`), picker), table, choices,
    h("div", { class: "grid" }, Object.values(charts).map((chart) => chart.element), distributions));
  draw();
  watch(state, signal);
  return undefined;
}

/** A field that finds experiments by name. */
async function chooser(ids, signal) {
  const page = await read("/experiments?limit=100", signal);
  const others = page.items.filter((one) => !ids.includes(one.id));
  return h("label", { class: "pick" }, h("span", {}, "Add"), h("select", { onchange: (event) => { if (event.target.value) location.hash = query("#/compare", { ids: [...ids, event.target.value].join(",") }); } },
    h("option", { value: "" }, "an experiment …"), others.map((one) => h("option", { value: one.id }, `${title(one)}${one.verdict ? ` (${words(one.verdict)})` : ""}`))));
}

function chosen(names, place) {
  const index = place === "first" ? 1 : place === "middle" ? Math.ceil(names.length / 2) : names.length - 1;
  return names[Math.max(1, index) - 1];
}

async function load(id, index, state, signal) {
  const experiment = await read(`/experiments/${id}`, signal);
  const names = layerNames(experiment.spec);
  const layer = chosen(names, state.place);
  const path = `/experiments/${id}`;
  const tensor = state.of === "outputs" ? "output_gradients" : "weight_gradients";
  const recorded = experiment.spec.recording.tensors.includes(tensor);
  const of = state.of;
  const [metrics, over, last, histogram] = await Promise.all([
    read(query(`${path}/metrics`, { max_points: 300 }), signal),
    recorded ? read(query(`${path}/gradients`, { of, statistics: "mean_abs", layers: [...new Set([layer, names.at(-1)])].join(","), max_points: 300 }), signal) : null,
    recorded ? read(query(`${path}/gradients`, { of, statistics: "norm", max_points: 16 }), signal) : null,
    recorded ? read(query(`${path}/gradients/histograms`, { of, layers: layer, max_points: 8 }), signal) : null,
  ]);
  return { experiment, layer, metrics, over, last, histogram, colour: RUNS[index % RUNS.length], dash: DASHES[Math.floor(index / RUNS.length)] };
}

function panels() {

  return { gradient: new Chart("The chosen layer's mean gradient", { note: "Absolute, over time." }), profile: new Chart("Layer by layer at the end", { note: "‖·‖ ÷ the output layer's, against the place in the network." }),
    loss: new Chart("Loss", { note: "Of each batch." }), accuracy: new Chart("Test accuracy", { note: "Of the whole test set." }) };
}

function drawTable(element, state, ids) {
  const paths = differences(state.runs.map((run) => run.experiment.spec));
  const head = ["Run", "Verdict", "Status", "δ first ÷ last", "Test accuracy", "Loss", ...paths.map((path) => words(path.split("/").slice(1).join(" ")).replace(/ name$/, "")), ""];
  replace(element, h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table of runs" }, h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text || h("span", { class: "hidden" }, "Remove"))))),
    h("tbody", {}, state.runs.map((run) => {
      const { experiment: one } = run;
      const rest = ids.filter((id) => id !== one.id);
      return h("tr", {}, h("td", { class: "wrap" }, h("span", { class: "swatch", style: { background: run.colour } }), h("a", { href: `#/experiments/${one.id}` }, title(one))),
        h("td", {}, badge(one.verdict)), h("td", {}, progress(one)), h("td", {}, number(ratio(run))), h("td", {}, percent(one.result?.test_accuracy)), h("td", {}, number(one.result?.final_loss)),
        paths.map((path) => h("td", {}, shown(at(one.spec, path)))),
        h("td", {}, h("a", { href: query("#/compare", { ids: rest.join(",") }), "aria-label": `Remove ${title(one)}` }, "✕")));
    })))));
}

function ratio(run) {
  if (!run.last?.steps.length) return null;
  const [first, last] = [run.last.layers[0], run.last.layers.at(-1)].map((layer) => lastFinite(layer.statistics.norm));
  return last > 0 ? first / last : null;
}

/** The paths at which the specs are not all alike. */
function differences(specs) {
  const found = new Map();
  const walk = (value, path, index) => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) for (const [name, inner] of Object.entries(value)) walk(inner, `${path}/${name}`, index);
    // Layer by layer it is no column of a table: the charts tell.
    else if (!Array.isArray(value) || typeof value[0] !== "object") { if (!found.has(path)) found.set(path, new Map()); found.get(path).set(index, JSON.stringify(value)); }
  };
  // Of loops that are somebody's own the data set is moments of a batch, no two of which are alike.
  specs.forEach((spec, index) => walk({ ...spec, name: null, tags: null, dataset: spec.network.kind === "watched" ? null : spec.dataset }, "", index));
  return [...found].filter(([, values]) => values.size < specs.length || new Set(values.values()).size > 1).map(([path]) => path).slice(0, 8);
}

function at(spec, path) {
  return path.split("/").slice(1).reduce((value, name) => value?.[name], spec);
}

function shown(value) {
  return value === undefined || value === null ? "–" : typeof value === "number" ? number(value) : words(typeof value === "string" ? value : JSON.stringify(value));
}

function drawCharts(charts, state) {
  const { runs } = state;
  const drawn = (chart, make, axes) => chart.draw(() => {
    const series = runs.map((run) => ({ name: title(run.experiment), colour: run.colour, dash: run.dash, width: 1.9, ...make(run) }));
    return { traces: lines(series.map((one) => (runs.length > 6 ? { ...one, low: null } : one)), { logarithmic: axes.yaxis.type === "log" }), layout: { ...axes, showlegend: false },
      says: series.map((one) => `${one.name} ${number(lastFinite(one.middle))}`).join(", ") };
  });
  const none = { steps: [], middle: [] };
  drawn(charts.gradient, (run) => {
    const column = run.over?.layers.find((layer) => layer.name === run.layer);
    if (!column) return none;
    const { groups, steps } = buckets(run.over);
    return { steps, ...summarized(column.statistics.mean_abs, groups, true) };
  }, { xaxis: { title: "iteration", tickformat: ",d" }, yaxis: logarithmic("mean |·|") });
  drawn(charts.profile, (run) => {
    if (!run.last?.steps.length) return none;
    const norms = run.last.layers.map((layer) => lastFinite(layer.statistics.norm));
    return { steps: norms.map((_, index) => (norms.length < 2 ? 1 : index / (norms.length - 1))), middle: norms.map((value) => (value > 0 ? value / norms.at(-1) : null)) };
  }, { xaxis: { title: "from the input (0) to the output (1)" }, yaxis: logarithmic("‖·‖ ÷ output layer's") });
  drawn(charts.loss, (run) => {
    const { groups, steps } = buckets(run.metrics);
    return { steps, ...summarized(run.metrics.metrics.loss, groups, false), low: null };
  }, { xaxis: { title: "iteration", tickformat: ",d" }, yaxis: wide(runs) ? logarithmic("nats") : { rangemode: "tozero" } });
  if (!runs.some((run) => run.metrics.evaluation.steps.length || !ended(run.experiment))) return charts.accuracy.blank("None of them was tested.");
  return drawn(charts.accuracy, (run) => ({ steps: run.metrics.evaluation.steps, middle: run.metrics.evaluation.test_accuracy }), { xaxis: { title: "iteration", tickformat: ",d" }, yaxis: { tickformat: ".0%", range: [-0.03, 1.03] } });
}

/** Whether the losses are so far apart that only a logarithmic axis shows them all. */
function wide(runs) {
  const losses = runs.flatMap((run) => run.metrics.metrics.loss).filter((value) => value > 0);
  return losses.length > 0 && losses.reduce((most, value) => Math.max(most, value), 0) > 100;
}

function drawTiles(element, state) {
  state.tiles ??= state.runs.map((run) => new Chart(title(run.experiment), { bare: true }));
  if (!element.childElementCount) replace(element, state.tiles.map((tile) => tile.element));
  const all = state.runs.map((run) => (run.histogram?.steps.length ? magnitudes(run.histogram.layers[0], run.histogram.steps.length - 1) : null));
  const places = all.filter(Boolean).flatMap(({ x }) => x);
  const [least, most] = [Math.min(...places), Math.max(...places)];
  const tallest = Math.max(...all.filter(Boolean).flatMap(({ y }) => y), 1e-6);
  state.tiles.forEach((tile, index) => {
    const found = all[index];
    if (!found) return tile.blank("No histogram");
    return tile.draw(() => ({
      traces: [{ type: "scatter", mode: "lines", line: { shape: "hvh", width: 1.3, color: state.runs[index].colour }, fill: "tozeroy", fillcolor: translucent(state.runs[index].colour, 0.25), x: found.x, y: found.y, customdata: found.y.map(percent), hovertemplate: "%{x:.1~e}: %{customdata}<extra></extra>" }],
      layout: { xaxis: logarithmic("", { range: [Math.log10(least), Math.log10(most)], ticks_wanted: 4 }), yaxis: { showticklabels: false, showgrid: false, range: [0, tallest * 1.08] },
        annotations: found.zero > 0.001 ? [{ text: `${percent(found.zero)} zero`, xref: "paper", yref: "paper", x: 1, y: 1, xanchor: "right", showarrow: false, font: { color: colour("faint"), size: 11 } }] : [] },
      says: `${state.runs[index].layer}, ${percent(found.zero)} exactly zero`,
    }));
  });
}

async function watch(state, signal) {
  while (state.runs.some((run) => !ended(run.experiment))) {
    await pause(1500, signal);
    if (signal.aborted) return;
    if (!document.hidden) await state.again().catch(() => {});
  }
}
