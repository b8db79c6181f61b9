// SPDX-License-Identifier: Apache-2.0
// What is known of one entry: its figures, a look at its content (`preview.js`), and what other restore points have in its place.

import { get } from "./api.js";
import { button, copies, fill, h, icon } from "./dom.js";
import * as format from "./format.js";
import { Preview } from "./preview.js";

const SOON = 120; // ms that somebody stays at an entry before anything is asked for: they may only be passing by

/**
 * @typedef {import("./api.js").Place} Place
 * @typedef {import("./api.js").Row} Row
 * @typedef {import("./api.js").Point} Point
 */
export class Details {
  /**
   * @param {{points: () => Point[], open: (place: Place) => void, locate: (place: Place) => void, located: () => boolean,
   *   add: (items: Place[]) => void, download: (items: (Place & {kind: string})[]) => void, close: () => void}} options
   */
  constructor(options) {
    this.options = options;
    this.tabs = ["Details", "Preview", "Versions"].map((label, k) =>
      h(
        "button",
        { type: "button", role: "tab", id: `tab${k}`, "aria-controls": "sheet", onclick: () => this.pick(k) },
        label,
      ),
    );
    this.tab = 0;
    this.title = h("h2", { class: "text" });
    this.sheet = h("div", { class: "sheet", id: "sheet", role: "tabpanel", tabindex: "0" });
    this.looked = new Preview(this.sheet);
    this.list = h("div", { role: "tablist", class: "tabs", "aria-label": "About the entry" }, this.tabs);
    this.list.addEventListener("keydown", (event) => {
      const to = { ArrowRight: (this.tab + 1) % 3, ArrowLeft: (this.tab + 2) % 3, Home: 0, End: 2 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.pick(to);
      this.tabs[to].focus();
    });
    this.actions = h("div", { class: "actions" });
    this.element = h(
      "aside",
      { class: "details", "aria-label": "About the entry", tabindex: "-1" },
      h("header", {}, this.title, button("Close", { name: "close", onclick: () => options.close() })),
      this.list,
      this.sheet,
      this.actions,
    );
  }

  pick(tab) {
    this.tab = tab;
    this.paint();
  }

  /** @param {Place|null} place @param {Row|null} row */
  show(place, row) {
    const same =
      place &&
      this.place &&
      place.path === this.place.path &&
      place.volume === this.place.volume &&
      place.point === this.place.point;
    if (same) return; // a list that is still being read tells of the same entry again and again
    this.place = place;
    this.row = row;
    clearTimeout(this.soon);
    this.top();
    fill(this.sheet, h("p", { class: "sub" }, row ? "…" : "Choose a file or a folder in the list."));
    this.soon = setTimeout(() => this.paint(), SOON);
  }

  /** What belongs to the entry at once: nothing may be done with another one than is shown. */
  top() {
    const { place, row } = this;
    this.tabs.forEach((tab, k) => {
      tab.setAttribute("aria-selected", String(k === this.tab));
      tab.setAttribute("tabindex", k === this.tab ? "0" : "-1");
    });
    this.sheet.setAttribute("aria-labelledby", `tab${this.tab}`);
    fill(this.title, row ? [icon(row.kind), h("bdi", { title: row.name }, row.name)] : "Nothing is chosen");
    fill(
      this.actions,
      row &&
        !row.problem && [
          ["file", "folder"].includes(row.kind) &&
            h(
              "button",
              { type: "button", class: "main", onclick: () => this.options.download([{ ...place, kind: row.kind }]) },
              icon("download"),
              "Download",
            ),
          h(
            "button",
            { type: "button", onclick: () => this.options.add([place]) },
            icon("plus"),
            "Add to the restore list",
          ),
        ],
      row &&
        this.options.located() &&
        h(
          "button",
          { type: "button", onclick: () => this.options.locate(place) },
          icon("folder"),
          "Show in its folder",
        ),
    );
  }

  paint() {
    clearTimeout(this.soon);
    this.looked.forget();
    this.top();
    const { place, row, tab } = this;
    if (!row || this.element.hidden) return;
    fill(this.sheet, h("p", { class: "sub" }, "…"));
    const fresh = () => this.place === place && this.tab === tab && !this.element.hidden;
    const work = [this.figures, this.preview, this.versions][tab].call(this, place, row, fresh);
    work.catch((error) => {
      if (fresh())
        fill(
          this.sheet,
          h("p", { class: "bad" }, format.sentence(error)),
          error.hint && h("p", { class: "sub" }, format.sentence({ what: error.hint })),
        );
    });
  }

  preview(place, row, fresh) {
    return this.looked.show(place, row, fresh);
  }

  async figures(place, row, fresh) {
    const found = await get("/api/details", place, { background: true });
    if (!fresh()) return;
    const line = (name, value) =>
      value !== undefined &&
      value !== null &&
      value !== false &&
      value !== "" && [h("dt", {}, name), h("dd", {}, value)];
    const numbered = (name, number) => name && (name === String(number) ? name : `${name} (${number})`);
    const time = ([name, { at, exact }]) =>
      line(name[0].toUpperCase() + name.slice(1), [
        `${format.moment(at, true)} · ${format.age(at)}`,
        h("span", { class: "sub block" }, exact),
      ]);
    fill(
      this.sheet,
      h(
        "dl",
        {},
        line("Path", [h("bdi", {}, found.path), " ", copies(found.path, "Copy the path")]),
        line("Kind", row.kind),
        found.target !== undefined && line("Leads to", h("bdi", {}, found.target)),
        row.kind === "file" &&
          line(
            "Size",
            found.size < 1024
              ? `${format.count(found.size)} bytes`
              : `${format.size(found.size)} (${format.count(found.size)} bytes)`,
          ),
        row.kind === "file" && line("On disk", format.size(found.allocated)),
        Object.entries(found.times).map(time),
        line("Owner", numbered(found.owner, found.owner_id)),
        line("Group", numbered(found.group, found.group_id)),
        line("Permissions", h("code", {}, found.permissions)),
        line("Names", found.links > 1 && row.kind !== "folder" && `${found.links} (hard links)`),
        line("Flags", (found.flags ?? []).join(", ")),
        row.kind === "file" && [h("dt", {}, "SHA-256"), this.hash(place)],
        (found.streams ?? []).map((stream) =>
          line("Stream", [h("bdi", {}, stream.name), ` · ${format.size(stream.size)}`]),
        ),
        (found.attributes ?? []).map((one) => [
          h("dt", {}, h("code", {}, one.name)),
          h("dd", { class: "value" }, one.value || "(empty)"),
        ]),
        line("Security descriptor", found.security && h("code", { class: "value" }, found.security)),
      ),
      found.problems.map((text) => h("p", { class: "bad" }, text)),
    );
  }

  hash(place) {
    const made = h("dd", {});
    const ask = async () => {
      fill(made, h("span", { role: "status" }, "Reading the whole file…"));
      try {
        const { sha256 } = await get("/api/hash", place);
        fill(made, h("code", { role: "status" }, sha256), " ", copies(sha256, "Copy the SHA-256"));
      } catch (error) {
        fill(made, h("span", { class: "bad", role: "alert" }, format.sentence(error)));
      }
    };
    return fill(made, h("button", { type: "button", onclick: ask }, "Compute SHA-256"));
  }

  async versions(place, _, fresh) {
    const points = this.options.points();
    const here = points.findIndex((point) => point.id === place.point);
    const order = [...points.keys()].sort((a, b) => Math.abs(a - here) - Math.abs(b - here) || a - b);
    const when = (point) =>
      h(
        "span",
        { class: "when" },
        format.point(point, points, false),
        point.made !== null && h("span", { class: "sub" }, ` ${format.age(point.made)}`),
      );
    const lines = points.map((point, k) =>
      h("li", k === here ? { "aria-current": "true" } : {}, when(point), h("span", { class: "sub" }, "…")),
    );
    const intro =
      points.length === 1
        ? "There is no other restore point."
        : `What the ${points.length} restore points have at this path, the newest first.`;
    fill(this.sheet, h("p", { class: "sub" }, intro), h("ol", { class: "versions" }, lines));
    let first = null;
    for (const k of order) {
      try {
        const found = await get("/api/versions", { ...place, point: points[k].id }, { background: true });
        if (!fresh()) return;
        first ??= found;
        const figures = !found.there
          ? "not there"
          : [
              found.kind === "file" && format.size(found.size),
              found.modified !== undefined && format.moment(found.modified, true),
            ]
              .filter(Boolean)
              .join(" · ");
        const marks = k === here ? [["shown now", ""]] : differences(first, found);
        fill(
          lines[k],
          when(points[k]),
          h("span", { class: "sub" }, figures),
          marks.length > 0 &&
            h(
              "span",
              { class: "marks" },
              marks.map(([text, kind]) => h("span", { class: `flag ${kind}` }, text)),
            ),
          found.there &&
            k !== here &&
            h(
              "button",
              { type: "button", class: "small", onclick: () => this.options.open({ ...place, point: points[k].id }) },
              "Go there",
            ),
        );
      } catch (error) {
        if (!fresh()) return;
        fill(lines[k], when(points[k]), h("span", { class: "sub bad" }, format.sentence(error)));
      }
    }
  }
}

/** What another version has that this one has not, in words: [text, kind of mark]. */
function differences(mine, other) {
  if (!other.there || !mine.there) return [];
  const marks = [];
  if (other.kind !== mine.kind) marks.push([`a ${other.kind}`, "warn"]);
  if (other.size !== mine.size)
    marks.push([
      `${format.size(Math.abs(other.size - mine.size))} ${other.size > mine.size ? "larger" : "smaller"}`,
      "warn",
    ]);
  if (other.modified !== mine.modified)
    marks.push([other.modified > mine.modified ? "changed later" : "changed earlier", "warn"]);
  if (other.mode !== mine.mode) marks.push(["other permissions", "warn"]);
  if (other.owner !== mine.owner || other.group !== mine.group) marks.push(["another owner", "warn"]);
  return marks.length ? marks : [["the same", ""]];
}
