/** A new experiment, from the schema of the spec itself, with what theory expects of it while it is written. */

import { read, send } from "./api.js";
import { Chart, colour, logarithmic } from "./charts.js";
import { announce, h, replace } from "./dom.js";
import { number, words } from "./format.js";
import { Form, initial, resolver, showFaults } from "./schema.js";
import { merge } from "./verdict.js";

const PRESETS = [
  ["Sigmoid", { network: { activation: { name: "sigmoid" }, initialization: { name: "xavier_uniform" } } }],
  ["ReLU, He", { network: { activation: { name: "relu" }, initialization: { name: "he_normal", gain: 1, bias: 0 } } }],
  ["Batch norm", { network: { normalization: "batch" } }],
  ["Residual", { network: { residual: true } }],
];
const PHASES = { ordered: ["Gradients vanish with depth", "bad"], critical: ["Gradients neither vanish nor explode", "good"], chaotic: ["Gradients explode with depth", "bad"] };

export async function mount(view, { parameters, signal }) {
  document.title = "New experiment · Gradprobe";
  const contract = await read("/openapi.json", signal).catch((error) => { if (error.status === 404) return null; throw error; });
  const schema = { $ref: "#/components/schemas/Spec" };
  const state = { spec: await start(contract, schema, parameters, signal), key: crypto.randomUUID?.() ?? String(Math.random()) };
  const expectation = new Expectation();
  signal.addEventListener("abort", () => expectation.chart.remove());
  const says = h("p", { class: "fault", role: "alert", hidden: true });
  const fields = h("div", { class: "fields" });
  const raw = h("textarea", { id: "raw", spellcheck: "false", "aria-label": "The spec as JSON", oninput: (event) => {
    try { state.spec = JSON.parse(event.target.value); } catch { return; }
    state.key = String(Math.random());
    build();
    expectation.ask(state.spec, signal);
  } });
  const changed = () => { state.key = crypto.randomUUID?.() ?? String(Math.random()); raw.value = JSON.stringify(state.spec, null, 2); expectation.ask(state.spec, signal); };
  const build = () => { if (contract) replace(fields, new Form(contract, state.spec, changed).build(schema)); };
  const button = h("button", { type: "submit", class: "primary" }, "Run it");
  const form = h("form", { novalidate: true, "aria-label": "New experiment", onsubmit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    says.hidden = true;
    try {
      // The key makes a second click, or a second try after a lost answer, the same experiment.
      const made = await send("POST", "/experiments", state.spec, { "Idempotency-Key": state.key });
      sessionStorage.removeItem("gradprobe.draft");
      announce("Submitted");
      location.hash = `#/experiments/${made.id}`;
    } catch (error) {
      const homeless = showFaults(form, error.errors ?? []);
      if (homeless.length || !error.errors?.length) { says.textContent = error.message; says.hidden = false; }
      announce(error.message);
      button.disabled = false;
    }
  } }, fields, h("details", { class: "card raw", open: !contract }, h("summary", {}, "As JSON"), raw), says, h("div", { class: "actions" }, button));
  const presets = h("div", { class: "actions", role: "group", "aria-label": "Changes to start from" }, h("span", { class: "faint" }, "Start from"), PRESETS.map(([name, patch]) =>
    h("button", { type: "button", onclick: () => { state.spec = merge(state.spec, patch); build(); changed(); announce(`${name} applied`); } }, name)));
  build();
  changed();
  replace(view, h("div", { class: "heading" }, h("h1", {}, "New experiment"), contract ? presets : null),
    contract ? null : h("p", { class: "card" }, "This server doesn't publish its contract, so there is no form; write the spec as JSON."),
    h("div", { class: "making" }, form, h("aside", { "aria-label": "What theory expects" }, expectation.element)));
}

async function start(contract, schema, parameters, signal) {
  const plain = contract ? initial(schema, resolver(contract)) : {};
  if (parameters.has("draft")) {
    const draft = sessionStorage.getItem("gradprobe.draft");
    if (draft) return JSON.parse(draft);
  }
  if (!parameters.has("from")) return plain;
  const { spec } = await read(`/experiments/${encodeURIComponent(parameters.get("from"))}`, signal);
  // A loop of somebody's own is no spec that could be run.
  return spec.network.kind === "watched" ? plain : structuredClone(spec);
}

/** What mean-field theory says of the spec as it stands; nothing is trained for it. */
class Expectation {
  constructor() {
    this.lead = h("p", {}, "…");
    this.facts = h("p", { class: "faint" });
    this.chart = new Chart("Expected ‖δ‖, layer by layer", { bare: true });
    this.element = h("section", { class: "card expected", "aria-live": "polite" }, h("h2", {}, "Before you train"), this.lead, this.facts, this.chart.element);
    this.timer = null;
  }

  ask(spec, signal) {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      try {
        const found = await send("POST", "/predictions", spec);
        if (!signal.aborted) this.show(found);
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
        replace(this.lead, error.status === 422 ? "Theory speaks once the spec can be run." : error.message);
        this.facts.textContent = error.errors?.map((one) => `${one.pointer}: ${one.message}`).join(" ") ?? "";
      }
    }, 250);
  }

  show(found) {
    const [text, tone] = PHASES[found.phase];
    replace(this.lead, h("span", { class: `badge ${tone}` }, words(found.phase)), ` ${text}.`);
    const first = found.layers[0].log_delta_ratio;
    this.facts.textContent = `χ ${number(found.chi)} a layer; ${found.layers[0].name} gets ${first === null ? "nothing" : number(Math.exp(first / 2))} of the output layer's ‖δ‖. ${found.depth_limit === null ? "No limit of depth." : `Trains to about ${number(Math.round(found.depth_limit))} layers.`} ${found.notes.join(" ")}`;
    this.chart.draw(() => {
      const x = found.layers.map((_, index) => index + 1);
      const at = (sigmas) => found.layers.map((layer) => (layer.log_delta_ratio === null ? null : Math.exp((layer.log_delta_ratio + sigmas * layer.null_band) / 2)));
      return { traces: [{ type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...at(2), ...at(-2).reverse()], fill: "toself", fillcolor: `${colour("faint")}33`, line: { width: 0 }, hoverinfo: "skip" },
        { type: "scatter", mode: "lines+markers", x, y: at(0), line: { color: "#6d66f0", width: 2 }, marker: { size: 5 }, hovertemplate: "layer %{x}: %{y:.2~e}<extra></extra>" }],
      layout: { xaxis: { title: "layer", tick0: 1, dtick: Math.ceil(x.length / 8) }, yaxis: logarithmic("", { ticks_wanted: 4 }) }, says: `${number(at(0)[0])} at the first layer` };
    });
  }
}
