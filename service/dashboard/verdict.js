/** The verdict in words, what it rests on, and what to change. */

import { ended } from "./api.js";
import { h, replace } from "./dom.js";
import { number, tone, watched, words } from "./format.js";

const SHOWN_EVIDENCE = 8;

export function verdictCard(element, experiment, diagnosis) {
  const mark = JSON.stringify([experiment.status, experiment.error, diagnosis?.verdict, diagnosis?.summary, diagnosis?.findings]);
  if (element.dataset.mark === mark) return;
  element.dataset.mark = mark;
  const open = new Set([...element.querySelectorAll("details[open]")].map((details) => details.dataset.finding));
  const broken = experiment.status === "failed" ? experiment.error?.message ?? "The service failed." : null;
  if (broken && !watched(experiment)) {
    return replace(element, h("div", { class: "card verdict bad" }, h("p", { class: "sentence" }, broken),
      h("p", { class: "faint" }, "This is no verdict on the network: the service could not train it. ", h("code", {}, experiment.error?.code ?? ""))));
  }
  if (watched(experiment) && experiment.progress.iteration === 0) {
    return replace(element, h("div", { class: "card verdict" }, h("p", { class: "sentence" }, broken ?? "Waiting for the loop's first report. The verdict comes with it.")));
  }
  if (!diagnosis || (experiment.status === "queued" && experiment.progress.iteration === 0)) {
    return replace(element, h("div", { class: "card verdict" }, h("p", { class: "sentence" }, "Waiting for a worker. The verdict comes with the first measurements; what theory expects is below already.")));
  }
  const lead = h("div", { class: "line" }, h("span", { class: `badge ${tone(diagnosis.verdict)}`, "data-verdict": diagnosis.verdict }, words(diagnosis.verdict)),
    diagnosis.cause ? h("span", { class: "faint" }, `cause: ${words(diagnosis.cause)}`) : null,
    ended(experiment) ? null : h("span", { class: "faint" }, "so far"));
  return replace(element, h("div", { class: `card verdict ${tone(diagnosis.verdict)}` }, lead, broken ? h("p", { class: "fault" }, broken) : null, h("p", { class: "sentence" }, diagnosis.summary),
    diagnosis.findings.map((found, index) => finding(found, experiment, open, index)),
    diagnosis.failed_rules.length ? h("p", { class: "fault" }, `Rules that failed themselves: ${diagnosis.failed_rules.map(words).join(", ")}.`) : null));
}

function finding(found, experiment, open, index) {
  const name = `${found.rule}-${found.phase}`;
  const where = found.layers.length > 4 ? `${found.layers[0]} … ${found.layers.at(-1)} (${found.layers.length} layers)` : found.layers.join(", ");
  const when = found.ongoing ? `from iteration ${number(found.first_step)} on` : `iterations ${number(found.first_step)} to ${number(found.last_step)}`;
  return h("div", { class: "finding" }, h("details", { "data-finding": name, open: open.size ? open.has(name) : index === 0 },
    h("summary", {}, h("span", { class: `badge ${found.severity}` }, found.severity), h("strong", {}, words(found.rule)),
      h("span", { class: "faint" }, [words(found.phase), when, where].filter(Boolean).join(" · "))),
    h("p", {}, found.explanation),
    h("p", { class: "evidence" }, evidence(found.evidence)),
    found.remedies.length ? h("ul", { class: "remedies", "aria-label": "Remedies" }, found.remedies.map((remedy) => h("li", {},
      h("p", {}, h("strong", {}, words(remedy.id)), " – ", remedy.reason), watched(experiment) ? null : h("button", { type: "button", onclick: () => apply(remedy, experiment) }, "Try it")))) : null));
}

function evidence(given) {
  return Object.entries(given).filter(([, value]) => typeof value === "number" || typeof value === "string").slice(0, SHOWN_EVIDENCE)
    .map(([name, value]) => h("span", {}, `${words(name)} `, h("code", {}, number(value))));
}

/** Open the form with this experiment's spec and the remedy's change of it. */
function apply(remedy, experiment) {
  const spec = merge(structuredClone(experiment.spec), remedy.patch);
  spec.name = `${(experiment.name ?? "experiment").slice(0, 150)} + ${words(remedy.id)}`.slice(0, 200);
  sessionStorage.setItem("gradprobe.draft", JSON.stringify(spec));
  location.hash = "#/new?draft=1";
}

/** A JSON merge patch, RFC 7396. */
export function merge(target, patch) {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const base = typeof target === "object" && target !== null && !Array.isArray(target) ? target : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete base[name];
    else base[name] = merge(base[name], value);
  }
  return base;
}
