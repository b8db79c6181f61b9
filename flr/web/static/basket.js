// SPDX-License-Identifier: Apache-2.0
// The restore list, and what was downloaded: what is chosen stays with the session, also when the page is loaded anew.

import { get, post } from "./api.js";
import { cells } from "./cells.js";
import { fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";
import { Grid } from "./grid.js";
import { Restores } from "./restore.js";

const WAIT = 1000; // ms between two looks at a download that is made ready or under way
const ARCHIVES = [
  ["zip", "zip", "For every computer; links and owners are left out"],
  ["tar", "tar", "Keeps owners, modes, links and extended attributes"],
];

/** @typedef {import("./api.js").Place} Place */
export class Basket {
  /**
   * @param {{open: (place: Place) => void, counted: (count: number) => void, volume: (id: string) => string,
   *   point: (id: string) => string, failed: (error: Error) => void}} options
   */
  constructor(options) {
    this.options = options;
    this.items = [];
    this.total = h("p", { class: "state", role: "status" });
    this.taken = h("ul", { class: "downloads", "aria-label": "Downloads" });
    this.buttons = h("div", { class: "actions" });
    this.states = new Map(); // by item: how the last restore of it went
    this.restores = new Restores({
      failed: options.failed,
      changed: () => this.tell(),
      listed: () => !this.element.hidden,
      states: (states) => this.told(states),
    });
    const where = (row) => `${options.volume(row.volume)}: ${row.folder}`;
    this.grid = new Grid({
      label: "Restore list",
      columns: [
        {
          id: "name",
          label: "Name",
          cell: (row) =>
            cells.name(
              row,
              h(
                "span",
                { class: "sub under" },
                row.kind === "file" && `${format.size(row.size)} · `,
                h("bdi", {}, where(row)),
              ),
            ),
        },
        { id: "where", label: "Folder", cell: (row) => h("bdi", { class: "text", title: where(row) }, where(row)) },
        { id: "size", label: "Size", cell: (row) => h("span", { "data-inside": String(row.id) }, this.size(row)) },
        { id: "modified", label: "Modified", cell: cells.modified },
        { id: "point", label: "Restore point", cell: (row) => options.point(row.point) },
        {
          id: "status",
          label: "Restored",
          cell: (row) => h("span", { "data-item": String(row.id) }, this.states.get(row.id) ?? ""),
        },
      ],
      load: async (offset, count) => ({ rows: this.items.slice(offset, offset + count), matched: this.items.length }),
      open: (row) => options.open({ point: row.point, volume: row.volume, path: row.path }),
      changed: () => this.tell(),
      tooMany: () => toast("All of the list is taken when nothing is chosen."),
      empty: "The list is empty. Add files and folders from the list of files: by the button, or the key +.",
    });
    this.element = h(
      "section",
      { class: "basket", "aria-label": "Restore list" },
      h("header", {}, h("h2", {}, "Restore list"), this.total),
      this.buttons,
      this.restores.way,
      this.grid.frame,
      h("div", { class: "taken" }, this.restores.element, h("section", {}, h("h3", {}, "Downloads"), this.taken)),
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Delete" || !this.items.length) return;
      event.preventDefault();
      this.remove().catch(options.failed);
    });
  }

  async refresh() {
    await this.keep((await get("/api/basket", {}, { background: true })).items);
    await Promise.all([this.downloads(), this.restores.refresh()]);
  }

  /** How far items are on their way back to the machine. */
  told(states) {
    this.states = states;
    for (const place of this.grid.body.querySelectorAll("[data-item]"))
      place.textContent = states.get(Number(place.dataset.item)) ?? "";
  }

  async keep(items) {
    this.items = items.map((item) => ({ ...item, place: String(item.id) }));
    this.options.counted(items.length);
    await this.grid.reset();
    this.tell();
    this.count().catch(() => {});
  }

  async add(places) {
    const before = this.items.length;
    const items = places.map(({ point, volume, path }) => ({ point, volume, path }));
    await this.keep((await post("/api/basket/add", { items })).items);
    return this.items.length - before;
  }

  some() {
    return [...this.grid.picked.values()];
  }

  tell() {
    this.total.textContent = this.amount(this.items);
    const focused = this.buttons.contains(document.activeElement);
    fill(this.buttons, this.items.length > 0 && this.offers());
    if (focused) (this.buttons.querySelector("button") ?? this.grid.element).focus();
  }

  /** How much it is; of folders as far as they were counted. */
  sum(items) {
    const folders = items.filter((item) => item.inside);
    const files = items.length - folders.length + folders.reduce((sum, item) => sum + item.inside.files, 0);
    const bytes = items.reduce((sum, item) => sum + (item.inside?.bytes ?? item.size ?? 0), 0);
    return { files, bytes, folders: folders.length, done: folders.every((item) => item.inside.done) };
  }

  amount(items) {
    if (!items.length) return "";
    const { files, bytes, folders, done } = this.sum(items);
    const parts = [
      `${format.count(files)} ${files === 1 ? "file" : "files"}, ${format.size(bytes)}`,
      folders && `in ${format.count(folders)} ${folders === 1 ? "folder" : "folders"}`,
      !done && "so far",
    ];
    return parts.filter(Boolean).join(" ");
  }

  size(row) {
    if (!row.inside) return format.size(row.size);
    return row.inside.done ? format.size(row.inside.bytes) : `${format.size(row.inside.bytes)}…`;
  }

  /** Folders are counted while the list is seen. */
  async count() {
    clearTimeout(this.counting);
    if (this.element.hidden || this.sum(this.items).done) return;
    try {
      const { items } = await get("/api/basket", {}, { background: true });
      const fresh = new Map(items.map((item) => [item.id, item.inside]));
      for (const item of this.items) item.inside = fresh.get(item.id) ?? item.inside;
      for (const place of this.grid.body.querySelectorAll("[data-inside]")) {
        const row = this.items.find((item) => String(item.id) === place.dataset.inside);
        if (row) place.textContent = this.size(row);
      }
      this.total.textContent = this.amount(this.items);
    } finally {
      this.counting = setTimeout(() => this.count().catch(() => {}), WAIT);
    }
  }

  /** Buttons for what is chosen, or all. */
  offers() {
    const some = this.some();
    const rows = some.length ? some : this.items;
    const what = some.length ? `${format.count(some.length)} chosen` : "all";
    const ids = some.map((row) => row.id);
    const takes = (form) => () => this.download(form, { ids }).catch(this.options.failed);
    const single = rows.length === 1 && rows[0].kind === "file";
    const restore = this.restores.offer(what, ids);
    const main = restore ? "" : "main";
    return [
      restore,
      single &&
        h("button", { type: "button", class: main, onclick: takes("file") }, icon("download"), "Download the file"),
      ARCHIVES.filter(([form]) => !single || form !== "zip").map(([form, name, title], k) =>
        h(
          "button",
          { type: "button", class: single || k ? "" : main, title, onclick: takes(form) },
          !single && !k && icon("download"),
          `Download ${what} as a ${name}`,
        ),
      ),
      h(
        "button",
        { type: "button", onclick: () => this.remove().catch(this.options.failed) },
        some.length ? `Remove ${format.count(some.length)}` : "Empty the list",
      ),
    ];
  }

  async remove() {
    const some = this.some();
    const gone = some.length ? some : this.items;
    await this.keep((await post("/api/basket/remove", { ids: gone.map((row) => row.id) })).items);
    const back = () => this.add(gone).catch(this.options.failed);
    toast(
      gone.length === 1
        ? "Removed from the restore list."
        : `${format.count(gone.length)} removed from the restore list.`,
      { action: h("button", { type: "button", onclick: back }, "Undo") },
    );
  }

  /** Of places, or of items of the list by their ids (none: all of it). */
  async download(form, { places = [], ids = [] }) {
    const items = places.map(({ point, volume, path }) => ({ point, volume, path }));
    let made = await post("/api/downloads/make", { form, ids, items });
    if (made.state === "preparing")
      toast("The download is being made ready: its files are counted. The restore list shows how far it is.");
    while (made.state === "preparing") {
      await new Promise((done) => {
        setTimeout(done, WAIT);
      });
      const { downloads } = await this.downloads();
      made = downloads.find((one) => one.id === made.id) ?? { ...made, state: "failed" };
    }
    if (made.state === "failed") {
      toast(made.error ? format.sentence(made.error) : "The download could not be made ready.", { bad: true });
      return;
    }
    await this.turn(made);
    h("a", { href: made.url, download: "" }).click();
    say(`Download of ${made.name} begins`);
    this.watch();
  }

  /** Until no other archive is on its way: the worker sends one after the other. */
  async turn(made) {
    if (made.form === "file") return;
    const busy = ({ downloads }) => downloads.some((one) => one.sending && one.id !== made.id);
    if (!busy(await this.downloads())) return;
    toast(`${made.name} begins when the archive before it is done.`);
    do {
      await new Promise((done) => {
        setTimeout(done, WAIT);
      });
    } while (busy(await this.downloads()));
  }

  /** What is under way is followed while the list is seen. */
  watch() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.downloads().catch(() => {}), WAIT);
  }

  async downloads() {
    const answer = await get("/api/downloads", {}, { background: true });
    const lines = answer.downloads.map((one) => JSON.stringify(one));
    if (lines.join() !== this.seen) {
      const open = new Set([...this.taken.querySelectorAll("details[open]")].map((one) => one.dataset.id));
      const focused = this.taken.contains(document.activeElement);
      fill(
        this.taken,
        lines.length
          ? answer.downloads.toReversed().map((one) => this.line(one, open.has(one.id)))
          : h("li", { class: "sub" }, "Nothing was downloaded yet."),
      );
      if (focused) this.taken.querySelector("a, summary")?.focus();
      const busy = this.seen !== undefined || answer.downloads.some((one) => one.state === "preparing");
      this.seen = lines.join();
      if (busy && !this.element.hidden) this.watch();
    }
    return answer;
  }

  line(one, open) {
    const problems =
      one.problem_count > 0 &&
      h(
        "details",
        { open, "data-id": one.id },
        h(
          "summary",
          { class: "bad" },
          one.problem_count === 1
            ? "1 could not be taken out as it is"
            : `${format.count(one.problem_count)} could not be taken out as they are`,
        ),
        h(
          "ul",
          {},
          one.problems.map((text) => h("li", {}, h("bdi", {}, text))),
          one.problem_count > one.problems.length &&
            h("li", {}, `and ${format.count(one.problem_count - one.problems.length)} more`),
        ),
      );
    return h(
      "li",
      {},
      icon("download"),
      h(
        "span",
        { class: "what" },
        h("bdi", { class: "text", title: one.name }, one.name),
        h("span", { class: "sub" }, this.words(one)),
        problems,
      ),
      one.state === "ready" &&
        h("a", { class: "button", href: one.url, download: "", onclick: () => this.watch() }, "Download again"),
    );
  }

  words(one) {
    if (one.state === "failed") return one.error ? format.sentence(one.error) : "It could not be made ready.";
    if (one.state === "preparing") return `Being made ready: ${format.count(one.files)} files so far`;
    const size = one.size === null ? one.form : format.size(one.size);
    const parts = [
      size,
      one.files > 0 && `${format.count(one.files)} files`,
      one.sent > 0 && `${format.size(one.sent)} sent`,
    ];
    return parts.filter(Boolean).join(" · ");
  }
}
