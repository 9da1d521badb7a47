/** The frame: which view stands in it, its colours, and the key. Views live in the fragment, `#/experiments/exp_…`. */

import { key, read } from "./api.js";
import { announce, failure, h, replace } from "./dom.js";

const view = document.getElementById("view");
const ROUTES = [
  [/^\/$/, "list", "./list.js"],
  [/^\/experiments\/(exp_[A-Za-z0-9]+)$/, "experiment", "./experiment.js"],
  [/^\/compare$/, "compare", "./compare.js"],
  [/^\/sweeps(?:\/(swp_[A-Za-z0-9]+))?$/, "sweeps", "./sweep.js"],
  [/^\/new$/, "new", "./form.js"],
];
let leave = null;

async function show() {
  const [path, search = ""] = (location.hash.slice(1) || "/").split("?");
  const [pattern, name, module] = ROUTES.find(([expression]) => expression.test(path)) ?? [];
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.getElementById("key").hidden = !key.get();
  if (!pattern) return replace(view, failure({ status: 404, message: "This page has no such part." }));
  replace(view, h("p", { class: "loading" }, "Loading"));
  view.dataset.view = name;
  try {
    const { mount } = await import(module);
    if (signal.aborted) return undefined;
    window.scrollTo(0, 0);
    await mount(view, { match: pattern.exec(path), parameters: new URLSearchParams(search), signal });
    announce(document.title);
  } catch (error) {
    if (!signal.aborted && error.status !== 401) {
      if (!error.status) console.warn(error);
      replace(view, failure(error, show));
    }
  }
  return undefined;
}

/** The server asks for a key: keep it for this tab alone, and go on where we were. */
function askForKey(problem) {
  leave?.abort();
  const wrong = key.get() !== null;
  key.forget();
  const field = h("input", { id: "secret", type: "password", autocomplete: "off", spellcheck: "false", required: true, placeholder: "gp_…", "aria-describedby": "key-says" });
  const says = h("p", { id: "key-says", class: wrong ? "fault" : "faint", role: wrong ? "alert" : null }, problem.message);
  const form = h("form", { class: "card key", onsubmit: async (event) => {
    event.preventDefault();
    key.set(field.value.trim());
    try { await read("/experiments?limit=1"); } catch (error) { if (error.status === 401) return; }
    show();
  } }, h("h1", {}, "This server asks for a key"), says, h("label", { for: "secret" }, "Key"), field,
  h("button", { class: "primary", type: "submit" }, "Open"),
  h("p", { class: "faint" }, "Whoever runs the server makes one with ", h("code", {}, "gradprobe keys create"), ". It stays in this tab until you close it."));
  replace(view, form);
  document.title = "Key needed · Gradprobe";
  field.focus();
}

const THEMES = ["system", "light", "dark"];
const SIGNS = { system: "◐", light: "☀", dark: "☾" };

function theme(chosen) {
  const button = document.getElementById("theme");
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  localStorage.setItem("gradprobe.theme", chosen);
  button.textContent = SIGNS[chosen];
  button.setAttribute("aria-label", `Colours: ${chosen === "system" ? "as the system" : chosen}`);
  button.title = button.getAttribute("aria-label");
  window.dispatchEvent(new Event("themed"));
}

document.getElementById("theme").addEventListener("click", () => {
  const now = localStorage.getItem("gradprobe.theme") ?? "system";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
document.getElementById("key").addEventListener("click", () => { key.forget(); show(); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); view.focus(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("themed")));
window.addEventListener("key-needed", (event) => askForKey(event.detail));
window.addEventListener("hashchange", show);
theme(THEMES.includes(localStorage.getItem("gradprobe.theme")) ? localStorage.getItem("gradprobe.theme") : "system");
show();
