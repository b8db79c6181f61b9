// SPDX-License-Identifier: Apache-2.0
// The restore list, and what was downloaded: what is chosen stays with the session, also when the page is loaded anew.

import { get, post } from "./api.js";
import { button, fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";
import { cells, Grid } from "./grid.js";

const WAIT = 1000;

export class Basket {
  /** @param {{open: (place: object, row: object) => void, counted: (count: number) => void, point: (id: string) => string}} options */
  constructor(options) {
    this.options = options;
    this.items = [];
    this.total = h("p", { class: "state", role: "status" });
    this.taken = h("ul", { class: "downloads", "aria-label": "Downloads" });
    this.grid = new Grid({
      label: "Restore list",
      columns: [
        { id: "name", label: "Name", cell: (row) => cells.name(row) }, { id: "where", label: "Folder", cell: (row) => h("bdi", { class: "text", title: row.folder }, `${row.volume}:${row.folder}`) },
        { id: "size", label: "Size", cell: cells.size }, { id: "modified", label: "Modified", cell: cells.modified }, { id: "point", label: "Restore point", cell: (row) => options.point(row.point) },
      ],
      load: async (offset, count) => ({ rows: this.items.slice(offset, offset + count), matched: this.items.length }),
      open: (row) => options.open({ point: row.point, volume: row.volume, path: row.path }, row), changed: () => this.tell(),
      empty: "The list is empty. Add files and folders from the list of files: a button, or the key +.",
    });
    this.buttons = h("div", { class: "actions" });
    this.element = h("section", { class: "basket", "aria-label": "Restore list" }, h("header", {}, h("h2", {}, "Restore list"), this.total), this.buttons, this.grid.element, h("section", { class: "taken" }, h("h3", {}, "Downloads"), this.taken));
    this.tell();
  }

  async refresh() {
    this.keep((await get("/api/basket", {}, { background: true })).items);
    await this.downloads();
  }

  keep(items) {
    this.items = items.map((item) => ({ ...item, place: String(item.id) }));
    this.options.counted(items.length);
    return this.grid.reset();
  }

  async add(places) {
    const before = this.items.length;
    await this.keep((await post("/api/basket/add", { items: places.map(({ point, volume, path }) => ({ point, volume, path })) })).items);
    const added = this.items.length - before;
    say(added ? `${added} added, ${this.items.length} in the restore list` : "It is in the restore list already");
    return added;
  }

  tell() {
    const files = this.items.filter((item) => item.kind !== "folder");
    const folders = this.items.length - files.length;
    const words = [files.length && `${format.count(files.length)} ${files.length === 1 ? "file" : "files"}, ${format.size(files.reduce((sum, item) => sum + (item.size ?? 0), 0))}`, folders && `${format.count(folders)} ${folders === 1 ? "folder" : "folders"} with all that is in them`];
    this.total.textContent = words.filter(Boolean).join(" and ");
    const some = this.grid?.picked.size ?? 0;
    const what = some ? `${some} chosen` : "all";
    const ids = () => (some ? [...this.grid.picked.values()].map((row) => row.id) : []);
    const single = () => { const rows = some ? [...this.grid.picked.values()] : this.items; return rows.length === 1 && rows[0].kind === "file"; };
    const focused = this.buttons?.contains(document.activeElement) ? document.activeElement.textContent : null;
    fill(this.buttons ?? h("div"), this.items.length > 0 && [
      h("button", { type: "button", class: "main", onclick: () => this.download(single() ? "file" : "zip", { ids: ids() }) }, icon("download"), single() ? "Download the file" : `Download ${what} as a zip`),
      h("button", { type: "button", title: "Keeps owners, modes, links and extended attributes", onclick: () => this.download("tar", { ids: ids() }) }, `Download ${what} as a tar`),
      h("button", { type: "button", onclick: () => this.remove() }, some ? `Remove ${some}` : "Empty the list"),
    ]);
    if (focused !== null) (this.buttons.querySelector("button") ?? this.grid.element).focus();
  }

  async remove() {
    const rows = this.grid.picked.size ? [...this.grid.picked.values()] : this.items;
    await this.keep((await post("/api/basket/remove", { ids: rows.map((row) => row.id) })).items);
    say("Removed from the restore list");
  }

  /** Of places, or of items of the list by their ids (none: all of it). */
  async download(form, { places = [], ids = [] }) {
    let made = await post("/api/downloads/make", { form, ids, items: places.map(({ point, volume, path }) => ({ point, volume, path })) });
    if (made.state === "preparing") toast("The download is being made ready: its files are counted.");
    while (made.state === "preparing") {
      await new Promise((done) => { setTimeout(done, WAIT); });
      made = (await get("/api/downloads", {}, { background: true })).downloads.find((one) => one.id === made.id) ?? { ...made, state: "failed" };
    }
    if (made.state === "failed") { toast(made.error ? `${made.error.what}: ${made.error.value}` : "The download could not be made ready.", { bad: true }); return; }
    h("a", { href: made.url, download: "" }).click();
    say(`Download of ${made.name} begins`);
    setTimeout(() => this.downloads(), WAIT);
  }

  async downloads() {
    const { downloads } = await get("/api/downloads", {}, { background: true });
    fill(this.taken, downloads.length ? downloads.map((one) => h("li", {}, icon("download"), h("span", { class: "what" }, h("bdi", { class: "text" }, one.name), h("span", { class: "sub" }, this.words(one)), one.problem_count > 0 && h("details", {}, h("summary", { class: "bad" }, `${format.count(one.problem_count)} could not be taken out as they are`), h("ul", {}, one.problems.map((text) => h("li", {}, text))))), one.state === "ready" && h("a", { href: one.url, download: "" }, "Download again"))) : h("li", { class: "sub" }, "Nothing was downloaded yet."));
  }

  words(one) {
    if (one.state !== "ready") return one.state === "failed" ? (one.error?.what ?? "failed") : `${format.count(one.files)} files so far`;
    const parts = [one.size === null ? "a tar" : format.size(one.size), one.files > 0 && `${format.count(one.files)} files`, one.sent > 0 && `${format.size(one.sent)} sent`];
    return parts.filter(Boolean).join(" · ");
  }
}

/** Who did what in this session. */
export class Log {
  constructor() {
    this.rows = [];
    this.choice = h("select", { "aria-label": "Which", onchange: () => this.paint() }, [["", "everything"], ["download", "downloads"], ["sign", "sign-ins"], ["!ok", "what did not work"]].map(([value, text]) => h("option", { value }, text)));
    this.table = h("tbody");
    this.element = h("section", { class: "log", "aria-label": "Session log" }, h("header", {}, h("h2", {}, "Session log"), this.choice, h("a", { href: "/api/log?download", download: "" }, icon("download"), "Download"), button("Refresh", { name: "refresh", onclick: () => this.refresh() })),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Entries of the log" }, h("table", {}, h("thead", {}, h("tr", {}, ["Time", "What", "Result", "Path", "Size", "From"].map((name) => h("th", { scope: "col" }, name)))), this.table)));
  }

  async refresh() {
    this.rows = (await get("/api/log", {}, { background: true })).records.reverse();
    this.paint();
  }

  paint() {
    const wanted = this.choice.value;
    const rows = this.rows.filter((row) => !wanted || (wanted === "!ok" ? (row.result ?? "ok") !== "ok" : row.what.startsWith(wanted)));
    fill(this.table, rows.map((row) => h("tr", {}, h("td", {}, format.moment(Date.parse(row.time) / 1000)), h("td", {}, row.what), h("td", { class: (row.result ?? "ok") === "ok" ? "" : "bad" }, row.result ?? "ok"), h("td", { class: "path" }, h("bdi", {}, row.path ?? ""), row.text && h("span", { class: "sub" }, ` ${row.text}`)), h("td", {}, format.size(row.size)), h("td", {}, row.address ?? ""))));
  }
}
