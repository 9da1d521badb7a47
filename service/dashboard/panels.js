/** The charts of one experiment. Each has `update(experiment, documents, diagnosis)`. */

import { query, read } from "./api.js";
import { Chart, colour, layerColour, lines, logarithmic, marks, mixed } from "./charts.js";
import { segmented, select, replace, h } from "./dom.js";
import { number, percent, power, watched } from "./format.js";
import { buckets, lastFinite, linear, magnitudes, spread, summarized } from "./series.js";

const MOST_LINES = 12;
const RIDGES = 22;
const NOT_RECORDED = "Not recorded: the spec leaves this tensor out.";

function time(experiment, more = {}) {
  return { title: "iteration", tickformat: ",d", range: experiment.status === "succeeded" ? undefined : [0, experiment.progress.iterations], ...more };
}

function some(shown, layers) {
  return shown.length < layers.length ? ` ${shown.length} of ${layers.length} layers are drawn.` : "";
}

/** Keeps what it was given last, so that a choice can draw it again. */
class Panel {
  update(experiment, documents, diagnosis) {
    this.given = [experiment, documents, diagnosis];
    this.show(...this.given);
  }

  again() {
    if (this.given) this.show(...this.given);
  }

  set(name) {
    return (value) => { this[name] = value; this.again(); };
  }
}

/** Layers × time, the colour a logarithm: where the gradient is lost. */
export class Flow extends Panel {
  constructor() {
    super();
    this.of = "outputs";
    this.scale = "relative";
    this.chart = new Chart("Gradient flow", { all: true, tall: true, choices: [
      segmented("Gradient", [["outputs", "δ"], ["weights", "∂L/∂W"]], this.of, this.set("of")),
      segmented("Scale", [["relative", "÷ output layer"], ["absolute", "absolute"]], this.scale, this.set("scale"))] });
  }

  show(experiment, documents, diagnosis) {
    const document = documents[this.of];
    if (document === null) return this.chart.blank(NOT_RECORDED);
    if (!document.steps.length) return this.chart.blank("Nothing measured yet");
    this.chart.note.textContent = this.of === "outputs"
      ? "Mean |δ|, the gradient at each layer's pre-activation output. The signal starts at the output layer, on top, and travels down."
      : "Mean |∂L/∂W| of each layer's weights. Vanishing can hide here: activations shrink forwards as δ shrinks backwards.";
    return this.chart.draw(() => this.picture(experiment, document, diagnosis));
  }

  picture(experiment, document, diagnosis) {
    const { groups, steps } = buckets(document);
    const rows = document.layers.map((layer) => summarized(layer.statistics.mean_abs, groups, true).middle);
    const reference = this.scale === "relative" ? rows.at(-1) : null;
    const values = rows.map((row) => row.map((value, index) => (reference ? value / reference[index] : value)));
    const z = values.map((row) => row.map((value) => (value > 0 && Number.isFinite(value) ? Math.log10(value) : null)));
    const finite = z.flat().filter((value) => value !== null);
    const [least, most] = [Math.min(...finite, 0), Math.max(...finite, least0(finite))];
    const decades = Array.from({ length: Math.floor(most) - Math.ceil(least) + 1 }, (_, index) => Math.ceil(least) + index);
    const ticks = spread(decades, 7).map((index) => decades[index]);
    const names = document.layers.map((layer) => layer.name);
    const shownNames = spread(names, 12);
    const found = marks(diagnosis?.findings ?? [], true);
    const first = lastFinite(values[0]);
    return {
      traces: [{ type: "heatmap", x: steps, y: names.map((_, index) => index + 1), z, customdata: values.map((row, index) => row.map((value) => `${names[index]}: ${number(value)}`)),
        colorscale: "Viridis", zmin: reference ? Math.min(least, -1) : undefined, zmax: reference ? Math.max(0, most) : undefined, xgap: 0, ygap: names.length <= 30 ? 1 : 0, hoverongaps: false,
        hovertemplate: "iteration %{x:,.0f}<br>%{customdata}<extra></extra>",
        colorbar: { thickness: 10, outlinewidth: 0, len: 1, tickvals: ticks, ticktext: ticks.map((tick) => `10${power(tick)}`), tickfont: { color: colour("faint") } } }],
      layout: { ...found, margin: { l: 8, r: 0, t: found.annotations.length ? 34 : 8, b: 8 }, xaxis: time(experiment, { showgrid: false }),
        yaxis: { showgrid: false, tickvals: shownNames.map((index) => index + 1), ticktext: shownNames.map((index) => names[index]) } },
      says: `${names.length} layers; ${names[0]} is at ${number(first)}${reference ? " of the output layer's" : ""} at iteration ${number(Math.round(steps.at(-1)))}`,
    };
  }
}

function least0(finite) {
  return finite.length ? finite[0] : 0;
}

const STATISTICS = {
  outputs: ["Mean |δ| of each layer", "The gradient at the pre-activation outputs, per sample. The band is from least to greatest.", "mean |δ|", "mean_abs"],
  weights: ["Mean |∂L/∂W| of each layer", "Of the weights, before clipping.", "mean |∂L/∂W|", "mean_abs"],
  updates: ["Update ratio", "‖ΔW‖ ÷ ‖W‖ an iteration. Around 10⁻³ is usual; far below, a layer stands still.", "‖ΔW‖ ÷ ‖W‖", "update_ratio"],
};

/** One statistic of each layer over time, on a logarithmic axis. */
export class Statistic extends Panel {
  constructor(of) {
    super();
    this.of = of;
    [this.title, this.says, this.unit, this.statistic] = STATISTICS[of];
    this.chart = new Chart(this.title, { note: this.says });
  }

  show(experiment, documents, diagnosis) {
    const document = documents[this.of];
    if (document === null) return this.chart.blank(NOT_RECORDED);
    if (!document.steps.length) return this.chart.blank("Nothing measured yet");
    const shown = spread(document.layers, MOST_LINES);
    this.chart.note.textContent = this.says + some(shown, document.layers);
    return this.chart.draw(() => {
      const { groups, steps } = buckets(document);
      const series = shown.map((index) => ({ name: document.layers[index].name, steps, colour: layerColour(index, document.layers.length), ...summarized(document.layers[index].statistics[this.statistic], groups, true) }));
      return { traces: lines(series, { logarithmic: true }), layout: { ...marks(diagnosis?.findings ?? [], false), showlegend: true, xaxis: time(experiment), yaxis: logarithmic(this.unit) },
        says: series.map((one) => `${one.name} ${number(lastFinite(one.middle))}`).join(", ") };
    });
  }
}

/** What was measured at the first step and last, against what mean-field theory expects of this very network. */
export class Profile extends Panel {
  constructor() {
    super();
    this.chart = new Chart("Measured against predicted");
  }

  show(experiment, documents, diagnosis) {
    const prediction = diagnosis?.prediction;
    if (!prediction) {
      const { unknown } = experiment.spec.network;
      return this.chart.blank(unknown ? `Theory does not know this network: ${unknown}.` : "No prediction yet");
    }
    const range = { ordered: "ordered: gradients vanish with depth", critical: "critical: gradients neither vanish nor explode", chaotic: "chaotic: gradients explode with depth" };
    this.chart.note.textContent = `‖δ‖ of each layer ÷ the output layer's. Theory calls this network ${range[prediction.phase]}; the band is two deviations from seed to seed.`;
    return this.chart.draw(() => {
      const layers = prediction.layers;
      const x = layers.map((_, index) => index + 1);
      const amplitude = (sigmas) => layers.map((layer) => (layer.log_delta_ratio === null ? null : Math.exp((layer.log_delta_ratio + sigmas * layer.null_band) / 2)));
      const [low, middle, high] = [amplitude(-2), amplitude(0), amplitude(2)];
      const start = measuredProfile(documents.first, 0);
      const now = measuredProfile(documents.outputs, -1);
      const point = (name, y, color, symbol) => ({ type: "scatter", mode: "lines+markers", name, x, y, line: { color, width: 1.6 }, marker: { color, size: layers.length > 30 ? 4 : 7, symbol }, customdata: y.map((value, index) => `${layers[index].name}: ${number(value)}`), hovertemplate: `${name}<br>%{customdata}<extra></extra>` });
      return {
        traces: [{ type: "scatter", mode: "lines", name: "null band", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: "toself", fillcolor: `${colour("faint")}33`, line: { width: 0 }, hoverinfo: "skip" },
          { type: "scatter", mode: "lines", name: "predicted", x, y: middle, line: { color: colour("faint"), dash: "dash", width: 1.6 }, customdata: middle.map((value) => number(value)), hovertemplate: "predicted %{customdata}<extra></extra>" },
          start ? point("first step", start, "#4f46e5", "circle") : null, now ? point("latest", now, "#d9622b", "diamond") : null].filter(Boolean),
        layout: { showlegend: true, xaxis: { title: "layer", tickformat: "d", tick0: 1, dtick: Math.ceil(layers.length / 12) }, yaxis: logarithmic("‖δ‖ ÷ output layer's") },
        says: `predicted ${number(middle[0])} at ${layers[0].name}, measured ${number(start?.[0])} at the first step and ${number(now?.[0])} last`,
      };
    });
  }
}

function measuredProfile(document, place) {
  if (!document?.steps.length) return null;
  const { groups } = buckets(document);
  const values = document.layers.map((layer) => summarized(layer.statistics.norm, groups, true).middle.at(place));
  return values.map((value) => (value > 0 ? value / values.at(-1) : null));
}

const ACTIVITIES = { saturated_fraction: ["saturated", "Share of activations whose slope is under 5 % of its greatest."], dead_fraction: ["dead", "Share of units that are zero over the whole batch."], std: ["spread", "The deviation of each layer's activations."] };

/** Whether units saturate or die. */
export class Activity extends Panel {
  constructor() {
    super();
    this.statistic = "saturated_fraction";
    this.chart = new Chart("Activations", { choices: [segmented("Statistic", Object.entries(ACTIVITIES).map(([name, [text]]) => [name, text]), this.statistic, this.set("statistic"))] });
  }

  show(experiment, documents, diagnosis) {
    const document = documents.activations;
    if (document === null) return this.chart.blank(NOT_RECORDED);
    if (!document.steps.length) return this.chart.blank("Nothing measured yet");
    // The output layer's are the logits, which saturate nowhere.
    const shown = spread(document.layers.slice(0, -1), MOST_LINES);
    const share = this.statistic !== "std";
    this.chart.note.textContent = ACTIVITIES[this.statistic][1] + some(shown, document.layers.slice(0, -1));
    if (!shown.length) return this.chart.blank("There is no hidden layer.");
    return this.chart.draw(() => {
      const { groups, steps } = buckets(document);
      const series = shown.map((index) => ({ name: document.layers[index].name, steps, colour: layerColour(index, document.layers.length), ...summarized(document.layers[index].statistics[this.statistic], groups, !share) }));
      return { traces: lines(series, { logarithmic: !share }), layout: { ...marks(diagnosis?.findings ?? [], false), showlegend: true, xaxis: time(experiment), yaxis: share ? { range: [-0.03, 1.03], tickformat: ".0%" } : logarithmic("deviation") },
        says: series.map((one) => `${one.name} ${share ? percent(lastFinite(one.middle)) : number(lastFinite(one.middle))}`).join(", ") };
    });
  }
}

const METRICS = {
  loss: ["Loss", "Cross-entropy in nats: of each batch, and of the whole test set."],
  accuracy: ["Accuracy", "Share classified correctly: of each batch, and of the whole test set."],
  gradient_norm: ["Global gradient norm", "‖g‖ over all parameters, before clipping."],
};

/** Loss, accuracy or gradient norm of the batches, the first two also of the test set. */
export class Metrics extends Panel {
  constructor(name) {
    super();
    this.name = name;
    const [text, note] = METRICS[name];
    this.chart = new Chart(text, { note });
  }

  show(experiment, { metrics }, diagnosis) {
    if (!metrics.steps.length) return this.chart.blank("Nothing measured yet");
    const own = watched(experiment);
    if (own && this.name !== "gradient_norm") {
      if (metrics.metrics[this.name].every((value) => value === null)) return this.chart.blank(`The loop does not tell its ${this.name}.`);
      this.chart.note.textContent = "Of each batch, as the loop told it.";
    }
    return this.chart.draw(() => {
      const { groups, steps } = buckets(metrics);
      const { evaluation } = metrics;
      const norm = this.name === "gradient_norm";
      const test = norm ? [] : evaluation[`test_${this.name}`];
      const series = [{ name: "batch", steps, colour: "#6d66f0", ...summarized(metrics.metrics[this.name], groups, norm) }];
      const traces = lines(series, { logarithmic: norm });
      if (!norm && !own) traces.push({ type: "scatter", mode: "lines+markers", name: "test set", x: evaluation.steps, y: test, line: { color: "#d9622b", width: 2 }, marker: { size: 6 }, customdata: test.map((value) => number(value)), hovertemplate: "test set<br>iteration %{x:,.0f}: %{customdata}<extra></extra>" });
      return { traces, layout: { ...marks(diagnosis?.findings ?? [], false), showlegend: !norm && !own, xaxis: time(experiment), yaxis: norm ? logarithmic("‖g‖") : this.name === "loss" ? { rangemode: "tozero" } : { range: [-0.03, 1.03], tickformat: ".0%" } },
        says: `batch ${number(lastFinite(series[0].middle))}${norm || own ? "" : `, test set ${number(lastFinite(test))}`}` };
    });
  }
}

/** Histograms over time, the oldest behind: on equal bins as TensorBoard draws them, or by magnitude. */
export class Distribution extends Panel {
  constructor(id, signal) {
    super();
    Object.assign(this, { id, signal, of: "outputs", scale: "logarithmic", layer: null, busy: false });
    this.layers = h("span");
    this.chart = new Chart("Distribution over time", { all: true, tall: true, choices: [this.layers,
      segmented("Gradient", [["outputs", "δ"], ["weights", "∂L/∂W"]], this.of, this.set("of")),
      segmented("Bins", [["logarithmic", "log |x|"], ["linear", "linear"]], this.scale, this.set("scale"))] });
  }

  async show(experiment, documents) {
    const known = documents[this.of] ?? documents.outputs ?? documents.weights;
    this.layer ??= known?.layers[0]?.name ?? null;
    if (!this.layers.childElementCount && known?.layers.length) {
      replace(this.layers, select("Layer", known.layers.map(({ name }) => [name, name]), this.layer, this.set("layer")));
    }
    if (documents[this.of] === null) return this.chart.blank(NOT_RECORDED);
    if (this.layer === null) return this.chart.blank("Nothing measured yet");
    const asked = `${this.of} ${this.layer} ${this.scale}`;
    if (this.busy === asked) return undefined;
    this.busy = asked;
    try {
      const more = { of: this.of, layers: this.layer, max_points: RIDGES, bins: this.scale === "linear" ? 60 : null };
      const document = await read(query(`/experiments/${this.id}/gradients/histograms`, more), this.signal);
      if (asked !== `${this.of} ${this.layer} ${this.scale}`) return undefined;
      if (!document.steps.length) return this.chart.blank("No histogram yet");
      this.chart.note.textContent = this.scale === "linear" ? "Values on equal bins, the oldest behind." : "Magnitudes, both signs together, the oldest behind. A ridge that moves left is a gradient that vanishes.";
      return this.chart.draw(() => ridges(document, this.scale === "linear"));
    } catch (error) {
      if (!this.signal.aborted && error.status !== 401) this.chart.blank(error.message);
      return undefined;
    } finally {
      if (this.busy === asked) this.busy = false;
    }
  }
}

function ridges(document, equal) {
  const [layer] = document.layers;
  const all = document.steps.map((step, index) => ({ step, ...(equal ? linear(layer, index) : magnitudes(layer, index)) }));
  const tallest = Math.max(...all.flatMap(({ y }) => y), 1e-9);
  const unit = 3.2 / tallest;
  const [ground, ink] = [colour("surface"), colour("accent-ground")];
  const traces = all.map(({ step, x, y, zero }, index) => {
    const base = all.length - 1 - index;
    const share = all.length < 2 ? 1 : index / (all.length - 1);
    return { type: "scatter", mode: "lines", x: x.length ? [x[0], ...x, x.at(-1)] : [], y: x.length ? [base, ...y.map((value) => base + value * unit), base] : [], fill: "toself", line: { width: 1, color: mixed(ink, "#ec6a3c", share) },
      fillcolor: mixed(ground, mixed(ink, "#ec6a3c", share), 0.32), hoveron: "points", customdata: ["", ...y.map((value) => percent(value)), ""],
      hovertemplate: `iteration ${number(step)}<br>%{x:.2~e}: %{customdata}${zero ? `<br>exactly zero: ${percent(zero)}` : ""}<extra></extra>` };
  });
  const shown = spread(all, 7);
  return { traces, layout: { xaxis: equal ? { title: "value", tickformat: "~e", nticks: 7 } : logarithmic("magnitude"),
    yaxis: { title: "iteration", showgrid: false, tickvals: shown.map((index) => all.length - 1 - index), ticktext: shown.map((index) => number(all[index].step)), range: [-0.4, all.length - 1 + 3.6] } },
  says: `${layer.name}, ${all.length} histograms; ${percent(all.at(-1).zero)} of the last are exactly zero` };
}
