// SPDX-License-Identifier: Apache-2.0
// One grid for everything that has rows: it asks for those that are seen, in blocks, and has a fixed number of elements whatever
// there is. The ARIA grid pattern with one active row (aria-activedescendant). Not here: what a row means.

import { fill, h, icon, say } from "./dom.js";
import * as format from "./format.js";

const BLOCK = 200;
const SPARE = 8;
const TALLEST = 8_000_000; // pixels that every browser scrolls through
const TYPING = 800; // ms in which letters are one word
let grids = 0;

export class Grid {
  /**
   * @param {{label: string, columns: {id: string, label: string, sort?: boolean, cell: (row: object) => (Node|string), class?: string}[],
   *   load: (offset: number, count: number, signal: AbortSignal) => Promise<{rows: object[], matched: number}>,
   *   jump?: (prefix: string, after: number) => Promise<number|null>, open: (row: object) => void, up?: () => void,
   *   changed?: () => void, active?: (row: object|null) => void, sorted?: (sort: string, order: string) => void, empty?: string}} options
   */
  constructor(options) {
    this.options = options;
    this.id = `grid${++grids}`;
    this.total = 0;
    this.at = 0;
    this.anchor = 0;
    this.blocks = new Map();
    this.picked = new Map();
    this.sort = "name";
    this.order = "up";
    this.word = "";
    this.pool = [];
    this.columns = options.columns;
    this.box = h("input", { type: "checkbox", "aria-label": "Select all", onchange: () => this.all(this.box.checked) });
    this.heads = this.columns.map((column, k) => this.head(column, k));
    this.header = h("div", { role: "row", class: "row head", "aria-rowindex": "1" }, h("div", { role: "columnheader", class: "cell pick", "aria-colindex": "1" }, this.box), this.heads);
    this.spacer = h("div", { class: "spacer", role: "presentation" });
    this.body = h("div", { class: "rows", role: "rowgroup" });
    this.note = h("p", { class: "empty", hidden: true });
    this.view = h("div", { class: "view" }, this.spacer, this.body);
    this.element = h("div", { class: "grid", role: "grid", id: this.id, tabindex: "0", "aria-label": options.label, "aria-multiselectable": "true", "aria-colcount": String(this.columns.length + 1) }, h("div", { role: "rowgroup", class: "top" }, this.header), this.view, this.note);
    this.view.addEventListener("scroll", () => this.paint(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("dblclick", (event) => { const row = this.rowOf(event.target); if (row && !event.target.closest("input, a, button")) this.options.open(row); });
    new ResizeObserver(() => this.paint()).observe(this.view);
  }

  head(column, k) {
    const cell = h("div", { role: "columnheader", class: `cell ${column.class ?? column.id}`, "aria-colindex": String(k + 2) });
    if (!column.sort) return fill(cell, column.label);
    return fill(cell, h("button", { type: "button", tabindex: "-1", onclick: () => this.by(column.id) }, column.label, h("span", { class: "arrow", "aria-hidden": "true" })));
  }

  by(sort) {
    this.order = this.sort === sort && this.order === "up" ? "down" : "up";
    this.sort = sort;
    this.options.sorted?.(this.sort, this.order);
    this.reset();
    say(`Sorted by ${sort}, ${this.order === "up" ? "ascending" : "descending"}`);
  }

  /** Everything anew; `keep`: what was picked and where somebody is stay. */
  async reset({ keep = false } = {}) {
    this.controller?.abort();
    this.controller = new AbortController();
    this.blocks.clear();
    if (!keep) {
      this.at = this.anchor = 0;
      this.picked.clear();
      this.view.scrollTop = 0;
      this.total = 0;
      this.word = "";
      this.paint(); // what is shown is of another place already
    }
    this.columns.forEach((column, k) => {
      if (column.sort) this.heads[k].setAttribute("aria-sort", column.id === this.sort ? (this.order === "up" ? "ascending" : "descending") : "none");
    });
    this.note.hidden = true;
    this.element.setAttribute("aria-busy", "true");
    try {
      await this.block(0);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.size(0);
      throw error;
    } finally {
      this.element.removeAttribute("aria-busy");
    }
    this.tell();
  }

  /** The same place, because there is more of it now. */
  refresh() { return this.reset({ keep: true }); }

  async block(number) {
    const known = this.blocks.get(number);
    if (known) return known;
    const signal = this.controller.signal;
    const coming = this.options.load(number * BLOCK, BLOCK, signal).then((page) => {
      if (signal.aborted) throw new DOMException("", "AbortError");
      this.blocks.set(number, page.rows);
      this.size(page.matched);
      return page.rows;
    }, (error) => {
      if (this.blocks.get(number) === coming) this.blocks.delete(number);
      throw error;
    });
    this.blocks.set(number, coming);
    return coming;
  }

  size(total) {
    this.total = total;
    this.at = Math.min(this.at, Math.max(0, total - 1));
    this.element.setAttribute("aria-rowcount", String(total + 1));
    this.note.hidden = total > 0;
    if (!total) fill(this.note, this.options.empty ?? "Nothing is here.");
    this.paint();
  }

  get height() {
    this.measured ??= parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 32;
    return this.measured;
  }

  get scale() { return Math.max(1, (this.total * this.height) / TALLEST); }

  first() { return Math.floor((this.view.scrollTop * this.scale) / this.height); }

  shows() { return Math.max(1, Math.floor(this.view.clientHeight / this.height)); }

  paint() {
    this.spacer.style.height = `${Math.min(this.total * this.height, TALLEST)}px`;
    const first = Math.max(0, Math.min(this.first(), this.total - this.shows()) - SPARE);
    const last = Math.min(this.total, first + this.shows() + 2 * SPARE + 1);
    const shift = this.scale === 1 ? first * this.height : this.view.scrollTop - (this.first() - first) * this.height;
    this.body.style.transform = `translateY(${shift}px)`;
    while (this.pool.length < last - first) this.pool.push(this.body.appendChild(h("div", { role: "row", class: "row" })));
    while (this.pool.length > last - first) this.pool.pop().remove();
    for (let k = first; k < last; k += 1) this.draw(this.pool[k - first], k);
    for (let number = Math.floor(first / BLOCK); number <= Math.floor(Math.max(first, last - 1) / BLOCK) && this.total; number += 1) {
      if (!this.blocks.has(number)) this.block(number).then(() => this.paint(), () => {});
    }
    if (this.total && this.at >= first && this.at < last) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  row(index) {
    const block = this.blocks.get(Math.floor(index / BLOCK));
    return Array.isArray(block) ? block[index % BLOCK] : undefined;
  }

  draw(element, index) {
    const row = this.row(index);
    const picked = row !== undefined && this.picked.has(this.name(row));
    const state = `${index} ${row !== undefined} ${picked} ${index === this.at} ${row?.version ?? ""}`;
    if (element.drawn === state && element.row === row) return;
    Object.assign(element, { drawn: state, row });
    element.id = `${this.id}-${index}`;
    element.className = `row${index === this.at ? " active" : ""}${picked ? " picked" : ""}${row === undefined ? " waiting" : ""}`;
    element.setAttribute("aria-rowindex", String(index + 2));
    element.setAttribute("aria-selected", String(picked));
    if (row === undefined) {
      fill(element, h("div", { role: "gridcell", class: "cell pick" }), h("div", { role: "gridcell", class: "cell name" }, h("span", { class: "bone" }, "…")));
      return;
    }
    const box = h("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${row.name}`, checked: picked });
    fill(element, h("div", { role: "gridcell", class: "cell pick", "aria-colindex": "1" }, box),
      this.columns.map((column, k) => h("div", { role: "gridcell", class: `cell ${column.class ?? column.id}`, "aria-colindex": String(k + 2) }, column.cell(row))));
  }

  name(row) { return row.place ?? row.key; }

  rowOf(target) { return target.closest(".row")?.row; }

  indexOf(target) { return Number(target.closest(".row").id.split("-")[1]); }

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

  async range(index) {
    const [low, high] = [Math.min(this.anchor, index), Math.min(Math.max(this.anchor, index), Math.min(this.anchor, index) + 5000)];
    for (let number = Math.floor(low / BLOCK); number <= Math.floor(high / BLOCK); number += 1) await this.block(number);
    this.picked.clear();
    for (let k = low; k <= high; k += 1) { const row = this.row(k); if (row) this.picked.set(this.name(row), row); }
    this.tell();
  }

  async all(on) {
    if (on && this.total > 2000) {
      this.box.checked = false;
      this.options.tooMany?.();
      return;
    }
    this.anchor = 0;
    if (on && this.total) await this.range(this.total - 1);
    else this.picked.clear();
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
    const top = (this.at * this.height) / this.scale;
    const room = this.view.clientHeight - this.height;
    if (this.scale > 1) {
      if (this.at < this.first() || this.at >= this.first() + this.shows()) this.view.scrollTop = top;
    } else if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top > this.view.scrollTop + room) this.view.scrollTop = top - room;
    this.paint();
    const known = this.row(this.at);
    if (known) this.options.active?.(known);
    else this.block(Math.floor(this.at / BLOCK)).then(() => { this.paint(); this.options.active?.(this.row(this.at) ?? null); }, () => {});
  }

  key(event) {
    if (event.altKey || event.metaKey || (event.target !== this.element && event.target.closest("button, input"))) return;
    const page = this.shows() - 1;
    const to = { ArrowDown: this.at + 1, ArrowUp: this.at - 1, PageDown: this.at + page, PageUp: this.at - page, Home: 0, End: this.total - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.move(to);
      if (event.shiftKey) this.range(this.at);
      else if (!event.ctrlKey) this.anchor = this.at;
    } else if (event.key === "Enter") {
      event.preventDefault();
      Promise.resolve(this.jumping).then(() => { // what was typed before leads there first
        const row = this.row(this.at);
        if (row) this.options.open(row);
      });
    } else if (event.key === " " && !this.word) {
      event.preventDefault();
      this.toggle(this.at);
      this.anchor = this.at;
    } else if (event.ctrlKey && event.key === "a") {
      event.preventDefault();
      this.all(true);
    } else if (event.key === "Backspace") {
      event.preventDefault();
      this.options.up?.();
    } else if (event.key === "Escape" && this.picked.size) {
      this.picked.clear();
      this.tell();
    } else if (event.key.length === 1 && !event.ctrlKey && this.options.jump && !"/?+".includes(event.key)) {
      event.preventDefault();
      this.jumping = this.type(event.key).catch(() => {});
    }
  }

  /** Letters that follow each other quickly are the beginning of a name; the same one again and again goes through all that begin so. */
  async type(letter) {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => { this.word = ""; }, TYPING);
    const again = this.word === letter;
    this.word = again ? letter : this.word + letter;
    const wanted = (this.wanted = {});
    const found = await this.options.jump(this.word, again || this.word.length === 1 ? this.at : this.at - 1);
    if (found !== null && wanted === this.wanted) this.move(found);
  }
}

/** The cells that every list of entries has. */
export const cells = {
  name: (row, after) => h("span", { class: "title" }, icon(row.kind), h("bdi", { class: "text", title: row.name }, row.name), after),
  size: (row) => format.size(row.size),
  modified: (row) => format.moment(row.modified),
  owner: (row) => row.owner ?? "",
  mode: (row) => format.mode(row.mode),
  flags: (row) => [row.problem && h("span", { class: "flag bad", title: row.problem }, "unreadable"), (row.flags ?? []).map((flag) => h("span", { class: "flag" }, flag))],
};

