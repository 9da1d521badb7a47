/** All experiments: filter, sort, follow, choose some to compare. Filters and order are the server's, over all there are. */

import { ended, key, pause, query, read } from "./api.js";
import { announce, empty, h, replace, segmented, select } from "./dom.js";
import { ago, number, outline, percent, title, tone, words } from "./format.js";

const PAGE = 50;
const MOST_COMPARED = 20;
const VERDICTS = ["healthy", "vanishing", "exploding", "poor_initialization", "saturation", "dying_units", "non_finite", "diverging",
  "learning_rate_too_high", "learning_rate_too_low", "stalled", "oscillation", "overfitting", "undecided"];
const LARGEST_PAGE = 500;
const NEWEST = "-created";
/** What the server sorts by, and its order at the first click: of the newest, the best and so on first. */
const COLUMNS = [["name", "Experiment", "name"], ["verdict", "Verdict", "-verdict"], ["status", "Status", "-status"],
  ["accuracy", "Test accuracy", "-accuracy"], ["created", "Created", NEWEST]];
const ORDERS = [[NEWEST, "newest"], ["created", "oldest"], ["name", "name"], ["-accuracy", "best accuracy"], ["accuracy", "worst accuracy"],
  ["-verdict", "verdict"], ["-status", "status"]];

export async function mount(view, { parameters, signal }) {
  document.title = "Experiments · Gradprobe";
  const state = {
    filters: { status: parameters.get("status") ?? "", verdict: parameters.get("verdict") ?? "", name: parameters.get("name") ?? "", tag: parameters.get("tag") ?? "" },
    sort: COLUMNS.some(([name]) => name === parameters.get("sort")?.replace("-", "")) ? parameters.get("sort") : NEWEST,
    items: [], cursor: null, chosen: new Map(), rows: new Map(), asked: 0,
  };
  const body = h("div", { class: "rows", role: "rowgroup" });
  const foot = h("div", { class: "foot" });
  const tray = h("div", { class: "tray", hidden: true, role: "region", "aria-label": "Chosen experiments" });
  const head = h("div", { class: "row head", role: "row" });
  const draw = () => { drawHead(state, head, order); drawRows(state, body, draw); drawTray(state, tray, draw); drawFoot(state, foot, more); };
  async function load() {
    const asked = ++state.asked;
    history.replaceState(null, "", query("#/", { ...state.filters, sort: state.sort === NEWEST ? null : state.sort }));
    body.setAttribute("aria-busy", "true");
    const page = await read(wanted(state, PAGE), signal);
    if (asked !== state.asked) return;
    Object.assign(state, { items: page.items, cursor: page.next_cursor });
    body.removeAttribute("aria-busy");
    draw();
    announce(`${page.items.length}${page.next_cursor ? " or more" : ""} experiments`);
  }
  async function more() {
    const asked = state.asked;
    const page = await read(wanted(state, 200, state.cursor), signal);
    if (asked !== state.asked) return;
    state.items = merged(state.items, page.items);
    state.cursor = page.next_cursor;
    draw();
  }
  const reload = () => load().catch((error) => { if (!signal.aborted && error.status !== 401) replace(foot, h("p", { class: "fault", role: "alert" }, error.message)); });
  const order = (sort) => { state.sort = sort; for (const one of view.querySelectorAll(".order select")) one.value = sort; reload(); };
  await load();
  replace(view, h("div", { class: "heading" }, h("h1", {}, "Experiments")), filterBar(state, reload, order),
    h("div", { class: "table", role: "table", "aria-label": "Experiments" }, h("div", { role: "rowgroup" }, head), body), foot, tray);
  watch(state, draw, signal);
}

function filterBar(state, reload, order) {
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
    segmented("Status", [["", "All"], ["queued", "Queued"], ["running", "Running"], ["succeeded", "Done"], ["failed", "Failed"], ["cancelled", "Cancelled"]], state.filters.status, set("status")),
    select("Verdict", [["", "any"], ...verdicts.map((one) => [one, words(one)])], state.filters.verdict, set("verdict")),
    h("input", { type: "search", class: "short", "aria-label": "Tag, as key:value", placeholder: "tag:value", value: state.filters.tag,
      oninput: (event) => { if (!event.target.value || /^[^:]+:/.test(event.target.value)) typed("tag")(event); } }),
    // Where it is too narrow for the columns' heads.
    h("div", { class: "order" }, select("Sort", ORDERS, state.sort, order)));
}

function wanted(state, limit, cursor = null) {
  return query("/experiments", { ...state.filters, sort: state.sort, limit, cursor });
}

function merged(first, second) {
  const known = new Set(first.map((one) => one.id));
  return [...first, ...second.filter((one) => !known.has(one.id))];
}

function drawHead(state, head, order) {
  const sorted = (name) => (state.sort === name ? "ascending" : state.sort === `-${name}` ? "descending" : "none");
  if (!head.childElementCount) {
    head.append(h("span", { role: "columnheader" }, h("span", { class: "hidden" }, "Chosen")), ...COLUMNS.map(([name, text, first]) =>
      h("span", { role: "columnheader", "data-column": name }, h("button", { type: "button", onclick: () => {
        order(state.sort === name ? `-${name}` : state.sort === `-${name}` ? name : first);
      } }, text))));
  }
  for (const column of head.querySelectorAll("[data-column]")) column.setAttribute("aria-sort", sorted(column.dataset.column));
}

function drawRows(state, body, draw) {
  const elements = state.items.map((one) => {
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
  // How long a loop of somebody's own will be is known where it was told.
  if (one.status === "running" && one.spec.training.iterations === null) return h("span", { class: "dot running" }, "running");
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
  replace(foot, h("span", { class: "faint" }, `${number(state.items.length)} ${state.items.length === 1 ? "experiment" : "experiments"}${state.cursor ? " loaded" : ""}`),
    state.cursor ? h("button", { type: "button", onclick: (event) => { event.target.disabled = true; more(); } }, "Show more") : null);
}

/** New ones appear and running ones move, without a reload; what is hidden asks nothing. */
async function watch(state, draw, signal) {
  for (;;) {
    await pause(state.items.some((one) => !ended(one)) ? 1000 : 3000, signal);
    if (signal.aborted) return;
    if (document.hidden) continue;
    try {
      const { asked, cursor } = state;
      const found = await (state.sort === NEWEST ? newest : again)(state, signal);
      // Neither over another list that was asked for meanwhile, nor over more of this one.
      if (asked !== state.asked || cursor !== state.cursor || signal.aborted) continue;
      Object.assign(state, found);
      draw();
    } catch (error) {
      if (signal.aborted || (error.status === 401 && !key.get())) return;
    }
  }
}

/** The newest first: what is new is on the first page, and what is older only moves where it has not ended. */
async function newest(state, signal) {
  const page = await read(wanted(state, PAGE), signal);
  const fresh = new Set(page.items.map((one) => one.id));
  const behind = state.items.filter((one) => !fresh.has(one.id) && page.next_cursor && one.created_at <= page.items.at(-1).created_at);
  const moved = await latest(behind, signal);
  return { items: [...page.items, ...behind.map((one) => moved.get(one.id) ?? one)], cursor: state.cursor === null && !behind.length ? page.next_cursor : state.cursor };
}

/** In any other order what is new, or has changed, is anywhere: where the first page has changed, all of it is asked for. */
async function again(state, signal) {
  const { items } = state;
  const page = await read(wanted(state, PAGE), signal);
  const complete = state.cursor === null && items.length > PAGE;
  const same = page.items.length <= items.length && page.items.every((one, index) => one.id === items[index].id);
  if (same && !complete && (items.length > page.items.length || page.next_cursor === state.cursor)) {
    const moved = await latest(items.slice(page.items.length), signal);
    return { items: [...page.items, ...items.slice(page.items.length).map((one) => moved.get(one.id) ?? one)] };
  }
  const found = [];
  let cursor = null;
  do {
    const next = await read(wanted(state, Math.min(LARGEST_PAGE, Math.max(PAGE, items.length - found.length)), cursor), signal);
    found.push(...next.items);
    cursor = next.next_cursor;
  } while (cursor && found.length < items.length);
  return { items: found, cursor };
}

/** Those of them that have not ended, as they are now. */
async function latest(items, signal) {
  const moving = items.filter((one) => !ended(one)).slice(0, 20);
  const look = (one) => read(`/experiments/${one.id}`, signal).catch((error) => { if (error.status === 404) return one; throw error; });
  return new Map((await Promise.all(moving.map(look))).map((one) => [one.id, one]));
}
