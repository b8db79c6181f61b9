// SPDX-License-Identifier: Apache-2.0
// What is known of one entry: its figures, a look at its content, and what other restore points have in its place.

import { blob, get } from "./api.js";
import { button, fill, h, icon, toast } from "./dom.js";
import * as format from "./format.js";

export class Details {
  /** @param {{points: () => object[], open: (place: object) => void, add: (items: object[]) => void, download: (items: object[]) => void, close: () => void}} options */
  constructor(options) {
    this.options = options;
    this.tabs = ["Details", "Preview", "Versions"].map((label, k) => h("button", { type: "button", role: "tab", id: `tab${k}`, "aria-controls": "sheet", onclick: () => this.pick(k) }, label));
    this.tab = 0;
    this.title = h("h2", { class: "text" });
    this.sheet = h("div", { class: "sheet", id: "sheet", role: "tabpanel", tabindex: "0" });
    this.list = h("div", { role: "tablist", class: "tabs", "aria-label": "About the entry" }, this.tabs);
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { this.pick((this.tab + step + 3) % 3); this.tabs[this.tab].focus(); }
    });
    this.actions = h("div", { class: "actions" });
    this.element = h("aside", { class: "details", "aria-label": "About the entry" }, h("header", {}, this.title, button("Close", { name: "close", onclick: () => options.close() })), this.list, this.sheet, this.actions);
  }

  pick(tab) { this.tab = tab; this.paint(); }

  /** `place`: {point, volume, path} of a row, or null. Asked a moment later: somebody may only be passing by. */
  show(place, row) {
    this.place = place;
    this.row = row;
    clearTimeout(this.soon);
    this.top();
    fill(this.sheet, h("p", { class: "sub" }, row ? "…" : "Choose a file or a folder in the list."));
    this.soon = setTimeout(() => this.paint(), 120);
  }

  /** What belongs to the entry at once: nothing may be done with another one than is shown. */
  top() {
    const { place, row } = this;
    this.tabs.forEach((tab, k) => { tab.setAttribute("aria-selected", String(k === this.tab)); tab.setAttribute("tabindex", k === this.tab ? "0" : "-1"); });
    this.sheet.setAttribute("aria-labelledby", `tab${this.tab}`);
    fill(this.title, row ? [icon(row.kind), h("bdi", {}, row.name)] : "Nothing is chosen");
    fill(this.actions, row && !row.problem && [
      h("button", { type: "button", onclick: () => this.options.add([place]) }, icon("plus"), "Add to the restore list"),
      ["file", "folder"].includes(row.kind) && h("button", { type: "button", class: "main", onclick: () => this.options.download([{ ...place, kind: row.kind }]) }, icon("download"), "Download"),
    ]);
  }

  paint() {
    URL.revokeObjectURL(this.picture ?? "");
    this.top();
    const { place, row } = this;
    if (!row || this.element.hidden) return;
    fill(this.sheet, h("p", { class: "sub" }, "…"));
    const fresh = () => this.place === place;
    const work = [this.figures, this.preview, this.versions][this.tab].call(this, place, row, fresh);
    work.catch((error) => { if (fresh()) fill(this.sheet, h("p", { class: "bad" }, error.what ?? String(error)), h("p", { class: "sub" }, error.hint ?? "")); });
  }

  async figures(place, row, fresh) {
    const found = await get("/api/details", place, { background: true });
    if (!fresh()) return;
    const line = (name, value) => value !== undefined && value !== null && value !== false && value !== "" && [h("dt", {}, name), h("dd", {}, value)];
    const hash = h("dd", {});
    const ask = h("button", { type: "button", onclick: async () => {
      fill(hash, "reading the whole file…");
      try {
        const { sha256 } = await get("/api/hash", place);
        fill(hash, h("code", {}, sha256), " ", h("button", { type: "button", onclick: () => navigator.clipboard.writeText(sha256).then(() => toast("Copied.")) }, "Copy"));
      } catch (error) { fill(hash, error.what ?? String(error)); }
    } }, "Compute SHA-256");
    fill(hash, ask);
    fill(this.sheet, h("dl", {},
      line("Path", h("bdi", {}, found.path)),
      line("Kind", row.kind),
      found.target !== undefined && line("Leads to", h("bdi", {}, found.target)),
      row.kind === "file" && line("Size", `${format.size(found.size)} (${format.count(found.size)} bytes)`),
      row.kind === "file" && line("On disk", format.size(found.allocated)),
      Object.entries(found.times).map(([name, time]) => line(name[0].toUpperCase() + name.slice(1), h("span", { title: time.exact }, `${format.moment(time.at)} · ${format.age(time.at)}`))),
      line("Owner", found.owner && `${found.owner}${found.owner === String(found.owner_id) ? "" : ` (${found.owner_id})`}`),
      line("Group", found.group && `${found.group}${found.group === String(found.group_id) ? "" : ` (${found.group_id})`}`),
      line("Permissions", h("code", {}, found.permissions)),
      line("Links", found.links > 1 && row.kind !== "folder" && String(found.links)),
      line("Flags", (found.flags ?? []).join(", ")),
      row.kind === "file" && [h("dt", {}, "SHA-256"), hash],
      (found.streams ?? []).map((stream) => line("Stream", [h("bdi", {}, stream.name), ` · ${format.size(stream.size)}`])),
      (found.attributes ?? []).map((one) => [h("dt", {}, h("code", {}, one.name)), h("dd", { class: "value" }, one.value || "(empty)")]),
      line("Security descriptor", found.security && h("code", { class: "value" }, found.security)),
    ), found.problems.map((text) => h("p", { class: "bad" }, text)));
  }

  async preview(place, row, fresh) {
    if (row.kind !== "file") { fill(this.sheet, h("p", { class: "sub" }, "Only files have content.")); return; }
    const found = await get("/api/preview", place);
    if (!fresh()) return;
    if (found.kind === "empty") fill(this.sheet, h("p", { class: "sub" }, "The file is empty."));
    else if (found.kind === "image") {
      const data = await blob("/api/image", place);
      if (!fresh()) return;
      this.picture = URL.createObjectURL(data);
      fill(this.sheet, h("img", { src: this.picture, alt: `The picture ${row.name}` }));
    } else this.content(place, found, fresh);
  }

  content(place, found, fresh) {
    const text = found.kind === "text";
    const area = h("pre", { class: text ? "text-view" : "hex-view", tabindex: "0", "aria-label": text ? "Beginning of the file" : "Bytes of the file" });
    let offset = 0;
    const add = (part) => { area.append(text ? part.text ?? latin(part.base64) : hex(part.base64 ?? btoa(part.text), offset)); offset = part.offset + part.length; };
    add(found);
    const more = h("button", { type: "button", onclick: async () => { const part = await get("/api/preview", { ...place, offset }); if (fresh()) { add(part); more.hidden = offset >= part.size; } } }, "Show more");
    more.hidden = offset >= found.size;
    fill(this.sheet, h("p", { class: "sub" }, text ? `Text, ${found.encoding}` : "No text: its bytes"), area, more);
  }

  async versions(place, row, fresh) {
    const points = this.options.points();
    const list = h("ol", { class: "versions" });
    fill(this.sheet, h("p", { class: "sub" }, `The same path at ${points.length === 1 ? "the only restore point" : `${points.length} restore points`}, the nearest first.`), list);
    const here = points.findIndex((point) => point.id === place.point);
    const order = points.map((point, k) => [Math.abs(k - here), k]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, k]) => k);
    const lines = new Map(order.map((k) => [k, h("li", {}, h("span", { class: "when" }, name(points[k])), h("span", { class: "sub" }, "…"))]));
    put(list, points, lines);
    let first = null;
    for (const k of order) {
      const point = points[k];
      const line = lines.get(k);
      try {
        const found = await get("/api/versions", { ...place, point: point.id }, { background: true });
        if (!fresh() || this.tab !== 2) return;
        first ??= found;
        const same = found.there && found.size === first.size && found.modified === first.modified && found.mode === first.mode && found.owner === first.owner;
        const what = !found.there ? "not there" : [found.kind === "file" && format.size(found.size), format.moment(found.modified)].filter(Boolean).join(" · ");
        const mark = k === here ? "shown now" : !found.there ? "" : same ? "the same" : [found.size !== first.size && "size", found.modified !== first.modified && "time", found.mode !== first.mode && "mode", found.owner !== first.owner && "owner"].filter(Boolean).join(", ") + " differ";
        fill(line, h("span", { class: "when" }, name(point)), h("span", { class: "sub" }, what), mark && h("span", { class: `flag${mark.endsWith("differ") ? " warn" : ""}` }, mark),
          found.there && k !== here && h("button", { type: "button", onclick: () => this.options.open({ ...place, point: point.id }) }, "Go there"));
      } catch (error) { fill(line, h("span", { class: "when" }, name(point)), h("span", { class: "sub bad" }, error.what ?? String(error))); }
    }
  }
}

const put = (list, points, lines) => points.forEach((point, k) => list.append(lines.get(k)));
const name = (point) => (point.made === null ? "As it is on the disks" : `${format.moment(point.made)} · ${format.age(point.made)}`);
const latin = (base64) => atob(base64);

function hex(base64, start) {
  const bytes = atob(base64);
  let made = "";
  for (let at = 0; at < bytes.length; at += 16) {
    const part = [...bytes.slice(at, at + 16)].map((c) => c.charCodeAt(0));
    made += `${(start + at).toString(16).padStart(8, "0")}  ${part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47)}  ${part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("")}\n`;
  }
  return made;
}

export { name as pointName };
