// SPDX-License-Identifier: Apache-2.0
// Volumes and their folders, opened as somebody goes down. The ARIA tree pattern with a roving tabindex.

import { get } from "./api.js";
import { fill, h, icon } from "./dom.js";
import * as format from "./format.js";
import { join } from "./route.js";

const MOST = 500;

export class Tree {
  /** @param {{open: (volume: string, path: string) => void}} options */
  constructor(options) {
    this.options = options;
    this.element = h("ul", { class: "tree", role: "tree", "aria-label": "Volumes and folders" });
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  show(point, volumes) {
    this.point = point;
    fill(this.element, volumes.filter((volume) => volume.opens).map((volume) => this.volume(volume)));
    this.element.querySelector("[role=treeitem]")?.setAttribute("tabindex", "0");
  }

  volume(volume) {
    const used = volume.used === null ? format.size(volume.size) : `${format.size(volume.used)} of ${format.size(volume.size)}`;
    const where = [volume.mounted, volume.holds.replace(/ file system$/, ""), used].filter(Boolean).join(" · ");
    return this.item({ volume: volume.id, path: "/", level: 1, label: [icon("disk"), h("span", { class: "what" }, h("bdi", { class: "text" }, volume.label || volume.id), h("span", { class: "sub" }, where))] });
  }

  item({ volume, path, level, label }) {
    const group = h("ul", { role: "group", hidden: true });
    const twist = h("span", { class: "twist", onclick: (event) => { event.stopPropagation(); this.toggle(item); } }, icon("chevron"));
    const line = h("div", { class: "line", style: { "--level": level - 1 } }, twist, label);
    const item = h("li", { role: "treeitem", tabindex: "-1", "aria-expanded": "false", "aria-level": String(level), "aria-selected": "false" }, line, group);
    line.addEventListener("click", () => { this.focus(item); this.options.open(volume, path); });
    Object.assign(item, { volume, path, level, group });
    return item;
  }

  async toggle(item, on = item.getAttribute("aria-expanded") !== "true") {
    item.setAttribute("aria-expanded", String(on));
    item.group.hidden = !on;
    if (!on || item.loaded) return;
    item.loaded = true;
    try {
      const page = await get("/api/list", { point: this.point, volume: item.volume, path: item.path, count: MOST }, { background: true });
      const folders = page.rows.filter((row) => row.kind === "folder");
      fill(item.group, folders.map((row) => this.item({ volume: item.volume, path: join(item.path, row.key), level: item.level + 1, label: [icon("folder"), h("bdi", { class: "text" }, row.name)] })));
      if (folders.length === MOST) item.group.append(h("li", { class: "sub more", role: "none" }, "more in the list"));
      if (!folders.length) item.removeAttribute("aria-expanded");
    } catch (error) {
      item.loaded = false;
      fill(item.group, h("li", { class: "sub more", role: "none" }, error.what ?? "it cannot be read"));
    }
  }

  /** Marks where somebody is, and opens the way there as far as it is known. */
  async at(volume, path) {
    this.element.querySelectorAll("[aria-selected=true]").forEach((item) => item.setAttribute("aria-selected", "false"));
    let item = [...this.element.children].find((one) => one.volume === volume);
    const parts = path === "/" ? [] : path.slice(1).split("/");
    for (const part of parts) {
      if (!item) break;
      if (!item.loaded) await this.toggle(item, true);
      else if (item.hasAttribute("aria-expanded")) this.toggle(item, true);
      const next = [...item.group.children].find((one) => one.path === join(item.path, part));
      if (!next) break;
      item = next;
    }
    if (!item) return;
    item.setAttribute("aria-selected", "true");
    item.scrollIntoView({ block: "nearest" });
    this.roving(item);
  }

  roving(item) {
    this.element.querySelectorAll("[tabindex='0']").forEach((one) => one.setAttribute("tabindex", "-1"));
    item.setAttribute("tabindex", "0");
  }

  focus(item) { this.roving(item); item.focus({ preventScroll: true }); }

  key(event) {
    const item = event.target.closest("[role=treeitem]");
    if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
    const seen = [...this.element.querySelectorAll("[role=treeitem]")].filter((one) => !one.parentElement.closest("[hidden]"));
    const at = seen.indexOf(item);
    const open = item.getAttribute("aria-expanded") === "true";
    let next;
    if (event.key === "ArrowDown") next = seen[at + 1];
    else if (event.key === "ArrowUp") next = seen[at - 1];
    else if (event.key === "Home") next = seen[0];
    else if (event.key === "End") next = seen.at(-1);
    else if (event.key === "ArrowRight") { if (!open && item.hasAttribute("aria-expanded")) this.toggle(item, true); else next = item.group.querySelector("[role=treeitem]"); }
    else if (event.key === "ArrowLeft") { if (open) this.toggle(item, false); else next = item.parentElement.closest("[role=treeitem]"); }
    else if (event.key === "Enter" || event.key === " ") this.options.open(item.volume, item.path);
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (next) { this.focus(next); next.scrollIntoView({ block: "nearest" }); }
  }
}
