/** From the API's documents to what is drawn. */

/** A reduced series has two points a bucket, its minimum and its maximum: the points that belong together. */
export function buckets(document) {
  const { steps, reduction } = document;
  const groups = [];
  steps.forEach((step, index) => {
    const bucket = Math.floor(step / reduction.bucket);
    if (reduction.method === "minmax" && groups.at(-1)?.bucket === bucket) groups.at(-1).last = index;
    else groups.push({ bucket, first: index, last: index });
  });
  return { groups, steps: groups.map(({ first, last }) => (steps[first] + steps[last]) / 2) };
}

/** A column's middle (on a logarithmic scale, where it is drawn on one), least and greatest in each bucket. */
export function summarized(column, groups, logarithmic) {
  const low = groups.map(({ first, last }) => column[first] ?? column[last]);
  const high = groups.map(({ first, last }) => column[last] ?? column[first]);
  const middle = low.map((value, index) => between(value, high[index], logarithmic));
  return { low, middle, high };
}

function between(low, high, logarithmic) {
  if (low === null || low === undefined) return null;
  if (!logarithmic) return (low + high) / 2;
  // Zero has no place on a logarithmic scale: a gap says so.
  if (high <= 0) return null;
  return low > 0 ? Math.sqrt(low * high) : high;
}

/** A few layers that stand for all: the outermost and some between. */
export function spread(layers, most) {
  if (layers.length <= most) return layers.map((_, index) => index);
  return Array.from({ length: most }, (_, index) => Math.round((index * (layers.length - 1)) / (most - 1)));
}

/** How many points a chart of so many layers gets. */
export function affordable(layers) {
  return Math.max(60, Math.min(400, 2 * Math.floor(20000 / Math.max(1, layers))));
}

export function lastFinite(column) {
  for (let index = column.length - 1; index >= 0; index -= 1) if (Number.isFinite(column[index])) return column[index];
  return null;
}

/**
 * A histogram on the fixed logarithmic grid as shares by log₁₀|x|, signs together, `perDecade` bins a decade.
 * The share of what is exactly zero has no place there and comes beside it.
 */
export function magnitudes(layer, step, perDecade = 6) {
  const counts = layer.counts[step] ?? [];
  const found = new Map();
  let total = layer.zero[step] ?? 0;
  counts.forEach((count, bin) => {
    total += count;
    const [left, right] = [Math.abs(layer.edges[bin]), Math.abs(layer.edges[bin + 1])];
    const center = left > 0 && right > 0 ? Math.sqrt(left * right) : Math.max(left, right) / 2;
    if (!count || !(center > 0)) return;
    const place = Math.floor(Math.log10(center) * perDecade);
    found.set(place, (found.get(place) ?? 0) + count);
  });
  const places = [...found.keys()];
  if (!places.length) return { x: [], y: [], zero: total ? 1 : 0 };
  const [from, to] = [Math.min(...places) - 1, Math.max(...places) + 1];
  const x = [], y = [];
  for (let place = from; place <= to; place += 1) {
    x.push(10 ** ((place + 0.5) / perDecade));
    y.push((found.get(place) ?? 0) / total);
  }
  return { x, y, zero: (layer.zero[step] ?? 0) / total };
}

/** A histogram on equal bins as shares by value. */
export function linear(layer, step) {
  const counts = layer.counts[step] ?? [];
  const total = counts.reduce((sum, count) => sum + count, layer.zero[step] ?? 0) || 1;
  const zeros = layer.zero[step] ?? 0;
  const x = counts.map((_, bin) => (layer.edges[bin] + layer.edges[bin + 1]) / 2);
  const y = counts.map((count, bin) => (count + (layer.edges[bin] <= 0 && layer.edges[bin + 1] > 0 ? zeros : 0)) / total);
  return { x, y, zero: zeros / total };
}
