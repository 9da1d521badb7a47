/** The public API, which is all that this page knows. */

const KEY = "gradprobe.key";
const cache = new Map();
const MOST_CACHED = 200;

/** A problem as the server tells it: `code`, `status`, and the `errors` at their fields. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail ?? document.title ?? `The server answered ${status}.`);
    this.status = status;
    this.code = document.code;
    this.requestId = document.request_id;
    this.errors = document.errors ?? [];
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => { cache.clear(); sessionStorage.setItem(KEY, value); },
  forget: () => { cache.clear(); sessionStorage.removeItem(KEY); },
};

function headers(more = {}) {
  const secret = key.get();
  return secret ? { ...more, Authorization: `Bearer ${secret}` } : more;
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(options.headers), credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "No answer from the server. Is it running? This page goes on by itself once it is." });
  }
  if (answer.ok || answer.status === 304) return answer;
  const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
  if (problem.status === 401) window.dispatchEvent(new CustomEvent("key-needed", { detail: problem }));
  throw problem;
}

/** Read a document; asked again, only what has changed travels. The same object comes back where nothing has. */
export async function read(path, signal) {
  const known = cache.get(path);
  const answer = await ask(path, { signal, headers: { Accept: "application/json", ...(known ? { "If-None-Match": known.etag } : {}) } });
  if (answer.status === 304) return known.document;
  const document = await answer.json();
  const etag = answer.headers.get("ETag");
  cache.delete(path);
  if (etag) cache.set(path, { etag, document });
  if (cache.size > MOST_CACHED) cache.delete(cache.keys().next().value);
  return document;
}

export async function send(method, path, body, more = {}) {
  const options = { method, headers: { ...more } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const answer = await ask(path, options);
  return answer.status === 204 ? null : answer.json();
}

export function query(path, parameters) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === null || value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) found.append(name, one);
  }
  const text = found.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Call `changed(experiment)` now and whenever the experiment has gone on, until it has ended or `signal` aborts.
 *
 * By server-sent events where the server has them, read through fetch, because an EventSource can't send a key;
 * by asking again, with an ETag, where it has not.
 */
export async function follow(id, changed, signal) {
  let experiment = await read(`/experiments/${id}`, signal);
  await changed(experiment);
  let last = null;
  while (!signal.aborted && !ended(experiment)) {
    try {
      const events = experiment.links.events;
      if (events) last = await listen(query(events, { kinds: "status,progress", max_points: 1 }), last, signal, async () => {
        experiment = await read(`/experiments/${id}`, signal);
        await changed(experiment);
      });
      else await pause(1000, signal);
      experiment = await read(`/experiments/${id}`, signal);
      await changed(experiment);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status < 500 && error.status !== 429) throw error;
      await pause(2000, signal);
    }
  }
}

export function ended(experiment) {
  return ["succeeded", "failed", "cancelled"].includes(experiment.status);
}

/** Read a stream of events until it closes; the id of the last one comes back. */
async function listen(path, last, signal, heard) {
  const more = last ? { "Last-Event-ID": last } : {};
  const answer = await ask(path, { signal, headers: { Accept: "text/event-stream", ...more } });
  if (!answer.body || answer.status === 204) return last;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return last;
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    const ids = parts.map((part) => /^id: ?(.*)$/m.exec(part)?.[1]).filter(Boolean);
    // Several events that came together are one reason to look.
    if (ids.length) { last = ids.at(-1); await heard(); }
  }
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
