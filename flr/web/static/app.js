// SPDX-License-Identifier: Apache-2.0
// The page: puts its parts together and moves between places. What the parts are is in their own modules.

import { events, get } from "./api.js";
import { Basket, Log } from "./basket.js";
import { Details, pointName } from "./details.js";
import { button, fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";
import { cells, Grid } from "./grid.js";
import * as route from "./route.js";
import { Search } from "./search.js";
import { Clock, help, over, signIn } from "./session.js";
import { Tree } from "./tree.js";

const app = document.getElementById("app");
const AGAIN = 700;
const NARROW = matchMedia("(max-width: 60rem)");
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
    else { over(app, `${error.what}.`, error.hint ?? ""); }
  }
}

function theme(name) {
  document.documentElement.style.colorScheme = name === "auto" ? "light dark" : name;
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

function page(session) {
  const state = { points: session.points, point: null, volume: null, path: "/", volumes: [], filter: "", news: "" };
  const points = h("select", { "aria-label": "Restore point", onchange: () => route.go({ ...here(), point: points.value }) }, session.points.map((point) => h("option", { value: point.id }, pointName(point))));
  const listCount = h("span", { class: "count" });
  const counted = (count) => { listCount.textContent = count ? String(count) : ""; };
  const listButton = h("button", { type: "button", onclick: () => route.go({ view: "list" }) }, icon("list"), h("span", { class: "wide" }, "Restore list"), listCount);
  const clock = new Clock({ stopped: () => { ended = true; over(app, "It was stopped.", "A new session can be started whenever you need one."); }, counted });
  let ended = false;

  const tree = new Tree({ open: (volume, path) => { drawer(false); route.go({ view: "files", point: state.point, volume, path }); } });
  const closed = h("div", { class: "closed" });
  const notes = h("div", { class: "notes", role: "status" });
  const crumbs = h("nav", { class: "crumbs", "aria-label": "Path" });
  const filter = h("input", { type: "search", placeholder: "Filter", "aria-label": "Filter this folder", oninput: () => { clearTimeout(filter.soon); filter.soon = setTimeout(() => { state.filter = filter.value; grid.reset().then(told, failed); }, 200); } });
  const status = h("p", { class: "state", role: "status" });
  const chosen = h("div", { class: "actions chosen" });
  const details = new Details({ points: () => state.points, open: (place) => route.go({ view: "files", ...place, path: route.parent(place.path) }), add, download, close: () => panel(false) });

  const grid = new Grid({
    label: "Files",
    columns: [
      { id: "name", label: "Name", sort: true, cell: (row) => cells.name(row) }, { id: "size", label: "Size", sort: true, cell: cells.size }, { id: "modified", label: "Modified", sort: true, cell: cells.modified },
      { id: "type", label: "Type", sort: true, cell: format.type }, { id: "owner", label: "Owner", sort: true, cell: cells.owner }, { id: "mode", label: "Mode", sort: true, cell: cells.mode }, { id: "flags", label: "Flags", cell: cells.flags },
    ],
    load: async (offset, count, signal) => {
      const page = await get("/api/list", { ...place(), sort: grid.sort, order: grid.order, filter: state.filter, offset, count }, { signal });
      listed(page);
      return page;
    },
    jump: async (prefix, after) => (await get("/api/jump", { ...place(), sort: grid.sort, order: grid.order, filter: state.filter, prefix, after })).row,
    open: (row) => open(row), up: () => state.path !== "/" && route.go({ ...here(), path: route.parent(state.path) }), changed: bar,
    active: (row) => details.show(row && { ...place(), path: route.join(state.path, row.key) }, row),
    tooMany: () => toast(`This folder has ${format.entries(grid.total)}: the folder itself can be added with all that is in it.`, { action: h("button", { type: "button", onclick: () => add([place()]) }, "Add the folder") }),
    empty: "Nothing is in this folder.",
  });
  const basket = new Basket({ counted, open: (where) => route.go({ view: "files", point: where.point, volume: where.volume, path: route.parent(where.path), }), point: (id) => { const point = state.points.find((one) => one.id === id); return point ? pointName(point).split(" · ")[0] : id; } });
  const log = new Log();
  const search = new Search({ volumes: () => state.volumes, open: (where, row) => { if (row?.kind === "folder" || !row) { searching(false); route.go({ view: "files", ...where }); } else { details.pick(1); panel(true); details.show(where, row); } }, active: (where, row) => details.show(where, row), changed: bar, close: () => searching(false) });
  search.element.hidden = true;

  const files = h("section", { class: "files", "aria-label": "Files" },
    h("div", { class: "bar" }, button("Volumes", { name: "menu", class: "menu", onclick: () => drawer() }), button("One folder up", { name: "up", onclick: () => grid.options.up() }), crumbs, button("Refresh", { name: "refresh", onclick: () => show(true) }), filter, h("button", { type: "button", onclick: () => searching(true) }, icon("search"), h("span", { class: "wide" }, "Search"))),
    notes, grid.element);
  const main = h("main", { class: "main-part", tabindex: "-1" }, files, search.element, basket.element, log.element, h("footer", { class: "foot" }, status, chosen));
  const side = h("nav", { class: "side", "aria-label": "Volumes" }, tree.element, closed);
  const shade = h("div", { class: "shade", onclick: () => drawer(false) });
  fill(app, h("header", { class: "head-part" }, h("img", { src: "/static/icon.svg", alt: "", width: "24", height: "24" }), h("h1", {}, h("span", { class: "wide" }, "Files of "), h("bdi", {}, session.resource)), h("label", { class: "points" }, points), h("span", { class: "gap" }), clock.element, listButton, h("button", { type: "button", onclick: () => route.go({ view: "log" }), title: "Session log", "aria-label": "Session log" }, h("span", {}, "Log")), button("Colours: as the system, light, dark", { name: "moon", onclick: () => { theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]); say(`Colours: ${document.documentElement.dataset.theme}`); } }), button("Keys", { name: "unknown", onclick: help })),
    h("div", { class: "parts" }, side, shade, main, details.element));
  app.removeAttribute("aria-busy");
  document.title = `Files of ${session.resource}`;
  clock.start(session.left, session.certificate);
  for (const note of session.notes) toast(note);
  panel(!NARROW.matches && innerWidth > 1180);
  basket.refresh().catch(failed);
  addEventListener("route", () => show());
  addEventListener("popstate", () => show());
  addEventListener("keydown", keys);
  events.addEventListener("out", () => { if (!ended) over(app, "You are signed out, or the session has ended.", "A session ends when nobody has used it for a while. Ask for a new link; what was downloaded goes on where it was cut."); });
  show();

  function place() { return { point: state.point, volume: state.volume, path: state.path }; }
  function here() { return { view: "files", ...place() }; }

  async function show(again = false) {
    const wanted = route.read() ?? { view: "files", point: state.point ?? session.first, volume: null, path: "/" };
    for (const [part, name] of [[files, "files"], [basket.element, "list"], [log.element, "log"]]) part.hidden = wanted.view !== name;
    search.element.hidden = true;
    status.hidden = false;
    app.dataset.view = wanted.view;
    status.textContent = "";
    bar();
    try {
      if (wanted.view === "list") { await basket.refresh(); basket.grid.element.focus(); return; }
      if (wanted.view === "log") { await log.refresh(); return; }
      await enter(wanted, again);
    } catch (error) { failed(error); }
  }

  async function enter(wanted, again) {
    if (wanted.point !== state.point) await enterPoint(wanted);
    const volume = state.volumes.find((one) => one.id === wanted.volume && one.opens) ?? state.volumes.find((one) => one.mounted === "/" && one.opens) ?? state.volumes.find((one) => one.opens);
    if (!volume) { fill(crumbs); grid.size(0); status.textContent = "Nothing on these disks can be opened."; return; }
    const moved = volume.id !== state.volume || wanted.path !== state.path;
    if (volume.id !== wanted.volume) history.replaceState(null, "", route.write({ ...wanted, volume: volume.id, path: "/" }));
    const came = state.path;
    Object.assign(state, { volume: volume.id, path: volume.id === wanted.volume ? wanted.path : "/" });
    if (moved) { state.filter = filter.value = ""; grid.element.setAttribute("aria-label", `Files in ${route.shown(state.path)}`); }
    trail(volume);
    fill(notes, volume.warnings.map((text) => h("p", {}, icon("warning"), text)));
    if (!moved && !again && grid.total) return;
    await grid.reset();
    told();
    if (moved && route.parent(came) === state.path && came !== "/") await back(came);
    if (!filter.matches(":focus") && !tree.element.contains(document.activeElement)) grid.element.focus({ preventScroll: true });
    tree.at(state.volume, state.path);
  }

  async function enterPoint(wanted) {
    const before = state.point;
    status.textContent = "Opening the restore point…";
    const found = await get("/api/volumes", { point: wanted.point });
    Object.assign(state, { point: wanted.point, volumes: found.volumes, volume: null });
    points.value = wanted.point;
    tree.show(state.point, found.volumes);
    const not = found.volumes.filter((volume) => volume.why_not);
    fill(closed, not.length > 0 && h("details", {}, h("summary", {}, `${not.length} cannot be opened`), h("ul", {}, not.map((volume) => h("li", {}, h("strong", {}, `${volume.id} · ${volume.holds}`), h("p", {}, volume.why_not), volume.hint && h("p", { class: "sub" }, volume.hint))))), found.warnings.map((text) => h("p", { class: "sub" }, text)));
    if (before) say(`Restore point ${pointName(state.points.find((point) => point.id === wanted.point) ?? { made: null })}`);
  }

  /** Coming up from a folder, that folder is where somebody was. */
  async function back(came) {
    const key = came.slice(came.lastIndexOf("/") + 1);
    for (let number = 0; number * 200 < Math.min(grid.total, 2000); number += 1) {
      const rows = await grid.block(number);
      const at = rows.findIndex((row) => row.key === key);
      if (at >= 0) { grid.move(number * 200 + at); grid.anchor = grid.at; return; }
    }
  }

  function trail(volume) {
    const parts = state.path === "/" ? [] : state.path.slice(1).split("/");
    const link = (label, path, last) => h("a", { href: route.write({ ...here(), path }), "aria-current": last ? "page" : undefined, onclick: (event) => { if (event.ctrlKey || event.metaKey) return; event.preventDefault(); route.go({ ...here(), path }); } }, h("bdi", {}, label));
    fill(crumbs, h("ol", {}, h("li", {}, link(volume.label || volume.id, "/", !parts.length)), parts.map((part, k) => h("li", {}, link(route.shown(part), `/${parts.slice(0, k + 1).join("/")}`, k === parts.length - 1)))), button("Type a path (F2)", { name: "edit", onclick: edit }));
    crumbs.querySelector("ol").scrollLeft = 1e6;
  }

  function edit() {
    const field = h("input", { class: "path", value: route.shown(state.path), "aria-label": "Path", spellcheck: "false", autocomplete: "off" });
    const away = () => { trail(state.volumes.find((one) => one.id === state.volume)); grid.element.focus(); };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") away();
      if (event.key === "Enter") { away(); route.go({ ...here(), path: route.typed(field.value) }); }
    });
    fill(crumbs, field);
    field.select();
    field.focus();
  }

  function listed(found) {
    state.listed = found;
    if (found.warnings.length) fill(notes, [...state.volumes.find((one) => one.id === state.volume).warnings, ...found.warnings].map((text) => h("p", {}, icon("warning"), text)));
    clearTimeout(state.again);
    if (!found.complete) state.again = setTimeout(() => grid.refresh().then(told, failed), AGAIN);
  }

  function told() {
    const found = state.listed;
    status.textContent = [state.filter ? `${format.count(found.matched)} of ${format.entries(found.total)}` : format.entries(found.total), !found.complete && "reading on…", found.problem].filter(Boolean).join(" · ");
  }

  function failed(error) {
    if (error.name === "AbortError" || error.status === 401 || error.type === "Unreachable") return;
    if (error.type === "NodeNotFound" && route.read()?.view === "files") {
      grid.size(0);
      fill(grid.note, "This path is not there at this restore point. ", state.path !== "/" && h("button", { type: "button", onclick: () => route.go({ ...here(), path: route.parent(state.path) }) }, "One folder up"));
      grid.note.hidden = false;
      status.textContent = "";
      return;
    }
    toast(`${error.what ?? error}${error.value ? `: ${error.value}` : ""}${error.hint ? ` (${error.hint})` : ""}`, { bad: true });
  }

  function open(row) {
    const path = route.join(state.path, row.key);
    if (row.kind === "folder") route.go({ ...here(), path });
    else if (row.kind === "link") follow(path, row);
    else { panel(true); details.pick(row.kind === "file" ? 1 : 0); details.show({ ...place(), path }, row); }
  }

  async function follow(path, row) {
    try { await get("/api/list", { ...place(), path, count: 1 }); route.go({ ...here(), path }); } catch (error) {
      if (error.type !== "WrongKind" && error.type !== "NodeNotFound") { failed(error); return; }
      panel(true);
      details.pick(0);
      details.show({ ...place(), path }, row);
    }
  }

  function picked() {
    if (!search.element.hidden) return search.grid.chosen().map((row) => ({ ...search.place(row), kind: row.kind }));
    return grid.chosen().map((row) => ({ ...place(), path: route.join(state.path, row.key), kind: row.kind }));
  }

  function bar() {
    const active = search.element.hidden ? grid : search.grid;
    const some = route.read()?.view === "list" || route.read()?.view === "log" ? 0 : active.picked.size;
    const bytes = [...active.picked.values()].reduce((sum, row) => sum + (row.size ?? 0), 0);
    fill(chosen, some > 0 && [h("span", { class: "sub" }, `${format.count(some)} chosen${bytes ? ` · ${format.size(bytes)}` : ""}`), h("button", { type: "button", onclick: () => add(picked()) }, icon("plus"), "Add to the restore list"), h("button", { type: "button", class: "main", onclick: () => download(picked()) }, icon("download"), "Download")]);
  }

  async function add(places) {
    try {
      const added = await basket.add(places);
      toast(added ? `Added: ${basket.items.length} in the restore list.` : "It is in the restore list already.", { action: h("button", { type: "button", onclick: () => route.go({ view: "list" }) }, "Show the list") });
    } catch (error) { failed(error); }
  }

  async function download(places) {
    try { await basket.download(places.length === 1 && places[0].kind === "file" ? "file" : "zip", { places }); } catch (error) { failed(error); }
  }

  function searching(on) {
    search.element.hidden = !on;
    files.hidden = on;
    status.hidden = on;
    bar();
    if (on) search.from(place());
    else grid.element.focus();
  }

  function panel(on = details.element.hidden) {
    const inside = details.element.contains(document.activeElement);
    details.element.hidden = !on;
    if (on) details.paint();
    if (!on && inside) (search.element.hidden ? grid : search.grid).element.focus();
  }

  function drawer(on = !side.classList.contains("open")) {
    side.classList.toggle("open", on);
    if (on) tree.element.querySelector("[tabindex='0']")?.focus();
  }

  function keys(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, dialog")) {
      if (event.key === "Escape" && event.target === filter) { filter.value = state.filter = ""; grid.reset().then(told, failed); grid.element.focus(); }
      return;
    }
    const run = { "/": () => searching(true), "?": help, "+": () => picked().length && add(picked()), F2: edit, Escape: () => { if (side.classList.contains("open")) drawer(false); else if (!search.element.hidden) searching(false); else if (!details.element.hidden && NARROW.matches) panel(false); } }[event.key];
    if (!run || event.defaultPrevented) return;
    event.preventDefault();
    run();
  }
}
