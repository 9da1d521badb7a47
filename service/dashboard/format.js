/** Numbers and times as people read them. */

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  if (Number.isInteger(value) && magnitude < 1e7) return value.toLocaleString("en").replace("-", "−");
  if (magnitude >= 1e-3 && magnitude < 1e5) return String(Number(value.toPrecision(digits))).replace("-", "−");
  const [mantissa, exponent] = value.toExponential(digits - 2).split("e");
  return `${Number(mantissa)}×10${power(Number(exponent))}`.replace("-", "−");
}

export function power(exponent) {
  return [...String(exponent)].map((character) => SUPERSCRIPT[character]).join("");
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;
}

export function ago(text) {
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 14 * 86400) return `${Math.floor(seconds / 86400)} d ago`;
  return new Date(text).toLocaleDateString(undefined, { year: "numeric", month: "short", day: "numeric" });
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(1)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export function words(name) {
  return String(name).replaceAll("_", " ");
}

export function title(experiment) {
  return experiment.name ?? outline(experiment.spec);
}

/** Whether it is a loop of somebody's own, which reports: nothing of it can be run here. */
export function watched(experiment) {
  return experiment.spec.network.kind === "watched";
}

/** The names of its layers, input side first. */
export function layerNames(spec) {
  const { measured, depth } = spec.network;
  return measured?.map(({ name }) => name) ?? Array.from({ length: depth }, (_, index) => `layer${index + 1}`);
}

/** What a spec is, in a line. */
export function outline(spec) {
  const { network, optimizer } = spec;
  if (network.kind === "watched") {
    return `own loop · ${network.module ? `${network.module} · ` : ""}${network.measured.length} layers · ${optimizer.name} ${number(optimizer.learning_rate)}`;
  }
  const kind = network.kind === "mlp" ? "" : `${network.kind} `;
  const extras = [network.normalization !== "none" ? `${network.normalization} norm` : null, network.residual ? "residual" : null];
  return [`${kind}${words(network.activation.name)} ${network.depth}×${network.width}`, ...extras,
    `${optimizer.name} ${number(optimizer.learning_rate)}`].filter(Boolean).join(" · ");
}

/** The kind of a verdict: what colour it has. */
export function tone(verdict) {
  if (!verdict || verdict === "undecided") return "unknown";
  return verdict === "healthy" ? "good" : "bad";
}
