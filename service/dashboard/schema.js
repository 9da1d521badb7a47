/** A form from a JSON schema: every control knows its JSON pointer, so that a refusal stands where it belongs. */

import { h, replace } from "./dom.js";
import { number, words } from "./format.js";

/** Resolves `$ref` within an OpenAPI document. */
export function resolver(document) {
  return (schema) => (schema?.$ref ? schema.$ref.split("/").slice(1).reduce((found, name) => found[name], document) : schema);
}

/** What a value is where nobody has said: the schema's default, or the first of what it may be. */
export function initial(schema, resolve) {
  const here = resolve(schema);
  if (here.default !== undefined) return structuredClone(here.default);
  if (here.const !== undefined) return here.const;
  if (nullable(here)) return null;
  const choices = variants(here, resolve);
  if (choices) return { ...initial(choices[0].schema, resolve), [choices[0].property]: choices[0].name };
  const inner = alternative(here, resolve);
  if (inner) return initial(inner, resolve);
  if (here.enum) return here.enum[0];
  if (here.properties) return Object.fromEntries(Object.entries(here.properties).map(([name, property]) => [name, initial(property, resolve)]));
  return here.type === "object" ? {} : here.type === "array" ? [] : here.type === "boolean" ? false : "";
}

function nullable(schema) {
  return schema.anyOf?.some((one) => one.type === "null") ?? false;
}

/** The objects among which a property decides, such as `name`; a bare string stands for one of them and is left out. */
function variants(schema, resolve) {
  const found = [schema, ...(schema.anyOf ?? [])].map(resolve).find((one) => one.discriminator);
  if (!found) return null;
  const { propertyName, mapping } = found.discriminator;
  const order = found.oneOf.map((one) => one.$ref);
  const named = Object.entries(mapping).map(([name, reference]) => ({ name, property: propertyName, schema: { $ref: reference } }));
  const rank = ({ name, schema: one }) => [order.indexOf(one.$ref), (resolve(one).properties[propertyName].enum ?? []).indexOf(name)];
  const before = (a, b) => { const [x, y] = [rank(a), rank(b)]; return x[0] - y[0] || x[1] - y[1]; };
  // Its own default goes first.
  const preferred = resolve(found.oneOf[0]).properties[propertyName].default;
  return named.sort((a, b) => (b.name === preferred) - (a.name === preferred) || before(a, b));
}

/** Of an `anyOf`, what a form offers: the object before the bare string, the number before the object. */
function alternative(schema, resolve) {
  const all = schema.anyOf?.map(resolve).filter((one) => one.type !== "null");
  return all ? all.find((one) => one.type === "number" || one.type === "integer") ?? all.find((one) => one.properties) ?? all[0] : null;
}

/** Controls for `schema`, which write into `value` and call `changed`. */
export class Form {
  constructor(document, value, changed) {
    this.resolve = resolver(document);
    this.value = value;
    this.changed = changed;
  }

  build(schema) {
    const { properties } = this.resolve(schema);
    const plain = [], choices = [], groups = new Map();
    for (const [name, property] of Object.entries(properties)) {
      const control = this.control(property, this.value, name, `/${name}`);
      if (control.matches(".group")) groups.set(name, control);
      else (control.matches(".choice") ? choices : plain).push(control);
    }
    const collected = (legend, controls) => (controls.length ? [h("fieldset", { class: "group" }, h("legend", {}, legend), controls)] : []);
    // What is most often changed comes first; what a later release adds comes last.
    const { network, ...others } = Object.fromEntries(groups);
    return [...collected("What it is called", plain), network, ...collected("Optimization", choices), others.training, others.dataset,
      ...Object.entries(others).filter(([name]) => !["training", "dataset"].includes(name)).map(([, control]) => control)].filter(Boolean);
  }

  control(schema, parent, name, pointer) {
    const here = this.resolve(schema);
    const choices = variants(here, this.resolve);
    if (choices) return this.choice(choices, nullable(here), parent, name, pointer);
    if (here.anyOf) return this.control(this.narrowed(here, parent[name]), parent, name, pointer);
    if (here.properties) return this.group(here, parent, name, pointer);
    if (here.type === "array" && this.resolve(here.items).enum) return this.checks(this.resolve(here.items).enum, parent, name, pointer);
    if (here.type === "object") return this.pairs(here, parent, name, pointer);
    return this.field(here, parent, name, pointer);
  }

  /** The alternative that the value is of; a name that may be null stays a text that may be empty. */
  narrowed(here, value) {
    const all = here.anyOf.map(this.resolve);
    const fitting = typeof value === "object" && value !== null ? all.find((one) => one.properties) : null;
    return { ...(fitting ?? alternative(here, this.resolve)), title: here.title, nullable: nullable(here) };
  }

  group(here, parent, name, pointer) {
    parent[name] ??= initial(here, this.resolve);
    const inner = Object.entries(here.properties).filter(([, property]) => this.resolve(property).const === undefined)
      .map(([property, schema]) => this.control(schema, parent[name], property, `${pointer}/${property}`));
    return h("fieldset", { class: "group", "data-pointer": pointer }, h("legend", {}, sentence(name)), inner);
  }

  /** Which of several objects it is, and that object's own fields. */
  choice(choices, mayBeNone, parent, name, pointer) {
    const { property } = choices[0];
    const own = h("div", { class: "group own" });
    const fill = () => {
      const chosen = choices.find((one) => one.name === parent[name]?.[property]);
      const fields = chosen ? Object.entries(this.resolve(chosen.schema).properties).filter(([key]) => key !== property)
        .map(([key, schema]) => { if (parent[name][key] === undefined) parent[name][key] = initial(schema, this.resolve); return this.control(schema, parent[name], key, `${pointer}/${key}`); }) : [];
      own.hidden = !fields.length;
      replace(own, fields);
    };
    const id = identifier(pointer);
    const picked = h("select", { id, "data-pointer": `${pointer}/${property}`, onchange: (event) => {
      const chosen = choices.find((one) => one.name === event.target.value);
      parent[name] = chosen ? { ...initial(chosen.schema, this.resolve), [property]: chosen.name } : null;
      fill();
      this.changed();
    } }, mayBeNone ? h("option", { value: "" }, "none") : null, choices.map((one) => h("option", { value: one.name, selected: parent[name]?.[property] === one.name }, words(one.name))));
    fill();
    const field = h("div", { class: "field", "data-pointer": pointer }, h("label", { for: id }, sentence(name)), picked, fault(id));
    return h("div", { class: "choice" }, field, own);
  }

  checks(options, parent, name, pointer) {
    const toggle = (option) => (event) => {
      const kept = new Set(parent[name]);
      if (event.target.checked) kept.add(option);
      else kept.delete(option);
      parent[name] = options.filter((one) => kept.has(one));
      this.changed();
    };
    return h("fieldset", { class: "field wide", "data-pointer": pointer }, h("legend", {}, sentence(name)), h("div", { class: "checks" }, options.map((option) =>
      h("label", {}, h("input", { type: "checkbox", checked: parent[name].includes(option), onchange: toggle(option) }), words(option)))), fault(identifier(pointer)));
  }

  /** Names and texts, one pair a line. */
  pairs(here, parent, name, pointer) {
    const id = identifier(pointer);
    const text = Object.entries(parent[name] ?? {}).map(([key, value]) => `${key}:${value}`).join(", ");
    const input = h("input", { id, type: "text", value: text, placeholder: "course:dl-101, arm:control", "aria-describedby": `${id}-fault`, oninput: (event) => {
      const given = event.target.value.split(",").map((pair) => pair.trim()).filter(Boolean).map((pair) => { const [key, ...rest] = pair.split(":"); return [key.trim(), rest.join(":").trim()]; });
      parent[name] = Object.fromEntries(given);
      this.changed();
    } });
    return h("div", { class: "field", "data-pointer": pointer }, h("label", { for: id }, sentence(name)), input, fault(id));
  }

  field(here, parent, name, pointer) {
    const id = identifier(pointer);
    const says = { id, "data-pointer": pointer, "aria-describedby": `${id}-fault` };
    const write = (value) => { parent[name] = value; this.changed(); };
    const labelled = (input, hint) => h("div", { class: "field" }, h("label", { for: id }, sentence(name)), input, hint ? h("span", { class: "hint" }, hint) : null, fault(id));
    if (here.enum) return labelled(h("select", { ...says, onchange: (event) => write(event.target.value) }, here.enum.map((one) => h("option", { value: one, selected: parent[name] === one }, words(one)))));
    if (here.type === "boolean") return labelled(h("input", { ...says, type: "checkbox", checked: parent[name], onchange: (event) => write(event.target.checked) }));
    if (here.type === "number" || here.type === "integer") {
      // As text: what is no number goes to the server as it is, whose words about it are the ones to read.
      const read = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
      return labelled(h("input", { ...says, type: "text", inputmode: "decimal", autocomplete: "off", value: String(parent[name]), oninput: (event) => write(read(event.target.value)) }), [/(^|_)every$/.test(name) ? "iterations" : null, bounds(here)].filter(Boolean).join(", "));
    }
    return labelled(h("input", { ...says, type: "text", autocomplete: "off", value: parent[name] ?? "", oninput: (event) => write(event.target.value === "" && here.nullable ? null : event.target.value) }));
  }
}

function bounds(here) {
  const low = here.minimum ?? here.exclusiveMinimum;
  const high = here.maximum ?? here.exclusiveMaximum;
  if (low === undefined && high === undefined) return null;
  if (high === undefined || high >= 1e12) return `${here.exclusiveMinimum !== undefined ? "over" : "at least"} ${number(low)}`;
  return `${here.exclusiveMinimum !== undefined ? "over " : ""}${number(low)} to ${here.exclusiveMaximum !== undefined ? "under " : ""}${number(high)}`;
}

function identifier(pointer) {
  return `field${pointer.replaceAll("/", "-")}`;
}

function fault(id) {
  return h("span", { class: "fault", id: `${id}-fault`, hidden: true });
}

function sentence(name) {
  const text = words(name);
  return text[0].toUpperCase() + text.slice(1);
}

/** Show each refusal at its field, or at the nearest one above; what has no place comes back. */
export function showFaults(form, errors) {
  for (const marked of form.querySelectorAll("[aria-invalid]")) marked.removeAttribute("aria-invalid");
  for (const text of form.querySelectorAll(".field .fault")) text.hidden = true;
  const homeless = [];
  let first = null;
  for (const error of errors) {
    const control = nearest(form, error.pointer);
    const text = control?.closest(".field")?.querySelector(".fault");
    if (!text) { homeless.push(error); continue; }
    const input = control.matches("input, select") ? control : control.querySelector("input, select");
    input?.setAttribute("aria-invalid", "true");
    text.textContent = error.message;
    text.hidden = false;
    first ??= input;
  }
  first?.focus();
  return homeless;
}

function nearest(form, pointer) {
  for (let path = pointer; path; path = path.slice(0, path.lastIndexOf("/"))) {
    const found = form.querySelector(`[data-pointer="${CSS.escape(path)}"]`);
    if (found && !found.matches(".group")) return found;
  }
  return null;
}
