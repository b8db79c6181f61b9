// SPDX-License-Identifier: Apache-2.0
// Elements from words: text only ever becomes text. No markup is parsed anywhere on this page.

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  folder: "M2.5 4.5h4l1.5 2h5.5v6.5h-11z",
  file: "M4 2.5h5l3 3v8H4zM9 2.5v3h3",
  link: "M6.5 9.5l3-3M5 8l-1 1a2.1 2.1 0 0 0 3 3l1-1M11 8l1-1a2.1 2.1 0 0 0-3-3L8 5",
  pipe: "M2.5 6h11v4h-11zM5 6v4M11 6v4",
  socket: "M8 8m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0M6.5 6.5v2M9.5 6.5v2",
  device: "M3 3.5h10v9H3zM5.5 6h5v4h-5z",
  unknown: "M4 2.5h5l3 3v8H4zM6.8 7.2a1.2 1.2 0 1 1 1.6 1.2c-.3.1-.4.3-.4.6M8 11v.1",
  disk: "M2.5 9.5h11v3.5h-11zM2.5 9.5l1.8-6h7.4l1.8 6M11 11.3h.1",
  search: "M7 7m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0M10 10l3.5 3.5",
  list: "M3 4.5h1M3 8h1M3 11.5h1M6.5 4.5H13M6.5 8H13M6.5 11.5H13",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  close: "M4 4l8 8M12 4l-8 8",
  chevron: "M6 4l4 4-4 4",
  up: "M8 12.5v-9M4.5 7L8 3.5 11.5 7",
  down: "M8 3.5v9M4.5 9L8 12.5 11.5 9",
  refresh: "M12.5 5.5A5 5 0 1 0 13 8M12.7 2.8v2.9H9.8",
  download: "M8 2.5v7M5 7l3 3 3-3M3 13h10",
  plus: "M8 3.5v9M3.5 8h9",
  info: "M8 8m-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0M8 7.5v3.2M8 5.3v.1",
  clock: "M8 8m-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0M8 5v3.2l2 1.3",
  moon: "M12.5 9.6A5 5 0 0 1 6.4 3.5a5 5 0 1 0 6.1 6.1z",
  log: "M4 2.5h8v11H4zM6 5.5h4M6 8h4M6 10.5h2.5",
  keys: "M6 6a2 2 0 1 1 2.6 1.9c-.4.2-.6.5-.6 1v.6M8 12v.1",
  copy: "M6 5.5h7v8H6zM10 5.5v-3H3v8h3",
  warning: "M8 2.8l5.7 10H2.3zM8 6.5v3M8 11.3v.1",
  edit: "M3 13l.7-2.8 7-7 2.1 2.1-7 7zM9.4 4.5l2.1 2.1",
};

/**
 * An element. `props`: attributes; `on…` listeners; booleans as present or absent; `style` as an object.
 * @param {string} tag @param {Record<string, any>|null} props @param {...any} children
 * @returns {any}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  put(element, ...children);
  return element;
}

/** Adds strings as text, nodes as they are; arrays are spread, nothing is left out but null, undefined and false. */
export function put(element, ...children) {
  for (const child of children.flat(9)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Replaces all that is in an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({
    viewBox: "0 0 16 16",
    class: `icon icon-${name}`,
    "aria-hidden": "true",
    focusable: "false",
  }))
    svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name] ?? PATHS.unknown);
  svg.append(path);
  return svg;
}

/**
 * A button that is an icon; `label` is what it is called.
 * @param {string} label @param {{name: string, [prop: string]: any}} props
 */
export function button(label, { name, ...props }) {
  return h("button", { type: "button", "aria-label": label, title: label, ...props }, icon(name));
}

/** Tells it to whoever does not see it, too. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  setTimeout(() => {
    place.textContent = text;
  }, 30);
}

/** Takes the message away: what it offered belongs to another place. */
export function hush() {
  document.querySelector(".toast:not(.bad)")?.remove();
}

/**
 * A message at the foot of the page for a moment, a bad one until it is closed; also said.
 * @param {string} text @param {{bad?: boolean, action?: HTMLElement}} more
 */
export function toast(text, { bad = false, action } = {}) {
  document.querySelector(".toast")?.remove();
  const before = /** @type {HTMLElement} */ (document.activeElement);
  const away = () => {
    const inside = note.contains(document.activeElement);
    note.remove();
    if (inside && before?.isConnected) before.focus();
  };
  action?.addEventListener("click", away);
  const note = h(
    "section",
    { "aria-label": "Message", class: `toast${bad ? " bad" : ""}` },
    bad && icon("warning"),
    h("p", {}, text),
    h("div", { class: "actions" }, action, button("Close", { name: "close", onclick: away })),
  );
  document.body.append(note);
  say(text);
  if (!bad)
    setTimeout(
      () => {
        if (!note.matches(":hover, :focus-within")) note.remove();
      },
      action ? 20_000 : 6000,
    );
}

/** Copies a text, and says so. */
export function copies(text, label = "Copy") {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied.");
    } catch {
      toast("The browser does not let this page copy: select the text instead.", { bad: true });
    }
  };
  return h(
    "button",
    { type: "button", class: "small", "aria-label": label, title: label, onclick: copy },
    icon("copy"),
  );
}
