/** Charts: what they all have in common. plotly.js is loaded when the first one is to be seen. */

import { h, replace } from "./dom.js";
import { number } from "./format.js";

const CONFIGURATION = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset", showTips: false };
const LAYERS = ["#4f46e5", "#8b3fd1", "#cf3a8e", "#ec6a3c", "#dba018"];
export const RUNS = ["#4f46e5", "#d9622b", "#12917a", "#c2388f", "#8a6d00", "#0b83c4", "#a63d40", "#5b8c2a", "#7d5fb2", "#6b7280"];
let loading = null;

function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/dashboard/plotly.min.js" });
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = null; reject(new Error("The chart library did not load.")); };
    document.head.append(script);
  });
  return loading;
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The colour of one of `count` layers, from the input side to the output side. */
export function layerColour(index, count) {
  const place = count < 2 ? 0 : (index / (count - 1)) * (LAYERS.length - 1);
  const left = Math.min(Math.floor(place), LAYERS.length - 2);
  return mixed(LAYERS[left], LAYERS[left + 1], place - left);
}

export function mixed(first, second, share) {
  const parts = (text) => [1, 3, 5].map((start) => parseInt(expanded(text).slice(start, start + 2), 16));
  const [a, b] = [parts(first), parts(second)];
  return `#${a.map((value, index) => Math.round(value + (b[index] - value) * share).toString(16).padStart(2, "0")).join("")}`;
}

function expanded(text) {
  return text.length === 4 ? `#${[...text.slice(1)].map((digit) => digit + digit).join("")}` : text;
}

export function translucent(text, opacity) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(expanded(text).slice(start, start + 2), 16));
  return `rgba(${red},${green},${blue},${opacity})`;
}

/** A card with a chart in it. `draw` says what is to be seen; it is drawn once it is on the screen. */
export class Chart {
  constructor(title, { note = null, all = false, tall = false, choices = [], bare = false } = {}) {
    this.plot = h("div", { class: "plot blank", role: "img", "aria-label": `${title}: nothing yet` }, "Nothing measured yet");
    this.note = h("p", { class: "note" }, note);
    this.title = title;
    this.element = h("figure", { class: `${bare ? "" : "card chart"}${all ? " all" : ""}${tall ? " tall" : ""}` },
      h("header", {}, h(bare ? "h3" : "h2", {}, title), choices.length ? h("div", { class: "choices" }, choices) : null), bare ? null : this.note, this.plot);
    this.wanted = null;
    this.seen = false;
    this.observer = new IntersectionObserver(([entry]) => { this.seen = entry.isIntersecting; if (this.seen) this.render(); }, { rootMargin: "200px" });
    this.observer.observe(this.plot);
    this.themed = () => { if (this.wanted) { this.wanted.fresh = true; this.render(); } };
    window.addEventListener("themed", this.themed);
  }

  /** `make()` gives `{traces, layout, says}`; it is asked again when the colours change. */
  draw(make) {
    this.wanted = { make, fresh: true };
    if (this.seen) this.render();
  }

  blank(text) {
    this.wanted = null;
    if (window.Plotly && this.plot.classList.contains("js-plotly-plot")) window.Plotly.purge(this.plot);
    this.plot.className = "plot blank";
    this.plot.setAttribute("aria-label", `${this.title}: ${text}`);
    replace(this.plot, text);
  }

  async render() {
    if (!this.wanted?.fresh) return;
    const wanted = this.wanted;
    wanted.fresh = false;
    try {
      const plotly = await library();
      if (this.wanted !== wanted || !this.plot.isConnected) { wanted.fresh = true; return; }
      const { traces, layout, says } = wanted.make();
      if (this.plot.classList.contains("blank")) { replace(this.plot); this.plot.classList.remove("blank"); }
      this.plot.setAttribute("aria-label", `${this.title}: ${says}`);
      await plotly.react(this.plot, traces, frame(decades(layout, traces, this.plot.clientWidth)), CONFIGURATION);
    } catch (error) {
      if (!window.Plotly) this.blank(error.message);
      else throw error;
    }
  }

  remove() {
    this.observer.disconnect();
    window.removeEventListener("themed", this.themed);
    if (window.Plotly && this.plot.classList.contains("js-plotly-plot")) window.Plotly.purge(this.plot);
  }
}

/** Whole decades as ticks, where a logarithmic axis spans more than one: plotly would write a 2 and a 5 between them. */
function decades(layout, traces, width) {
  for (const [axis, values] of [["xaxis", "x"], ["yaxis", "y"]]) {
    if (layout[axis]?.type !== "log") continue;
    let [least, most] = [Infinity, 0];
    for (const trace of traces) for (const value of trace[values] ?? []) if (value > 0) { least = Math.min(least, value); most = Math.max(most, value); }
    if (layout[axis].range) [least, most] = layout[axis].range.map((exponent) => 10 ** exponent);
    const span = Math.log10(most / least);
    if (span > 1.3) layout[axis].dtick = Math.max(1, Math.ceil(span / (layout[axis].ticks_wanted ?? (axis === "xaxis" && width < 500 ? 5 : 8))));
    delete layout[axis].ticks_wanted;
  }
  return layout;
}

/** A layout in this page's colours and type. */
function frame(layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line-strong"), zeroline: false, tickcolor: colour("line-strong"), automargin: true, exponentformat: "power", title: { standoff: 8, font: { size: 12, color: colour("faint") } } };
  const joined = (given = {}) => ({ ...axis, ...given, title: { ...axis.title, text: given.title ?? "" } });
  const axes = Object.fromEntries(Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name)).map(([name, given]) => [name, joined(given)]));
  return {
    uirevision: "kept", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 10, t: 8, b: 8 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("soft") },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line-strong"), font: { color: colour("text"), size: 12 }, align: "left" },
    hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", showlegend: false,
    legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, font: { size: 12 } },
    ...layout, xaxis: joined(layout.xaxis), yaxis: joined(layout.yaxis), ...axes,
  };
}

export function logarithmic(title, more = {}) {
  return { type: "log", title, nticks: 7, tickangle: 0, ...more };
}

/** Findings as marks on the time axis: a line each, and on the chart that has room their names. */
export function marks(findings, named) {
  const at = new Map();
  for (const finding of findings) {
    if (!at.has(finding.first_step)) at.set(finding.first_step, []);
    at.get(finding.first_step).push(finding);
  }
  const all = [...at].sort(([a], [b]) => a - b);
  const tone = (given) => colour(given.some((finding) => finding.severity === "critical") ? "bad" : "warn");
  return {
    shapes: all.map(([step, given]) => ({ type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1, line: { color: tone(given), width: 1.4, dash: "dot" } })),
    annotations: named ? all.map(([step, given], index) => ({ x: step, y: 1, yref: "paper", yanchor: "bottom", xanchor: "left", yshift: (index % 2) * 15, showarrow: false,
      text: `▾ ${[...new Set(given.map((finding) => finding.rule.replaceAll("_", " ")))].join(", ")}`, font: { size: 11, color: tone(given) } })) : [],
  };
}

/** A line for each of some series, with their spread behind them where there are few. */
export function lines(series, { logarithmic: isLogarithmic = false } = {}) {
  const traces = [];
  for (const { name, steps, low, middle, high, colour: ink, dash, width } of series) {
    const floor = isLogarithmic ? (value) => (value > 0 ? value : null) : (value) => value;
    if (low && series.length <= 12) {
      const kept = steps.map((step, index) => [step, floor(low[index]), high[index]]).filter(([, least]) => least !== null && least !== undefined);
      traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { width: 0 }, fill: "toself", fillcolor: translucent(ink, 0.13),
        x: [...kept.map(([step]) => step), ...kept.map(([step]) => step).reverse()], y: [...kept.map(([, , most]) => most), ...kept.map(([, least]) => least).reverse()] });
    }
    traces.push({ type: "scatter", mode: steps.length < 2 ? "markers" : "lines", name, x: steps, y: middle, line: { color: ink, width: width ?? 1.6, dash: dash ?? "solid" }, marker: { color: ink },
      customdata: middle.map((value) => number(value)), hovertemplate: `${name}<br>iteration %{x:,.0f}: %{customdata}<extra></extra>` });
  }
  return traces;
}
