// SPDX-License-Identifier: Apache-2.0
// The page: puts its parts together and moves between its views. What the parts are is in their own modules.

import { events, get } from "./api.js";
import { Basket } from "./basket.js";
import { Details } from "./details.js";
import { button, fill, h, hush, icon, say, toast } from "./dom.js";
import { Files } from "./files.js";
import * as format from "./format.js";
import { over, signIn, unreachable } from "./gate.js";
import { MOST_CHOSEN } from "./grid.js";
import { Log } from "./log.js";
import * as route from "./route.js";
import { Search } from "./search.js";
import { Clock, help } from "./session.js";
import { Tree } from "./tree.js";

const app = document.getElementById("app");
const DRAWER = matchMedia("(max-width: 60rem)"); // the volumes are behind a button
const OVER = matchMedia("(max-width: 74rem)"); // details lie over the list
const FOR_MORE =
  "Ask for a new link: the restore point is as it was, and a download of the same files goes on where it was cut.";
const THEMES = ["auto", "light", "dark"];

theme(localStorage.getItem("theme") ?? "auto");
start();

async function start() {
  try {
    const session = await get("/api/session", {}, { background: true });
    if (/^#t=/.test(location.hash)) history.replaceState(null, "", location.pathname); // a link that is not needed any more
    page(session);
  } catch (error) {
    if (error.status === 401) await signIn(app, start);
    else if (error.type === "Unreachable") unreachable(app, start);
    else over(app, format.sentence(error), error.hint ?? "");
  }
}

function theme(name) {
  document.documentElement.style.colorScheme = name === "auto" ? "light dark" : name;
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

/** The other one than what is seen; the system's own when that is the same. */
function otherTheme() {
  const now = document.documentElement.dataset.theme;
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  theme(next);
  toast({ auto: "Colours as the system has them.", light: "Light colours.", dark: "Dark colours." }[next]);
}

function page(session) {
  let ended = false;
  const resource = h("bdi", {}, session.resource);
  const points = h(
    "select",
    {
      "aria-label": "Restore point",
      onchange: () =>
        route.go({ ...files.here(), ...(route.read()?.view === "files" ? route.read() : {}), point: points.value }),
    },
    session.points.map((point) => h("option", { value: point.id }, format.point(point, session.points))),
  );
  const listCount = h("span", { class: "count" });
  const counted = (count) => {
    listCount.textContent = count ? String(count) : "";
  };
  const nav = (view, name, label, ...more) =>
    h(
      "button",
      { type: "button", title: label, onclick: () => route.go({ view }) },
      icon(name),
      h("span", { class: "wide" }, label),
      ...more,
    );
  const buttons = { list: nav("list", "list", "Restore list", listCount), log: nav("log", "log", "Session log") };
  const clock = new Clock({
    counted,
    stopped: () => finish("It was stopped.", "A new session can be started whenever you need one."),
    ended: () => finish("Its time was over: nobody had used it for a while, or it may not last longer.", FOR_MORE),
  });

  const tree = new Tree({
    open: (volume, path) => {
      drawer(false);
      route.go({ view: "files", point: files.point, volume, path });
    },
  });
  const closed = h("div", { class: "closed" });
  const details = new Details({
    points: () => session.points,
    add,
    download,
    open: (place) => files.reveal(place),
    locate: (place) => {
      searching(false);
      files.reveal(place);
    },
    located: () => !search.element.hidden,
    close: () => panel(false),
  });
  const files = new Files({
    go: route.go,
    failed,
    changed: bar,
    tooMany,
    look: (row) => look({ ...files.place(), path: route.join(files.path, row.key) }, row),
    active: (place, row) => details.show(place, row),
    opened: (point, volumes, warnings) => opened(point, volumes, warnings),
    entered: (volume, path) => {
      tree.at(volume, path);
      document.title = `${path === "/" ? "" : `${route.shown(path).split("/").pop()} · `}Files of ${session.resource}`;
    },
  });
  const name = (id) => files.volumes.find((one) => one.id === id)?.label || id;
  const pointName = (id) =>
    format.point(session.points.find((point) => point.id === id) ?? { made: null }, session.points, false);
  const basket = new Basket({ counted, volume: name, point: pointName, open: (place) => files.reveal(place), failed });
  const log = new Log({ failed, volume: name });
  const search = new Search({
    volumes: () => files.volumes,
    failed,
    tooMany,
    open: (place, row) => {
      if (row.kind === "folder") route.go({ view: "files", ...place });
      else look(place, row);
    },
    locate: (place) => {
      searching(false);
      files.reveal(place);
    },
    active: (place, row) => details.show(place, row),
    changed: bar,
    close: () => searching(false),
  });
  const chosen = h("div", { class: "actions chosen" });

  const menu = button("Volumes", { name: "menu", class: "menu", "aria-expanded": "false", onclick: () => drawer() });
  fill(
    files.element,
    h(
      "div",
      { class: "bar" },
      menu,
      button("One folder up", { name: "up", onclick: () => files.up() }),
      files.crumbs,
      button("Refresh", { name: "refresh", onclick: () => show(true) }),
      files.filter,
      h(
        "button",
        { type: "button", title: "Search", onclick: () => searching(true) },
        icon("search"),
        h("span", { class: "wide" }, "Search"),
      ),
    ),
    files.notes,
    files.grid.frame,
  );
  const main = h(
    "main",
    { class: "main-part", tabindex: "-1" },
    files.element,
    search.element,
    basket.element,
    log.element,
    h("footer", { class: "foot" }, files.status, chosen),
  );
  const side = h(
    "nav",
    { class: "side", "aria-label": "Volumes" },
    h("div", { class: "for-drawer" }, button("Close the volumes", { name: "close", onclick: () => drawer(false) })),
    tree.element,
    closed,
  );
  const shade = h("div", { class: "shade", onclick: () => drawer(false) });
  fill(
    app,
    h(
      "header",
      { class: "head-part" },
      h("img", { src: "/static/icon.svg", alt: "", width: "24", height: "24" }),
      h("h1", {}, h("span", { class: "wide" }, "Files of "), resource),
      h("label", { class: "points" }, points),
      h("span", { class: "gap" }),
      clock.element,
      buttons.list,
      buttons.log,
      button("Colours: as the system, light, dark", { name: "moon", onclick: otherTheme }),
      button("Keys", { name: "keys", class: "for-keys", onclick: help }),
    ),
    h("div", { class: "parts" }, side, shade, main, details.element),
  );
  app.removeAttribute("aria-busy");
  document.title = `Files of ${session.resource}`;
  clock.start(session.left, session.certificate);
  for (const note of session.notes) toast(note);
  search.element.hidden = true;
  panel(!OVER.matches);
  OVER.addEventListener("change", () => {
    if (OVER.matches && !details.element.contains(document.activeElement)) panel(false);
  });
  basket.refresh().catch(failed);
  addEventListener("route", () => show());
  addEventListener("popstate", () => show());
  addEventListener("keydown", keys);
  events.addEventListener("found", () => {
    if (files.grid.problem) show(true);
  });
  events.addEventListener("out", () => {
    finish("Nobody is signed in here any more: the session was stopped, or too many others signed in.", FOR_MORE);
  });
  show();

  function finish(why, hint) {
    if (!ended) over(app, why, hint);
    ended = true;
  }

  async function show(again = false) {
    if (ended) return;
    const wanted = route.read() ?? { view: "files", point: files.point ?? session.first, volume: null, path: "/" };
    hush();
    for (const [part, view] of [
      [files.element, "files"],
      [basket.element, "list"],
      [log.element, "log"],
    ])
      part.hidden = wanted.view !== view;
    for (const [view, place] of Object.entries(buttons)) place.toggleAttribute("aria-current", wanted.view === view);
    search.element.hidden = true;
    files.status.hidden = false;
    app.dataset.view = wanted.view;
    bar();
    try {
      if (wanted.view === "list") {
        const before = document.activeElement;
        await basket.refresh();
        if (document.activeElement === before) basket.grid.element.focus(); // nobody went elsewhere meanwhile
      } else if (wanted.view === "log") await log.refresh();
      else {
        points.value = wanted.point;
        await files.enter(wanted, again);
      }
    } catch (error) {
      failed(error);
    }
  }

  /** @param {import("./api.js").Volume[]} volumes */
  function opened(point, volumes, warnings) {
    tree.show(point, volumes);
    const not = volumes.filter((volume) => volume.why_not);
    const item = (volume) =>
      h(
        "li",
        {},
        h("strong", {}, h("bdi", {}, `${volume.label || volume.id} · ${volume.holds}`)),
        h("p", {}, format.sentence({ what: volume.why_not })),
        volume.hint && h("p", { class: "sub" }, format.sentence({ what: volume.hint })),
      );
    const none = !volumes.some((volume) => volume.opens);
    fill(
      closed,
      not.length > 0 &&
        h("details", { open: none }, h("summary", {}, `${not.length} cannot be opened`), h("ul", {}, not.map(item))),
      warnings.map((text) => h("p", { class: "sub" }, text)),
    );
    say(`Restore point ${pointName(point)}`);
  }

  function failed(error) {
    if (error.name === "AbortError" || error.status === 401 || error.type === "Unreachable") return; // the page says so by itself
    toast(`${format.sentence(error)}${error.hint ? ` ${format.sentence({ what: error.hint })}` : ""}`, { bad: true });
  }

  function tooMany(place, count, filter) {
    if (filter)
      toast(`${format.count(count)} entries: at most ${format.count(MOST_CHOSEN)} can be chosen at once, so none was.`);
    else {
      toast(
        `${format.count(count)} entries are more than can be chosen at once (${format.count(MOST_CHOSEN)}). ` +
          "The folder itself can be added, with all that is in it.",
        { action: h("button", { type: "button", onclick: () => add([place]) }, "Add the folder") },
      );
    }
  }

  function look(place, row) {
    details.pick(row.kind === "file" ? 1 : 0);
    details.show(place, row);
    panel(true);
    if (OVER.matches) details.element.focus();
  }

  function bar() {
    const inside = chosen.contains(document.activeElement);
    const view = route.read()?.view ?? "files";
    const grid = search.element.hidden ? files.grid : search.grid;
    const some = view === "files" ? grid.picked.size : 0;
    const bytes = [...grid.picked.values()].reduce((sum, row) => sum + (row.size ?? 0), 0);
    fill(
      chosen,
      some > 0 && [
        h("span", { class: "sub" }, `${format.count(some)} chosen${bytes ? ` · ${format.size(bytes)}` : ""}`),
        h("button", { type: "button", onclick: () => add(picked()) }, icon("plus"), "Add to the restore list"),
        h("button", { type: "button", class: "main", onclick: () => download(picked()) }, icon("download"), "Download"),
      ],
    );
    if (inside) (chosen.querySelector("button") ?? grid.element).focus();
  }

  function picked() {
    return search.element.hidden ? files.chosen() : search.chosen();
  }

  async function add(places) {
    try {
      const added = await basket.add(places);
      toast(
        added
          ? `Added: ${format.count(basket.items.length)} in the restore list.`
          : "It is in the restore list already.",
        { action: h("button", { type: "button", onclick: () => route.go({ view: "list" }) }, "Show the list") },
      );
    } catch (error) {
      failed(error);
    }
  }

  async function download(places) {
    try {
      await basket.download(places.length === 1 && places[0].kind === "file" ? "file" : "zip", { places });
    } catch (error) {
      failed(error);
    }
  }

  function searching(on) {
    hush();
    search.element.hidden = !on;
    files.element.hidden = on;
    files.status.hidden = on;
    bar();
    if (on) search.from(files.place());
    else files.grid.element.focus();
  }

  function panel(on = details.element.hidden) {
    const inside = details.element.contains(document.activeElement);
    details.element.hidden = !on;
    if (on) details.paint();
    if (!on && inside) (search.element.hidden ? files.grid : search.grid).element.focus();
  }

  function drawer(on = !side.classList.contains("open")) {
    const inside = side.contains(document.activeElement);
    side.classList.toggle("open", on);
    menu.setAttribute("aria-expanded", String(on));
    if (on) tree.element.querySelector("[tabindex='0']")?.focus();
    else if (inside && DRAWER.matches) menu.focus();
  }

  function escape() {
    if (side.classList.contains("open")) drawer(false);
    else if (!details.element.hidden && (OVER.matches || details.element.contains(document.activeElement)))
      panel(false);
    else if (!search.element.hidden) searching(false);
  }

  function keys(event) {
    if (
      event.defaultPrevented ||
      event.ctrlKey ||
      event.altKey ||
      event.metaKey ||
      event.target.closest("input:not([type=checkbox]), select, textarea, dialog")
    )
      return;
    const onFiles = app.dataset.view === "files";
    const run = {
      "/": onFiles && (() => searching(true)),
      "?": help,
      "+": onFiles && (() => picked().length && add(picked())),
      F2: onFiles && search.element.hidden && (() => files.edit()),
      Escape: escape,
    }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  }
}
