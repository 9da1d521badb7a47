/** One experiment: the verdict in words, then everything that was measured, live. */

import { ended, follow, query, read, send } from "./api.js";
import { Activity, Distribution, Flow, Metrics, Profile, Statistic } from "./panels.js";
import { announce, h, replace } from "./dom.js";
import { ago, duration, layerNames, number, outline, percent, title, watched, words } from "./format.js";
import { progress } from "./list.js";
import { verdictCard } from "./verdict.js";
import { affordable } from "./series.js";

const LEAST_PAUSE = 700;

export async function mount(view, { match, signal }) {
  const [, id] = match;
  const panels = { flow: new Flow(), outputs: new Statistic("outputs"), weights: new Statistic("weights"), profile: new Profile(), updates: new Statistic("updates"),
    distribution: new Distribution(id, signal), activity: new Activity(), loss: new Metrics("loss"), accuracy: new Metrics("accuracy"), norm: new Metrics("gradient_norm") };
  const parts = { heading: h("div", { class: "heading" }), verdict: h("section", { "aria-label": "Verdict" }), facts: h("dl", { class: "facts" }), spec: h("section", { class: "card spec" }) };
  const charts = h("div", { class: "grid" }, Object.values(panels).map((panel) => panel.chart.element));
  signal.addEventListener("abort", () => Object.values(panels).forEach((panel) => panel.chart.remove()));
  let shown = false;
  let judged = { at: 0, document: null };
  let status = null;
  await new Promise((resolve, reject) => {
    const changed = async (experiment) => {
      const began = performance.now();
      if (ended(experiment) || judged.document === null || began - judged.at > 2500) {
        judged = { at: began, document: await read(`/experiments/${id}/diagnosis`, signal).catch((error) => { if (signal.aborted || error.status === 401) throw error; return judged.document; }) };
      }
      const documents = await measured(experiment, signal);
      if (signal.aborted) return;
      document.title = `${title(experiment)} · Gradprobe`;
      heading(parts.heading, experiment);
      verdictCard(parts.verdict, experiment, judged.document);
      facts(parts.facts, experiment);
      if (!shown) spec(parts.spec, experiment);
      for (const panel of Object.values(panels)) panel.update(experiment, documents, judged.document);
      if (!shown) { shown = true; replace(view, parts.heading, parts.verdict, parts.facts, charts, parts.spec); resolve(); }
      if (status && status !== experiment.status) announce(`${title(experiment)}: ${experiment.status}${experiment.verdict ? `, ${words(experiment.verdict)}` : ""}`);
      if (ended(experiment) && status && status !== experiment.status) parts.spec.querySelector("pre").textContent = JSON.stringify({ spec: experiment.spec, provenance: experiment.provenance }, null, 2);
      status = experiment.status;
      // A network with many layers takes longer to read: it is looked at as much less often.
      if (!ended(experiment)) await new Promise((go) => setTimeout(go, Math.max(LEAST_PAUSE, 2 * (performance.now() - began))));
    };
    follow(id, changed, signal).then(resolve, reject);
  });
}

async function measured(experiment, signal) {
  const layers = layerNames(experiment.spec).length;
  const recorded = experiment.spec.recording.tensors;
  const points = { max_points: affordable(layers) };
  const path = `/experiments/${experiment.id}`;
  const ask = (tensor, part, parameters) => (recorded.includes(tensor) ? read(query(`${path}/${part}`, { ...parameters, ...points }), signal) : null);
  const [outputs, weights, first, updates, activations, metrics] = await Promise.all([
    ask("output_gradients", "gradients", { of: "outputs", statistics: "mean_abs,norm" }),
    ask("weight_gradients", "gradients", { of: "weights", statistics: "mean_abs,norm" }),
    recorded.includes("output_gradients") ? read(query(`${path}/gradients`, { of: "outputs", statistics: "norm", start: 0, stop: 1 }), signal) : null,
    ask("weights", "weights", { statistics: "update_ratio" }),
    ask("activations", "activations", { statistics: "saturated_fraction,dead_fraction,std" }),
    read(query(`${path}/metrics`, { max_points: 400 }), signal),
  ]);
  return { outputs, weights, first, updates, activations, metrics };
}

function heading(element, experiment) {
  const mark = JSON.stringify([experiment.name, experiment.tags, experiment.status, ended(experiment) ? null : experiment.progress, experiment.notes]);
  if (element.dataset.mark === mark) return;
  element.dataset.mark = mark;
  const act = (method, path, after) => async () => {
    const next = await send(method, path).catch((error) => announce(error.message));
    if (next !== undefined) after(next);
  };
  const reload = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
  const path = `/experiments/${experiment.id}`;
  const removal = h("button", { type: "button", class: "danger", onclick: () => { if (confirm(`Delete “${title(experiment)}” and everything it measured?`)) act("DELETE", path, () => { location.hash = "#/"; })(); } }, "Delete");
  replace(element, h("div", {}, h("h1", {}, title(experiment)),
    h("div", { class: "crumb" }, experiment.name ? h("span", {}, outline(experiment.spec)) : null, h("span", {}, h("time", { datetime: experiment.created_at, title: experiment.created_at }, ago(experiment.created_at))), h("code", {}, experiment.id),
      Object.entries(experiment.tags).map(([name, value]) => h("a", { class: "tag", href: query("#/", { tag: `${name}:${value}` }) }, `${name}:${value}`)))),
  h("div", { class: "actions" },
    watched(experiment) ? null : h("a", { class: "button", href: query("#/new", { from: experiment.id }), title: "A new experiment that begins with this spec" }, "Copy"),
    h("a", { class: "button", href: query("#/compare", { ids: experiment.id }) }, "Compare"),
    !ended(experiment) ? h("button", { type: "button", onclick: act("POST", `${path}/cancel`, () => {}) }, watched(experiment) ? "Stop recording" : "Cancel") : null,
    ["failed", "cancelled"].includes(experiment.status) && !watched(experiment) ? h("button", { type: "button", onclick: act("POST", `${path}/retry`, reload) }, "Try again") : null,
    experiment.status !== "running" ? removal : null));
}

function facts(element, experiment) {
  const { result, progress: done, spec } = experiment;
  const steps = spec.training.iterations === null || (watched(experiment) && ended(experiment)) ? number(done.iteration) : `${number(done.iteration)} of ${number(done.iterations)}`;
  const all = watched(experiment) ? [
    ["Status", progress(experiment)], ["Updates", steps], ["Layers", number(spec.network.measured.length)], ["Batch", number(spec.training.batch_size)],
    ["Optimizer", `${spec.optimizer.name} ${number(spec.optimizer.learning_rate)}`], ["Precision", spec.training.precision],
  ] : [
    ["Status", progress(experiment)], ["Iterations", steps],
    ["Test accuracy", percent(result?.test_accuracy)], ["Final loss", number(result?.final_loss)],
    ["Time", result ? duration(result.seconds) : "–"], ["Iterations/s", result ? number(result.iterations_per_second) : "–"],
    ["Data", words(spec.dataset.name)], ["Seed", String(spec.training.seed ?? "–")],
  ];
  replace(element, all.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** All that there is to know of it, and of a loop what was not measured. */
function spec(element, experiment) {
  const left = experiment.spec.network.left_out ?? [];
  replace(element, left.length ? [h("h2", {}, "Not measured"), h("ul", {}, left.map((text) => h("li", {}, text)))] : null,
    h("details", {}, h("summary", {}, watched(experiment) ? "What is known of the loop" : "Spec, and how to get the same numbers again"),
      h("pre", { tabindex: "0" }, JSON.stringify({ spec: experiment.spec, provenance: experiment.provenance }, null, 2))));
}
