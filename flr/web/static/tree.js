// SPDX-License-Identifier: Apache-2.0
// Volumes and their folders, opened as somebody goes down. The ARIA tree pattern with a roving tabindex.

import { get } from "./api.js";
import { fill, h, icon } from "./dom.js";
import * as format from "./format.js";
import { join, shown } from "./route.js";

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
    fill(
      this.element,
      volumes.filter((volume) => volume.opens).map((volume) => this.volume(volume)),
    );
    this.element.querySelector("[role=treeitem]")?.setAttribute("tabindex", "0");
  }

  volume(volume) {
    const used =
      volume.used === null ? format.size(volume.size) : `${format.size(volume.used)} of ${format.size(volume.size)}`;
    const journal =
      volume.journal && volume.journal !== "clean" && !volume.warnings.some((text) => text.includes(volume.journal))
        ? `journal ${volume.journal}`
        : "";
    const where = [volume.mounted, volume.holds.replace(/ file system$/, ""), used].filter(Boolean).join(" · ");
    return this.item({
      volume: volume.id,
      path: "/",
      level: 1,
      label: [
        icon("disk"),
        h(
          "span",
          { class: "what" },
          h("bdi", { class: "text" }, volume.label || volume.id),
          h("span", { class: "sub", title: where }, where),
          journal && h("span", { class: "sub" }, journal),
        ),
      ],
    });
  }

  item({ volume, path, level, label }) {
    const group = h("ul", { role: "group", hidden: true });
    const twist = h(
      "span",
      {
        class: "twist",
        onclick: (event) => {
          event.stopPropagation();
          this.toggle(item);
        },
      },
      icon("chevron"),
    );
    const line = h("div", { class: "line", style: { "--level": level - 1 } }, twist, label);
    const item = h(
      "li",
      {
        role: "treeitem",
        tabindex: "-1",
        "aria-expanded": "false",
        "aria-level": String(level),
        "aria-selected": "false",
      },
      line,
      group,
    );
    line.addEventListener("click", () => {
      this.focus(item);
      this.options.open(volume, path);
    });
    Object.assign(item, { volume, path, level, group });
    return item;
  }

  toggle(item, on = item.getAttribute("aria-expanded") !== "true") {
    if (!item.hasAttribute("aria-expanded")) return Promise.resolve();
    item.setAttribute("aria-expanded", String(on));
    item.group.hidden = !on;
    if (on) item.loading ??= this.load(item);
    return item.loading ?? Promise.resolve();
  }

  async load(item) {
    try {
      const asked = { point: this.point, volume: item.volume, path: item.path, count: MOST };
      const page = await get("/api/list", asked, { background: true });
      const folders = page.rows.filter((row) => row.kind === "folder");
      fill(
        item.group,
        folders.map((row) => this.child(item, row.key, row.name)),
      );
      if (folders.length === MOST) item.group.append(h("li", { class: "sub more", role: "none" }, "more in the list"));
      if (!page.complete)
        item.loading = null; // one that is being read still is asked for again when it is opened again
      else if (!folders.length) item.removeAttribute("aria-expanded");
    } catch (error) {
      item.loading = null;
      fill(item.group, h("li", { class: "sub more", role: "none" }, error.what ?? "it cannot be read"));
    }
  }

  child(item, key, name) {
    return this.item({
      volume: item.volume,
      path: join(item.path, key),
      level: item.level + 1,
      label: [icon("folder"), h("bdi", { class: "text", title: name }, name)],
    });
  }

  /** Marks where somebody is, and opens the way there; a folder of so many that it is not among those shown is added. */
  async at(volume, path) {
    const wanted = (this.wanted = {});
    let item = [...this.element.children].find((one) => one.volume === volume);
    if (!item) return;
    for (const part of path === "/" ? [] : path.slice(1).split("/")) {
      item.setAttribute("aria-expanded", item.getAttribute("aria-expanded") ?? "true");
      await this.toggle(item, true);
      if (wanted !== this.wanted) return;
      const next = [...item.group.children].find((one) => one.path === join(item.path, part));
      item =
        next ??
        item.group.insertBefore(this.child(item, part, shown(part)), item.group.querySelector(":scope > .more"));
    }
    this.element.querySelectorAll("[aria-selected=true]").forEach((one) => one.setAttribute("aria-selected", "false"));
    item.setAttribute("aria-selected", "true");
    item.querySelector(".line").scrollIntoView({ block: "nearest" });
    this.roving(item);
  }

  roving(item) {
    this.element.querySelectorAll("[tabindex='0']").forEach((one) => one.setAttribute("tabindex", "-1"));
    item.setAttribute("tabindex", "0");
  }

  focus(item) {
    this.roving(item);
    item.focus({ preventScroll: true });
  }

  key(event) {
    const item = event.target.closest("[role=treeitem]");
    if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
    const seen = [...this.element.querySelectorAll("[role=treeitem]")].filter(
      (one) => !one.parentElement.closest("[hidden]"),
    );
    const at = seen.indexOf(item);
    const open = item.getAttribute("aria-expanded") === "true";
    let next;
    if (event.key === "ArrowDown") next = seen[at + 1];
    else if (event.key === "ArrowUp") next = seen[at - 1];
    else if (event.key === "Home") next = seen[0];
    else if (event.key === "End") next = seen.at(-1);
    else if (event.key === "ArrowRight") {
      if (!open && item.hasAttribute("aria-expanded")) this.toggle(item, true);
      else next = item.group.querySelector("[role=treeitem]");
    } else if (event.key === "ArrowLeft") {
      if (open) this.toggle(item, false);
      else next = item.parentElement.closest("[role=treeitem]");
    } else if (event.key === "Enter" || event.key === " ") this.options.open(item.volume, item.path);
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (next) {
      this.focus(next);
      next.scrollIntoView({ block: "nearest" });
    }
  }
}
