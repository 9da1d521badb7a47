/** All experiments: filter, sort, follow, choose some to compare. */

import { ended, key, pause, query, read } from "./api.js";
import { announce, empty, h, replace, segmented, select } from "./dom.js";
import { ago, number, outline, percent, title, tone, words } from "./format.js";

const PAGE = 50;
const MOST_COMPARED = 20;
const VERDICTS = ["healthy", "vanishing", "exploding", "poor_initialization", "saturation", "dying_units", "non_finite", "diverging",
  "learning_rate_too_high", "learning_rate_too_low", "stalled", "oscillation", "overfitting", "undecided"];
const COLUMNS = [
  ["name", "Experiment", (one) => title(one).toLowerCase()],
  ["verdict", "Verdict", (one) => one.verdict ?? "~"],
  ["status", "Status", (one) => one.status],
  ["accuracy", "Test accuracy", (one) => one.result?.test_accuracy ?? -1],
  ["created", "Created", (one) => one.created_at],
];

export async function mount(view, { parameters, signal }) {
  document.title = "Experiments · Gradprobe";
  const state = {
    filters: { status: parameters.get("status") ?? "", verdict: parameters.get("verdict") ?? "", name: parameters.get("name") ?? "", tag: parameters.get("tag") ?? "" },
    sort: "created", descending: true, items: [], cursor: null, chosen: new Map(), rows: new Map(), asked: 0,
  };
  const body = h("div", { class: "rows", role: "rowgroup" });
  const foot = h("div", { class: "foot" });
  const tray = h("div", { class: "tray", hidden: true, role: "region", "aria-label": "Chosen experiments" });
  const head = h("div", { class: "row head", role: "row" });
  const draw = () => { drawHead(state, head, draw); drawRows(state, body, draw); drawTray(state, tray, draw); drawFoot(state, foot, more); };
  async function load() {
    const asked = ++state.asked;
    history.replaceState(null, "", query("#/", state.filters));
    body.setAttribute("aria-busy", "true");
    const page = await read(query("/experiments", { ...state.filters, limit: PAGE }), signal);
    if (asked !== state.asked) return;
    Object.assign(state, { items: page.items, cursor: page.next_cursor });
    body.removeAttribute("aria-busy");
    draw();
    announce(`${page.items.length}${page.next_cursor ? " or more" : ""} experiments`);
  }
  async function more() {
    const page = await read(query("/experiments", { ...state.filters, limit: 200, cursor: state.cursor }), signal);
    state.items = merged(state.items, page.items);
    state.cursor = page.next_cursor;
    draw();
  }
  const reload = () => load().catch((error) => { if (!signal.aborted && error.status !== 401) replace(foot, h("p", { class: "fault", role: "alert" }, error.message)); });
  await load();
  replace(view, h("div", { class: "heading" }, h("h1", {}, "Experiments")), filterBar(state, reload),
    h("div", { class: "table", role: "table", "aria-label": "Experiments" }, h("div", { role: "rowgroup" }, head), body), foot, tray);
  watch(state, draw, signal);
}

function filterBar(state, reload) {
  let timer;
  const typed = (name) => (event) => {
    state.filters[name] = event.target.value.trim();
    clearTimeout(timer);
    timer = setTimeout(reload, 200);
  };
  const set = (name) => (value) => { state.filters[name] = value; reload(); };
  const verdicts = VERDICTS.includes(state.filters.verdict) || !state.filters.verdict ? VERDICTS : [...VERDICTS, state.filters.verdict];
  return h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
    h("input", { type: "search", "aria-label": "Part of the name", placeholder: "Search names", value: state.filters.name, oninput: typed("name") }),
    segmented("Status", [["", "All"], ["queued", "Queued"], ["running", "Running"], ["succeeded", "Done"], ["failed", "Failed"]], state.filters.status, set("status")),
    select("Verdict", [["", "any"], ...verdicts.map((one) => [one, words(one)])], state.filters.verdict, set("verdict")),
    h("input", { type: "search", class: "short", "aria-label": "Tag, as key:value", placeholder: "tag:value", value: state.filters.tag,
      oninput: (event) => { if (!event.target.value || /^[^:]+:/.test(event.target.value)) typed("tag")(event); } }));
}

function merged(first, second) {
  const known = new Set(first.map((one) => one.id));
  return [...first, ...second.filter((one) => !known.has(one.id))];
}

function drawHead(state, head, draw) {
  const sorted = (name) => (state.sort === name ? (state.descending ? "descending" : "ascending") : "none");
  if (!head.childElementCount) {
    head.append(h("span", { role: "columnheader" }, h("span", { class: "hidden" }, "Chosen")), ...COLUMNS.map(([name, text]) =>
      h("span", { role: "columnheader", "data-column": name }, h("button", { type: "button", onclick: () => {
        state.descending = state.sort === name ? !state.descending : name === "created" || name === "accuracy";
        state.sort = name;
        draw();
      } }, text))));
  }
  for (const column of head.querySelectorAll("[data-column]")) column.setAttribute("aria-sort", sorted(column.dataset.column));
}

function drawRows(state, body, draw) {
  const value = COLUMNS.find(([name]) => name === state.sort)[2];
  const sign = state.descending ? -1 : 1;
  const items = [...state.items].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  const elements = items.map((one) => {
    const known = state.rows.get(one.id);
    const age = ago(one.created_at);
    const same = known?.one === one && known.age === age;
    const mark = same ? known.mark : `${JSON.stringify([one.status, one.progress, one.verdict, one.name, one.tags, one.result])}${age}`;
    if (known?.mark === mark) { known.one = one; known.age = age; known.element.querySelector("input").checked = state.chosen.has(one.id); return known.element; }
    const element = row(one, state, draw);
    state.rows.set(one.id, { mark, element, one, age });
    return element;
  });
  const focused = document.activeElement?.closest?.(".row")?.dataset.id;
  // Only where the order or the elements differ: moving an element takes the focus away.
  const standing = [...body.children];
  if (standing.length <= elements.length && standing.every((element, index) => elements[index] === element)) body.append(...elements.slice(standing.length));
  else replace(body, elements);
  if (focused && document.activeElement === document.body) body.querySelector(`[data-id="${focused}"] a`)?.focus();
}

function row(one, state, draw) {
  const choose = (event) => {
    if (event.target.checked && state.chosen.size >= MOST_COMPARED) { event.target.checked = false; announce(`At most ${MOST_COMPARED}`); return; }
    if (event.target.checked) state.chosen.set(one.id, one);
    else state.chosen.delete(one.id);
    draw();
  };
  const tags = Object.entries(one.tags).map(([name, value]) => h("a", { class: "tag", href: query("#/", { tag: `${name}:${value}` }) }, `${name}:${value}`));
  return h("div", { class: "row", role: "row", "data-id": one.id },
    h("span", { role: "cell", class: "choose" }, h("input", { type: "checkbox", "aria-label": `Choose ${title(one)}`, checked: state.chosen.has(one.id), onchange: choose })),
    h("span", { role: "cell", class: "what" }, h("a", { href: `#/experiments/${one.id}` }, title(one)), h("small", {}, one.name ? outline(one.spec) : one.id), tags),
    h("span", { role: "cell" }, badge(one.verdict)),
    h("span", { role: "cell", class: "status" }, progress(one)),
    h("span", { role: "cell", class: "figure", "data-label": "test accuracy" }, percent(one.result?.test_accuracy)),
    h("span", { role: "cell", class: "faint" }, h("time", { datetime: one.created_at, title: one.created_at }, ago(one.created_at))));
}

export function badge(verdict) {
  return verdict ? h("span", { class: `badge ${tone(verdict)}` }, words(verdict)) : h("span", { class: "faint", "aria-label": "no verdict yet" }, "–");
}

export function progress(one) {
  const { iteration, iterations } = one.progress;
  if (one.status !== "running") return h("span", { class: `dot ${one.status}` }, one.status === "succeeded" ? "done" : one.status);
  const share = Math.round((100 * iteration) / iterations);
  return [h("span", { class: "dot running" }, `${share} %`),
    h("progress", { max: iterations, value: iteration, "aria-label": `${number(iteration)} of ${number(iterations)} iterations` })];
}

function drawTray(state, tray, draw) {
  tray.hidden = state.chosen.size === 0;
  const href = query("#/compare", { ids: [...state.chosen.keys()].join(",") });
  replace(tray, h("span", {}, `${state.chosen.size} chosen`),
    h("button", { type: "button", class: "quiet", onclick: () => { state.chosen.clear(); draw(); } }, "Clear"),
    h("a", { class: "button primary", href, "aria-disabled": state.chosen.size < 2 ? "true" : null }, "Compare"));
}

function drawFoot(state, foot, more) {
  if (!state.items.length) {
    const filtered = Object.values(state.filters).some(Boolean);
    replace(foot, filtered
      ? empty("Nothing matches", "No experiment is as these filters want it.", h("a", { class: "button", href: "#/", onclick: () => setTimeout(() => window.dispatchEvent(new Event("hashchange"))) }, "Show all"))
      : empty("No experiments yet", "Train the classic sigmoid network and watch its gradients vanish: it takes some seconds.", h("a", { class: "button primary", href: "#/new" }, "New experiment")));
    return;
  }
  const sortedPart = state.cursor && state.sort !== "created" ? `, sorted among the ${state.items.length} loaded` : "";
  replace(foot, h("span", { class: "faint" }, `${number(state.items.length)}${state.cursor ? " loaded" : ""}${sortedPart}`),
    state.cursor ? h("button", { type: "button", onclick: (event) => { event.target.disabled = true; more(); } }, "Show more") : null);
}

/** New ones appear and running ones move, without a reload; what is hidden asks nothing. */
async function watch(state, draw, signal) {
  for (;;) {
    await pause(state.items.some((one) => !ended(one)) ? 1000 : 3000, signal);
    if (signal.aborted) return;
    if (document.hidden) continue;
    try {
      const asked = state.asked;
      const page = await read(query("/experiments", { ...state.filters, limit: PAGE }), signal);
      const fresh = new Set(page.items.map((one) => one.id));
      const oldest = page.next_cursor ? page.items.at(-1)?.id ?? "" : "";
      const behind = state.items.filter((one) => !fresh.has(one.id) && oldest && one.created_at <= page.items.at(-1).created_at);
      const moving = behind.filter((one) => !ended(one)).slice(0, 20);
      const moved = new Map((await Promise.all(moving.map((one) => read(`/experiments/${one.id}`, signal)))).map((one) => [one.id, one]));
      if (asked !== state.asked || signal.aborted) continue;
      state.items = [...page.items, ...behind.map((one) => moved.get(one.id) ?? one)];
      if (state.cursor === null) state.cursor = behind.length ? null : page.next_cursor;
      draw();
    } catch (error) {
      if (signal.aborted || (error.status === 401 && !key.get())) return;
    }
  }
}
