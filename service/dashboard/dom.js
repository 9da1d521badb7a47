/** Elements without a framework: `h("p", {class: "x", onclick: f}, "text", child)`. Text is always text, never markup. */

export function h(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled" || key === "hidden") element[key] = value;
    // Through the object model: a style attribute is inline style, which the page's policy forbids.
    else if (key === "style") for (const [name, given] of Object.entries(value)) element.style.setProperty(name, given);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Say something to a screen reader. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** A choice of a few, as radio buttons that look like one control. */
export function segmented(label, options, chosen, onchange) {
  const name = `choice-${Math.random().toString(36).slice(2)}`;
  return h("fieldset", { class: "segmented" }, h("legend", { class: "hidden" }, label), options.map(([value, text]) =>
    h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }), h("span", {}, text))));
}

export function select(label, options, chosen, onchange) {
  return h("label", { class: "pick" }, h("span", {}, label),
    h("select", { onchange: (event) => onchange(event.target.value) },
      options.map(([value, text]) => h("option", { value, selected: value === chosen }, text))));
}

export function empty(title, text, ...actions) {
  return h("div", { class: "state" }, h("h2", {}, title), h("p", {}, text), actions.length ? h("div", { class: "actions" }, actions) : null);
}

/** What went wrong, in the server's words, and what to do. */
export function failure(error, again) {
  const title = error.status === 404 ? "Not found" : error.status ? "The server refused" : "The server can't be reached";
  return h("div", { class: "state error", role: "alert" }, h("h2", {}, title), h("p", {}, error.message),
    error.requestId ? h("p", { class: "faint" }, "Request ", h("code", {}, error.requestId)) : null,
    h("div", { class: "actions" }, again ? h("button", { type: "button", onclick: again }, "Try again") : null,
      h("a", { class: "button", href: "#/" }, "All experiments")));
}
