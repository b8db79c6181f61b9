// SPDX-License-Identifier: Apache-2.0
// Searching: the form, and results in the grid while the walk goes on.

import { get, post } from "./api.js";
import { button, fill, h, icon } from "./dom.js";
import * as format from "./format.js";
import { cells, Grid } from "./grid.js";
import { join } from "./route.js";

const WAIT = 600;

export class Search {
  /** @param {{volumes: () => object[], open: (place: object, row: object) => void, active: (place: object, row: object) => void, changed: () => void, close: () => void}} options */
  constructor(options) {
    this.options = options;
    const select = (name, label, values) => h("label", {}, label, h("select", { name }, values.map(([value, text]) => h("option", { value }, text))));
    const input = (name, label, more = {}) => h("label", {}, label, h("input", { name, autocomplete: "off", ...more }));
    this.form = h("form", { class: "search-form", role: "search", "aria-label": "Search for files" },
      h("div", { class: "line" }, input("text", "Name", { type: "search", class: "wide", placeholder: "part of a name" }), select("how", "as", [["contains", "part of the name"], ["glob", "pattern (*.doc?)"], ["regex", "regular expression"]]), select("where", "in", [["volume", "this volume"], ["folder", "this folder and below"], ["all", "all volumes"]]), h("button", { type: "submit", class: "main" }, icon("search"), "Search")),
      h("details", {}, h("summary", {}, "More conditions"), h("div", { class: "line" }, select("kind", "Kind", [["", "any"], ["file", "files"], ["folder", "folders"], ["link", "links"]]), input("least", "At least", { placeholder: "10 MiB", size: "8" }), input("most", "At most", { placeholder: "1 GiB", size: "8" }), input("since", "Modified from", { type: "date" }), input("until", "to", { type: "date" }), h("label", { class: "check" }, h("input", { type: "checkbox", name: "case" }), "Match case"))));
    this.state = h("p", { class: "state", role: "status" });
    this.stopping = h("button", { type: "button", hidden: true, onclick: () => this.stop() }, "Stop");
    this.grid = new Grid({
      label: "What was found",
      columns: [
        { id: "name", label: "Name", cell: (row) => cells.name(row) },
        { id: "where", label: "Folder", cell: (row) => h("button", { type: "button", class: "plain", tabindex: "-1", title: row.folder_name, onclick: () => options.open({ point: row.point, volume: row.volume, path: row.folder }, null) }, h("bdi", { class: "text" }, row.folder_name)) },
        { id: "size", label: "Size", cell: cells.size }, { id: "modified", label: "Modified", cell: cells.modified }, { id: "owner", label: "Owner", cell: cells.owner },
      ],
      load: async (offset, count) => ({ rows: this.rows.slice(offset, offset + count), matched: this.rows.length }),
      open: (row) => options.open(this.place(row), row), up: () => options.close(), changed: () => options.changed(), active: (row) => options.active(row && this.place(row), row),
      empty: "Here stands what is found.",
    });
    this.rows = [];
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.run(); });
    this.element = h("section", { class: "search", "aria-label": "Search" }, h("header", {}, h("h2", {}, "Search"), button("Close the search", { name: "close", onclick: () => options.close() })), this.form, h("div", { class: "bar" }, this.state, this.stopping), this.grid.element);
  }

  place(row) { return { point: row.point, volume: row.volume, path: join(row.folder, row.key) }; }

  /** Looks from here on: a point, a volume and a folder. */
  from(place, text) {
    this.here = place;
    if (text !== undefined) this.form.elements.text.value = text;
    this.form.elements.text.focus();
  }

  async run() {
    const run = (this.running = {});
    await this.halt();
    const fields = this.form.elements;
    const time = (value, day) => (value ? new Date(`${value}T00:00`).getTime() / 1000 + day : undefined);
    const bytes = (field) => { const value = field.value.trim() ? format.parseSize(field.value) : undefined; field.setCustomValidity(Number.isNaN(value) ? "A size: 10 MiB, 4k, 1 GB" : ""); return value; };
    const wanted = { text: fields.text.value, how: fields.how.value, case: fields.case.checked, kind: fields.kind.value, least: bytes(fields.least), most: bytes(fields.most), since: time(fields.since.value, 0), until: time(fields.until.value, 86399) };
    if (!this.form.reportValidity()) return;
    const where = fields.where.value;
    const volumes = where === "all" ? this.options.volumes().filter((volume) => volume.opens).map((volume) => volume.id) : [this.here.volume];
    this.rows = [];
    await this.grid.reset();
    this.stopping.hidden = false;
    try {
      for (const volume of volumes) {
        const asked = { ...wanted, point: this.here.point, volume, path: where === "folder" ? this.here.path : "/" };
        for (const key of Object.keys(asked)) if (asked[key] === undefined || asked[key] === "") delete asked[key];
        const { search } = await post("/api/search", asked);
        this.number = search;
        if (!(await this.collect(run, volume, volumes))) return;
      }
    } catch (error) {
      if (run === this.running) fill(this.state, h("span", { class: "bad" }, `${error.what ?? error}${error.value ? `: ${error.value}` : ""}`));
    } finally {
      if (run === this.running) { this.number = null; this.stopping.hidden = true; }
    }
  }

  async collect(run, volume, volumes) {
    const before = this.rows.length;
    for (;;) {
      const { rows, state } = await get("/api/results", { search: this.number, offset: this.rows.length - before, count: 1000 }, { background: true });
      if (run !== this.running) return false;
      this.rows.push(...rows.map((row) => ({ ...row, point: this.here.point, volume, place: `${volume}${row.folder}/${row.key}` })));
      if (rows.length) await this.grid.refresh();
      const over = state.complete && this.rows.length - before >= state.found;
      const where = volumes.length > 1 ? ` in ${volume}` : "";
      fill(this.state, `${format.count(this.rows.length)} found, ${format.entries(state.seen)} looked at${where}`, over ? (state.more ? "; there are more than are shown: search for less" : ".") : " …", state.problem_count > 0 && h("span", { class: "bad" }, ` ${format.count(state.problem_count)} folders could not be read: ${state.problems[0]}`));
      if (over) { if (!this.rows.length) fill(this.grid.note, "Nothing was found."); return true; }
      if (!rows.length) await new Promise((done) => { setTimeout(done, WAIT); });
    }
  }

  async halt() {
    if (this.number) await post("/api/search/stop", { search: this.number }).catch(() => {});
    this.number = null;
  }

  async stop() {
    this.running = null;
    await this.halt();
    this.stopping.hidden = true;
    this.state.append(" Stopped.");
  }
}
