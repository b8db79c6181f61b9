// SPDX-License-Identifier: Apache-2.0
// The view of a folder: where somebody is, its trail, its filter and its grid; and what is said when something is not there.

import { get } from "./api.js";
import { cells } from "./cells.js";
import { button, fill, h, icon, say } from "./dom.js";
import * as format from "./format.js";
import { Grid } from "./grid.js";
import * as route from "./route.js";

const AGAIN = 700; // ms between two looks at a folder that is still being read
const TYPED = 200; // ms without a key before a filter is asked for

/**
 * @typedef {import("./api.js").Row} Row
 * @typedef {import("./api.js").Volume} Volume
 * @typedef {import("./api.js").Place} Place
 * @typedef {object} Options
 * @property {(place: object, replace?: boolean) => void} go
 * @property {(row: Row) => void} look at a file
 * @property {(place: Place|null, row: Row|null) => void} active
 * @property {() => void} changed another choice
 * @property {(place: Place, count: number, filter: string) => void} tooMany
 * @property {(point: string, volumes: Volume[], warnings: string[]) => void} opened a restore point
 * @property {(volume: string, path: string) => void} entered
 * @property {(error: Error) => void} failed
 */
export class Files {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.point = null;
    this.volume = null;
    this.path = "/";
    /** @type {Volume[]} */
    this.volumes = [];
    this.text = ""; // of the filter
    this.wanted = null; // the key of an entry that is to be shown where it stands
    this.crumbs = h("nav", { class: "crumbs", "aria-label": "Path" });
    this.filter = h("input", {
      type: "search",
      placeholder: "Filter",
      "aria-label": "Filter this folder",
      oninput: () => this.typed(),
      onkeydown: (event) => this.filterKey(event),
    });
    this.notes = h("div", { class: "notes", role: "status" });
    this.status = h("p", { class: "state", role: "status" });
    this.grid = new Grid({
      label: "Files",
      columns: [
        {
          id: "name",
          label: "Name",
          sort: true,
          cell: (row) => cells.name(row, h("span", { class: "sub under" }, format.under(row))),
        },
        { id: "size", label: "Size", sort: true, cell: cells.size },
        { id: "modified", label: "Modified", sort: true, cell: cells.modified },
        { id: "type", label: "Type", sort: true, cell: format.type },
        { id: "owner", label: "Owner", sort: true, cell: cells.owner },
        { id: "mode", label: "Mode", sort: true, cell: cells.mode },
        { id: "flags", label: "Flags", cell: cells.flags },
      ],
      load: async (offset, count, signal) => {
        const page = await get("/api/list", { ...this.asked(), offset, count }, { signal });
        this.listed(page);
        return page;
      },
      jump: async (prefix, after) => (await get("/api/jump", { ...this.asked(), prefix, after })).row,
      where: async (key) => (await get("/api/jump", { ...this.asked(), key }, { background: true })).row,
      open: (row) => this.open(row),
      up: () => this.up(),
      changed: () => options.changed(),
      active: (row) => options.active(row && { ...this.place(), path: route.join(this.path, row.key) }, row),
      tooMany: (count) => options.tooMany(this.place(), count, this.text),
      failed: (error) => this.failed(error),
      empty: "Nothing is in this folder.",
    });
    this.element = h("section", { class: "files", "aria-label": "Files" });
  }

  /** @returns {Place} */
  place() {
    return { point: this.point, volume: this.volume, path: this.path };
  }

  asked() {
    return { ...this.place(), sort: this.grid.sort, order: this.grid.order, filter: this.text };
  }

  here() {
    return { view: "files", ...this.place() };
  }

  up() {
    if (this.path !== "/") this.options.go({ ...this.here(), path: route.parent(this.path) });
  }

  /** Goes to where an entry stands, and marks it. */
  reveal({ point, volume, path }) {
    this.wanted = path.slice(path.lastIndexOf("/") + 1);
    const place = { view: "files", point, volume, path: route.parent(path) };
    if (route.write(place) === location.hash) this.mark().catch((error) => this.failed(error));
    else this.options.go(place);
  }

  /** What an address says. `again`: also what is known. What goes wrong stands in the grid. */
  async enter(wanted, again = false) {
    const run = (this.running = {});
    clearTimeout(this.again);
    this.status.textContent = "";
    try {
      if (wanted.point !== this.point && !(await this.enterPoint(wanted, run))) return;
      await this.enterFolder(wanted, again, run);
    } catch (error) {
      if (run === this.running) this.missing(error, wanted);
    }
  }

  async enterPoint(wanted, run) {
    const before = this.point;
    const keep = before !== null && wanted.path === this.path && wanted.volume === this.volume;
    if (keep) this.wanted ??= this.grid.row(this.grid.at)?.key ?? null;
    this.point = null; // nothing that is shown is of the new one yet
    this.grid.clear();
    fill(this.notes);
    this.status.textContent = "Opening the restore point…";
    const found = await get("/api/volumes", { point: wanted.point });
    if (run !== this.running) return false;
    Object.assign(this, { point: wanted.point, volumes: found.volumes, volume: null });
    this.options.opened(this.point, found.volumes, found.warnings);
    return true;
  }

  async enterFolder(wanted, again, run) {
    const opening = this.volumes.filter((one) => one.opens);
    const volume = wanted.volume
      ? opening.find((one) => one.id === wanted.volume)
      : (opening.find((one) => one.mounted === "/") ?? opening[0]);
    if (!volume) {
      this.volume = null;
      this.gone(wanted, opening.length > 0);
      return;
    }
    if (volume.id !== wanted.volume) history.replaceState(null, "", route.write({ ...wanted, volume: volume.id }));
    const moved = volume.id !== this.volume || wanted.path !== this.path;
    const [came, cameVolume] = [this.path, this.volume];
    Object.assign(this, { volume: volume.id, path: wanted.path });
    if (moved) {
      clearTimeout(this.soon);
      this.text = this.filter.value = "";
      this.grid.element.setAttribute("aria-label", `Files in ${route.shown(this.path)}`);
    }
    this.trail();
    this.warn();
    this.options.entered(this.volume, this.path);
    if (moved || again || !this.grid.total || this.grid.problem) await this.grid.reset();
    if (run !== this.running) return;
    this.told();
    if (moved && came !== "/" && cameVolume === this.volume && route.parent(came) === this.path)
      this.wanted ??= came.slice(came.lastIndexOf("/") + 1);
    await this.mark();
    const busy = document.activeElement;
    const lost = !busy || busy === document.body || busy.closest("[hidden]");
    if (lost || (!again && this.element.contains(busy) && busy !== this.filter))
      this.grid.element.focus({ preventScroll: true });
  }

  /** Moves to the entry that is to be shown. */
  async mark() {
    const key = this.wanted;
    this.wanted = null;
    if (key) await this.grid.reveal(key);
  }

  trail() {
    const volume = this.volumes.find((one) => one.id === this.volume);
    const parts = this.path === "/" ? [] : this.path.slice(1).split("/");
    const link = (label, path, last) =>
      h(
        "a",
        {
          href: route.write({ ...this.here(), path }),
          "aria-current": last ? "page" : undefined,
          onclick: (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            this.options.go({ ...this.here(), path });
          },
        },
        h("bdi", {}, label),
      );
    const steps = parts.map((part, k) =>
      h("li", {}, link(route.shown(part), `/${parts.slice(0, k + 1).join("/")}`, k === parts.length - 1)),
    );
    const list = h("ol", {}, h("li", {}, link(volume ? volume.label || volume.id : "…", "/", !parts.length)), steps);
    fill(this.crumbs, list, button("Type a path (F2)", { name: "edit", onclick: () => this.edit() }));
    list.scrollLeft = list.scrollWidth;
  }

  edit() {
    if (!this.volume) return;
    const field = h("input", {
      class: "path",
      value: route.shown(this.path),
      "aria-label": "Path",
      spellcheck: "false",
      autocomplete: "off",
      autocapitalize: "off",
    });
    const away = () => {
      this.trail();
      this.grid.element.focus();
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") away();
      if (event.key === "Enter") {
        away();
        this.options.go({ ...this.here(), path: route.typed(field.value) });
      }
    });
    fill(this.crumbs, field);
    field.select();
    field.focus();
  }

  typed() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.narrow(this.filter.value), TYPED);
  }

  narrow(text) {
    clearTimeout(this.soon);
    this.filter.value = text;
    if (text === this.text) return;
    this.text = text;
    this.grid.reset().then(
      () => this.told(),
      (error) => this.failed(error),
    );
  }

  filterKey(event) {
    if (event.key === "Escape") this.narrow("");
    else if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    this.grid.element.focus();
  }

  listed(page) {
    this.page = page;
    const volume = this.volumes.find((one) => one.id === this.volume);
    if (volume && page.warnings.length) volume.warnings = [...new Set([...volume.warnings, ...page.warnings])];
    this.warn(page.problem);
    clearTimeout(this.again);
    if (!page.complete)
      this.again = setTimeout(
        () =>
          this.grid.refresh().then(
            () => this.told(),
            (error) => this.failed(error),
          ),
        AGAIN,
      );
  }

  warn(problem = "") {
    const volume = this.volumes.find((one) => one.id === this.volume);
    const texts = [
      problem && `This folder could not be read to its end: ${problem}.`,
      ...(volume?.warnings ?? []),
    ].filter(Boolean);
    if (texts.join("\n") === this.warned && this.notes.childElementCount) return;
    this.warned = texts.join("\n");
    fill(
      this.notes,
      texts.map((text) => h("p", {}, icon("warning"), h("span", {}, text))),
    );
  }

  told() {
    const { matched, total, complete } = this.page;
    this.grid.options.empty = this.text ? "Nothing in this folder fits the filter." : "Nothing is in this folder.";
    if (!this.grid.total && !this.grid.problem) this.grid.size(0);
    this.status.textContent = [
      this.text ? `${format.count(matched)} of ${format.entries(total)}` : format.entries(total),
      !complete && "reading on…",
    ]
      .filter(Boolean)
      .join(" · ");
  }

  /** What was asked for by an address cannot be shown. */
  missing(error, wanted) {
    if (error.name === "AbortError" || error.status === 401) return;
    this.status.textContent = "";
    if (this.point === null) {
      fill(this.crumbs);
      this.options.opened(wanted.point, [], []);
      this.grid.fail(error, h("button", { type: "button", onclick: () => this.enter(wanted) }, "Try again"));
    } else if (error.type === "WrongKind" && wanted.path !== "/") {
      this.wanted = wanted.path.slice(wanted.path.lastIndexOf("/") + 1); // a file: it is shown where it stands
      this.options.go({ ...wanted, view: "files", path: route.parent(wanted.path) }, true);
    } else if (error.type === "NodeNotFound") {
      const said = { what: "This folder is not there at this restore point", value: route.shown(wanted.path) };
      this.grid.fail(
        said,
        h("button", { type: "button", onclick: () => this.nearest(wanted) }, "Go to the nearest folder that is there"),
      );
      say(format.sentence(said));
    } else {
      this.grid.fail(error);
      say(format.sentence(error));
    }
  }

  gone(wanted, others) {
    fill(this.crumbs);
    const volume = this.volumes.find((one) => one.id === wanted.volume);
    const hint = others
      ? "Choose another volume on the left, or another restore point above."
      : "Choose another restore point above. What was found, and why it cannot be opened, stands on the left.";
    const what = !others
      ? "Nothing on these disks can be opened"
      : volume
        ? "This volume cannot be opened at this restore point"
        : "This volume is not there at this restore point";
    this.grid.fail({ what, value: volume?.why_not || wanted.volume || "", hint }, null);
    say(what);
  }

  async nearest(wanted) {
    let path = wanted.path;
    while (path !== "/") {
      path = route.parent(path);
      try {
        await get("/api/list", { ...this.place(), path, count: 1 });
        break;
      } catch (error) {
        if (error.type !== "NodeNotFound" && error.type !== "WrongKind") {
          this.failed(error);
          return;
        }
      }
    }
    this.options.go({ ...this.here(), path });
    this.grid.element.focus();
  }

  failed(error) {
    this.options.failed(error);
  }

  /** @param {Row} row */
  open(row) {
    const path = route.join(this.path, row.key);
    if (row.kind === "folder") this.options.go({ ...this.here(), path });
    else if (row.kind === "link") this.follow(path, row);
    else this.options.look(row);
  }

  /** Where a link leads, if that is a folder; else it is shown as an entry. */
  async follow(path, row) {
    try {
      await get("/api/list", { ...this.place(), path, count: 1 });
    } catch (error) {
      if (error.type === "WrongKind" || error.type === "NodeNotFound") this.options.look(row);
      else this.failed(error);
      return;
    }
    this.options.go({ ...this.here(), path });
  }

  /** What is chosen, or else where somebody is. */
  chosen() {
    return this.grid.chosen().map((row) => ({ ...this.place(), path: route.join(this.path, row.key), kind: row.kind }));
  }
}
