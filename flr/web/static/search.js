// SPDX-License-Identifier: Apache-2.0
// Searching: the form, and results in the grid while the walk goes on.

import { get, post } from "./api.js";
import { cells } from "./cells.js";
import { button, fill, h, icon } from "./dom.js";
import * as format from "./format.js";
import { Grid } from "./grid.js";
import { join } from "./route.js";

const WAIT = 600; // ms between two looks at what was found
const HOW = [
  ["contains", "part of the name"],
  ["glob", "pattern (*.doc?)"],
  ["regex", "regular expression"],
];
const WHERE = [
  ["volume", "this volume"],
  ["folder", "this folder and below"],
  ["all", "all volumes"],
];
const KINDS = [
  ["", "any"],
  ["file", "files"],
  ["folder", "folders"],
  ["link", "links"],
];
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * @typedef {import("./api.js").Place} Place
 * @typedef {import("./api.js").Row & {folder: string, folder_name: string, point: string, volume: string, place: string}} Result
 */
export class Search {
  /**
   * @param {{volumes: () => import("./api.js").Volume[], open: (place: Place, row: Result) => void,
   *   locate: (place: Place) => void, active: (place: Place|null, row: Result|null) => void, changed: () => void,
   *   tooMany: (place: null, count: number, filter: string) => void, failed: (error: Error) => void, close: () => void}} options
   */
  constructor(options) {
    this.options = options;
    this.rows = [];
    this.form = this.fields();
    this.state = h("p", { class: "state", role: "status" });
    this.stopping = h("button", { type: "button", hidden: true, onclick: () => this.stop() }, "Stop");
    const folder = (row) =>
      h(
        "button",
        {
          type: "button",
          class: "plain",
          tabindex: "-1",
          title: row.folder_name,
          onclick: () => options.locate(this.place(row)),
        },
        row.volumes > 1 && h("span", { class: "sub" }, `${row.volume} `),
        h("bdi", { class: "text" }, row.folder_name),
      );
    this.grid = new Grid({
      label: "What was found",
      columns: [
        {
          id: "name",
          label: "Name",
          sort: true,
          cell: (row) => cells.name(row, h("span", { class: "sub under" }, h("bdi", {}, row.folder_name))),
        },
        { id: "where", label: "Folder", sort: true, cell: folder },
        { id: "size", label: "Size", sort: true, cell: cells.size },
        { id: "modified", label: "Modified", sort: true, cell: cells.modified },
        { id: "owner", label: "Owner", sort: true, cell: cells.owner },
      ],
      load: async (offset, count) => ({ rows: this.sorted().slice(offset, offset + count), matched: this.rows.length }),
      open: (row) => options.open(this.place(row), row),
      locate: (row) => options.locate(this.place(row)),
      up: () => options.close(),
      changed: () => options.changed(),
      failed: options.failed,
      active: (row) => options.active(row && this.place(row), row),
      tooMany: (count) => options.tooMany(null, count, "search"),
      empty: "Results appear here while the volume is looked through.",
    });
    this.grid.sort = "";
    this.grid.arrows();
    this.grid.size(0);
    this.element = h(
      "section",
      { class: "search", "aria-label": "Search" },
      h(
        "header",
        {},
        h("h2", {}, "Search"),
        button("Close the search", { name: "close", onclick: () => options.close() }),
      ),
      this.form,
      h("div", { class: "bar" }, this.state, this.stopping),
      this.grid.frame,
    );
  }

  fields() {
    const select = (name, label, values) =>
      h(
        "label",
        {},
        label,
        h(
          "select",
          { name },
          values.map(([value, text]) => h("option", { value }, text)),
        ),
      );
    const input = (name, label, more = {}) => h("label", {}, label, h("input", { name, autocomplete: "off", ...more }));
    const form = h(
      "form",
      { class: "search-form", role: "search", "aria-label": "Search for files" },
      h(
        "div",
        { class: "line" },
        input("text", "Name", { type: "search", class: "wide-field", placeholder: "part of a name" }),
        select("how", "as", HOW),
        select("where", "in", WHERE),
        h("button", { type: "submit", class: "main" }, icon("search"), "Search"),
      ),
      h(
        "details",
        {},
        h("summary", {}, "More conditions"),
        h(
          "div",
          { class: "line" },
          select("kind", "Kind", KINDS),
          h("label", { class: "check" }, h("input", { type: "checkbox", name: "case" }), "Match case"),
          input("least", "At least", { placeholder: "10 MiB", size: "8" }),
          input("most", "At most", { placeholder: "1 GiB", size: "8" }),
          input("since", "Modified from", { type: "date" }),
          input("until", "to", { type: "date" }),
        ),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    form.addEventListener("input", (event) => event.target.setCustomValidity?.(""));
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" && !(event.key === "ArrowDown" && event.target.name === "text")) return;
      event.preventDefault();
      if (this.rows.length) this.grid.element.focus();
      else if (event.key === "Escape") this.options.close();
    });
    return form;
  }

  /** @param {Result} row */
  place(row) {
    return { point: row.point, volume: row.volume, path: join(row.folder, row.key) };
  }

  chosen() {
    return this.grid.chosen().map((row) => ({ ...this.place(row), kind: row.kind }));
  }

  /** Looks from here on: a point, a volume and a folder. */
  from(place) {
    if (this.here && place.point !== this.here.point) {
      this.halt();
      this.found([]);
      this.grid.reset();
      fill(this.state);
    }
    this.here = place;
    this.form.elements.text.focus();
    this.form.elements.text.select();
  }

  found(rows) {
    this.rows = rows;
    this.ordered = null;
  }

  /** As they were found, or by a column. */
  sorted() {
    if (!this.grid.sort) return this.rows;
    const of = {
      name: (row) => row.name,
      where: (row) => row.folder_name,
      owner: (row) => row.owner ?? "",
      size: (row) => row.size ?? -1,
      modified: (row) => row.modified ?? -Infinity,
    }[this.grid.sort];
    const key = `${this.grid.sort} ${this.grid.order}`;
    if (this.ordered?.key !== key) {
      const compare = ["size", "modified"].includes(this.grid.sort)
        ? (a, b) => of(a) - of(b) || 0
        : (a, b) => collator.compare(of(a), of(b));
      const rows = [...this.rows].sort(this.grid.order === "up" ? compare : (a, b) => compare(b, a));
      this.ordered = { key, rows };
    }
    return this.ordered.rows;
  }

  /** What the form asks for; null when it is no question. */
  wanted() {
    const fields = this.form.elements;
    const time = (value, day) => (value ? new Date(`${value}T00:00`).getTime() / 1000 + day : undefined);
    const bytes = (field) => {
      const value = field.value.trim() ? format.parseSize(field.value) : undefined;
      field.setCustomValidity(Number.isNaN(value) ? "A size: 10 MiB, 4k, 1 GB" : "");
      return value;
    };
    const wanted = {
      text: fields.text.value,
      how: fields.how.value,
      case: fields.case.checked,
      kind: fields.kind.value,
      least: bytes(fields.least),
      most: bytes(fields.most),
      since: time(fields.since.value, 0),
      until: time(fields.until.value, 86399.999),
    };
    return this.form.reportValidity() ? wanted : null;
  }

  async run() {
    const wanted = this.wanted();
    if (!wanted) return;
    const run = (this.running = {});
    this.halt();
    const where = this.form.elements.where.value;
    const volumes =
      where === "all"
        ? this.options
            .volumes()
            .filter((volume) => volume.opens)
            .map((volume) => volume.id)
        : [this.here.volume];
    const path = where === "folder" ? this.here.path : "/";
    const troubles = [];
    this.found([]);
    fill(this.state, "Searching…");
    this.stopping.hidden = false;
    await this.grid.reset();
    try {
      for (const volume of volumes) {
        const asked = Object.fromEntries(
          Object.entries({ ...wanted, point: this.here.point, volume, path }).filter(
            ([, value]) => value !== undefined && value !== "",
          ),
        );
        try {
          const { search } = await post("/api/search", asked);
          if (run !== this.running) {
            this.end(search);
            return;
          }
          this.number = search;
          if (!(await this.collect(run, volume, volumes.length))) return;
        } catch (error) {
          if (
            volumes.length === 1 ||
            error.type === "UsageError" ||
            error.status === 401 ||
            error.type === "Unreachable"
          )
            throw error;
          troubles.push(`${volume}: ${format.sentence(error)}`); // the others may be whole
        }
      }
      if (troubles.length) this.state.append(h("span", { class: "bad" }, ` ${troubles.join(" ")}`));
    } catch (error) {
      if (run === this.running)
        fill(
          this.state,
          h("span", { class: "bad" }, format.sentence(error)),
          error.hint && ` ${format.sentence({ what: error.hint })}`,
        );
    } finally {
      if (run === this.running) {
        this.number = null;
        this.stopping.hidden = true;
      }
    }
  }

  async collect(run, volume, volumes) {
    const before = this.rows.length;
    for (;;) {
      const { rows, state } = await get(
        "/api/results",
        { search: this.number, offset: this.rows.length - before, count: 1000 },
        { background: true },
      );
      if (run !== this.running) return false;
      if (rows.length) {
        this.found([
          ...this.rows,
          ...rows.map((row) => ({
            ...row,
            point: this.here.point,
            volume,
            volumes,
            place: `${volume}${row.folder}/${row.key}`,
          })),
        ]);
        await this.grid.refresh();
      }
      const over = state.complete && this.rows.length - before >= state.found;
      const where = volumes > 1 ? ` in ${volume}` : "";
      const problems =
        state.problem_count > 0 &&
        h(
          "span",
          { class: "bad" },
          ` ${format.count(state.problem_count)} folders could not be read: ${state.problems[0]}`,
        );
      const end = over ? (state.more ? "; there are more than are shown: search for less." : ".") : " …";
      fill(
        this.state,
        `${format.count(this.rows.length)} found, ${format.entries(state.seen)} looked at${where}`,
        end,
        problems,
      );
      if (over) {
        if (!this.rows.length) fill(this.grid.note, "Nothing was found.");
        return true;
      }
      if (!rows.length)
        await new Promise((done) => {
          setTimeout(done, WAIT);
        });
    }
  }

  /** Nobody waits for the server to forget it. */
  halt() {
    if (this.number) this.end(this.number);
    this.number = null;
  }

  end(search) {
    post("/api/search/stop", { search }).catch(() => {});
  }

  stop() {
    this.running = null;
    this.halt();
    this.stopping.hidden = true;
    this.state.append(" Stopped.");
  }
}
