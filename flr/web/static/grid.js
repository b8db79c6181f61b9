// SPDX-License-Identifier: Apache-2.0
// One grid for everything that has rows: a fixed number of elements whatever there is. The ARIA grid pattern with one active row
// (aria-activedescendant). Not here: where rows come from (`pages.js`), what a row means.

import { fill, h, icon, say } from "./dom.js";
import * as format from "./format.js";
import { Keys } from "./keys.js";
import { BLOCK, Pages } from "./pages.js";

const SPARE = 8; // rows above and below those that are seen
const TALLEST = 8_000_000; // pixels that every browser scrolls through
export const MOST_CHOSEN = 5000;
let grids = 0;

/**
 * @typedef {{id: string, label: string, sort?: boolean, cell: (row: object) => (Node|string|Array), class?: string}} Column
 * @typedef {object} Options
 * @property {string} label
 * @property {Column[]} columns
 * @property {(offset: number, count: number, signal: AbortSignal) => Promise<{rows: object[], matched: number}>} load
 * @property {(prefix: string, after: number) => Promise<number|null>} [jump] to the next name that begins so
 * @property {(key: string) => Promise<number|null>} [where] the row of that key
 * @property {(row: object) => void} open
 * @property {(row: object) => void} [locate] to where it stands, by Ctrl+Enter
 * @property {() => void} [up]
 * @property {() => void} [changed] another choice
 * @property {(row: object|null) => void} [active] another row
 * @property {(count: number) => void} [tooMany] more than MOST_CHOSEN were to be chosen at once; none of them is
 * @property {(error: Error) => void} [failed] of what nobody waits for
 * @property {string} [empty]
 */
export class Grid {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.id = `grid${++grids}`;
    this.total = 0;
    this.at = 0;
    this.anchor = 0;
    this.picked = new Map();
    this.sort = "name";
    this.order = "up";
    this.pool = [];
    this.top = 0; // the first row that has an element
    this.loading = false;
    this.problem = null;
    this.pages = new Pages(
      (offset, count, signal) => options.load(offset, count, signal),
      (matched) => this.size(matched),
    );
    this.columns = options.columns;
    this.box = h("input", { type: "checkbox", "aria-label": "Select all", onchange: () => this.all(this.box.checked) });
    this.heads = this.columns.map((column, k) => this.head(column, k));
    this.header = h(
      "div",
      { role: "row", class: "row head", "aria-rowindex": "1" },
      h("div", { role: "columnheader", class: "cell pick", "aria-colindex": "1" }, this.box),
      this.heads,
    );
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.spacer = h("div", { class: "spacer", role: "presentation" }, this.body);
    this.note = h("div", { class: "empty", hidden: true });
    this.view = h("div", { class: "view" }, this.spacer);
    this.element = h(
      "div",
      {
        class: "grid",
        role: "grid",
        id: this.id,
        tabindex: "0",
        "aria-label": options.label,
        "aria-multiselectable": "true",
        "aria-colcount": String(this.columns.length + 1),
      },
      h("div", { role: "rowgroup", class: "top" }, this.header),
      this.view,
    );
    this.frame = h("div", { class: "frame" }, this.element, this.note); // what a grid may not have in it stands beside it
    this.view.addEventListener("scroll", () => this.paint(), { passive: true });
    this.keys = new Keys(this);
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("dblclick", (event) => {
      const row = this.rowOf(event.target);
      if (row && !event.target.closest("input, a, button")) this.options.open(row);
    });
    new ResizeObserver(() => this.resized()).observe(this.view);
    this.arrows();
  }

  head(column, k) {
    const cell = h("div", {
      role: "columnheader",
      class: `cell ${column.class ?? column.id}`,
      "aria-colindex": String(k + 2),
    });
    if (!column.sort) return fill(cell, column.label);
    return fill(
      cell,
      h(
        "button",
        { type: "button", tabindex: "-1", onclick: () => this.by(column.id) },
        column.label,
        h("span", { class: "arrow", "aria-hidden": "true" }),
      ),
    );
  }

  arrows() {
    this.columns.forEach((column, k) => {
      const order = this.order === "up" ? "ascending" : "descending";
      if (column.sort) this.heads[k].setAttribute("aria-sort", column.id === this.sort ? order : "none");
    });
  }

  by(sort) {
    this.order = this.sort === sort && this.order === "up" ? "down" : "up";
    this.sort = sort;
    say(`Sorted by ${sort}, ${this.order === "up" ? "ascending" : "descending"}`);
    this.reset().catch((error) => this.options.failed?.(error));
  }

  /** Nothing is known of what is to come. */
  clear() {
    this.pages.clear();
    this.at = this.anchor = this.total = 0;
    this.picked.clear();
    this.view.scrollTop = 0;
    this.keys.forget();
    this.problem = null;
    this.loading = true;
    this.note.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    this.element.setAttribute("aria-rowcount", "-1");
    this.paint();
  }

  /** Everything anew; `keep`: what was picked and where somebody is stay. What goes wrong stands in the grid and is raised. */
  async reset({ keep = false } = {}) {
    const run = (this.running = {});
    if (keep) this.pages.age();
    else this.clear();
    this.arrows();
    try {
      await this.pages.block(keep ? Math.floor(Math.min(this.first(), Math.max(0, this.total - 1)) / BLOCK) : 0);
    } catch (error) {
      if (error.name === "AbortError" || run !== this.running) return;
      if (!keep) this.fail(error);
      throw error;
    } finally {
      if (run === this.running) this.element.removeAttribute("aria-busy");
    }
    this.tell();
  }

  /** The same place, because there is more of it now. */
  refresh() {
    return this.reset({ keep: true });
  }

  /** `action`: a button; without one it can be tried again, null for none. */
  fail(error, action) {
    this.pages.clear();
    this.size(0);
    this.problem = error;
    this.element.removeAttribute("aria-busy");
    const again = h("button", { type: "button", onclick: () => this.reset().catch(() => {}) }, "Try again");
    fill(
      this.note,
      h("p", { class: "bad" }, icon("warning"), ` ${format.sentence(error)}`),
      error.hint && h("p", {}, format.sentence({ what: error.hint })),
      h("p", { class: "actions" }, action === undefined ? again : action),
    );
    this.note.hidden = false;
    this.options.active?.(null);
  }

  size(total) {
    this.loading = false;
    this.problem = null;
    this.total = total;
    this.at = Math.min(this.at, Math.max(0, total - 1));
    this.element.setAttribute("aria-rowcount", String(total + 1));
    this.note.hidden = total > 0;
    if (!total) fill(this.note, this.options.empty ?? "Nothing is here.");
    this.paint();
  }

  resized() {
    this.measured = undefined;
    this.paint();
  }

  /** Pixels of a row: as the style says, which says it in the size of letters. */
  get height() {
    this.measured ||= this.header.getBoundingClientRect().height;
    return this.measured || 32;
  }

  /** Pixels of all rows that a pixel of scrolling goes by: 1 unless they are more than a browser scrolls through. */
  get ratio() {
    const room = this.view.clientHeight;
    return this.total * this.height > TALLEST ? (this.total * this.height - room) / (TALLEST - room) : 1;
  }

  first() {
    return Math.floor((this.view.scrollTop * this.ratio) / this.height);
  }

  shows() {
    return Math.max(1, Math.floor(this.view.clientHeight / this.height));
  }

  paint() {
    this.spacer.style.height = `${Math.min(this.total * this.height, TALLEST)}px`;
    const count = this.loading ? Math.min(12, this.shows()) : this.total;
    const first = Math.max(0, Math.min(this.first(), count - this.shows()) - SPARE);
    const last = Math.min(count, first + this.shows() + 2 * SPARE + 1);
    this.body.style.transform = `translateY(${this.view.scrollTop * (1 - this.ratio) + first * this.height}px)`;
    this.elements(first, last - first);
    for (let k = first; k < last; k += 1) this.draw(this.pool[k - first], k);
    if (this.total)
      this.pages.look(first, last - 1, (error) => error.name !== "AbortError" && this.options.failed?.(error));
    if (this.total && this.at >= first && this.at < last)
      this.element.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** So many elements, those of rows that are seen still in their places. */
  elements(first, count) {
    const moved = first - this.top;
    this.top = first;
    if (moved > 0 && moved < this.pool.length) {
      for (const element of this.pool.splice(0, moved)) this.pool.push(this.body.appendChild(element));
    } else if (moved < 0 && -moved < this.pool.length) {
      const last = this.pool.splice(moved);
      this.body.prepend(...last);
      this.pool.unshift(...last);
    }
    while (this.pool.length < count) this.pool.push(this.body.appendChild(h("div", { role: "row", class: "row" })));
    while (this.pool.length > count) this.pool.pop().remove();
  }

  row(index) {
    return this.pages.row(index);
  }

  draw(element, index) {
    const row = this.row(index);
    const picked = row !== undefined && this.picked.has(this.name(row));
    const active = index === this.at && !this.loading;
    const state = `${index} ${row !== undefined} ${picked} ${active}`;
    if (element.drawn === state && element.row === row) return;
    const same = element.row === row && row !== undefined;
    Object.assign(element, { drawn: state, row });
    element.id = `${this.id}-${index}`;
    element.className = `row${active ? " active" : ""}${picked ? " picked" : ""}${row === undefined ? " waiting" : ""}`;
    element.setAttribute("aria-rowindex", String(index + 2));
    element.setAttribute("aria-selected", String(picked));
    if (same) {
      element.querySelector("input").checked = picked;
      return;
    }
    if (row === undefined) {
      fill(
        element,
        h("div", { role: "gridcell", class: "cell pick" }),
        h("div", { role: "gridcell", class: "cell name" }, h("span", { class: "bone" }, "…")),
      );
      return;
    }
    const box = h("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${row.name}`, checked: picked });
    fill(
      element,
      h("div", { role: "gridcell", class: "cell pick", "aria-colindex": "1" }, box),
      this.columns.map((column, k) =>
        h(
          "div",
          { role: "gridcell", class: `cell ${column.class ?? column.id}`, "aria-colindex": String(k + 2) },
          column.cell(row),
        ),
      ),
    );
  }

  name(row) {
    return row.place ?? row.key;
  }

  rowOf(target) {
    return target.closest(".row")?.row;
  }

  indexOf(target) {
    return Number(target.closest(".row").id.split("-")[1]);
  }

  click(event) {
    const row = this.rowOf(event.target);
    if (!row) return;
    const index = this.indexOf(event.target);
    if (event.target.closest("a, button")) return;
    if (event.shiftKey) {
      event.preventDefault();
      this.range(index);
    } else if (event.target.closest(".pick") || event.ctrlKey || event.metaKey) {
      this.toggle(index);
      this.anchor = index;
    } else {
      this.anchor = index;
    }
    this.move(index);
    this.element.focus({ preventScroll: true });
  }

  toggle(index) {
    const row = this.row(index);
    if (!row) return;
    if (this.picked.has(this.name(row))) this.picked.delete(this.name(row));
    else this.picked.set(this.name(row), row);
    this.tell();
  }

  /** Chooses from where somebody began to here, and nothing else. */
  async range(index) {
    const [low, high] = [Math.min(this.anchor, index), Math.max(this.anchor, index)];
    const wanted = (this.choosing = {});
    if (high - low >= MOST_CHOSEN) {
      this.options.tooMany?.(high - low + 1);
      return;
    }
    try {
      const rows = await this.pages.range(low, high);
      if (wanted !== this.choosing) return; // another choice was made meanwhile
      this.picked = new Map(rows.map((row) => [this.name(row), row]));
      this.tell();
    } catch (error) {
      if (error.name !== "AbortError") this.options.failed?.(error);
    }
  }

  async all(on) {
    this.anchor = 0;
    this.choosing = {};
    if (!on) this.picked.clear();
    else if (this.total) await this.range(this.total - 1);
    this.tell();
  }

  tell() {
    this.box.checked = this.total > 0 && this.picked.size === this.total;
    this.box.indeterminate = this.picked.size > 0 && this.picked.size < this.total;
    this.paint();
    this.options.changed?.();
    this.options.active?.(this.row(this.at) ?? null);
  }

  /** What is picked, or else the active row. */
  chosen() {
    if (this.picked.size) return [...this.picked.values()];
    const row = this.row(this.at);
    return row ? [row] : [];
  }

  move(index) {
    if (!this.total) return;
    this.at = Math.max(0, Math.min(this.total - 1, index));
    const [top, seen] = [this.at * this.height, this.view.scrollTop * this.ratio];
    const room = this.view.clientHeight - this.height;
    if (top < seen) this.view.scrollTop = top / this.ratio;
    else if (top > seen + room) this.view.scrollTop = (top - room) / this.ratio;
    this.paint();
    const known = this.row(this.at);
    if (known) this.options.active?.(known);
    else {
      this.pages.block(Math.floor(this.at / BLOCK)).then(
        () => this.options.active?.(this.row(this.at) ?? null),
        (error) => error.name !== "AbortError" && this.options.failed?.(error),
      );
    }
  }

  /** To the row of that key, if there is one. */
  async reveal(key) {
    const index = await this.options.where(key);
    if (index === null) return;
    this.move(index);
    this.anchor = this.at;
  }
}
