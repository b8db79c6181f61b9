// SPDX-License-Identifier: Apache-2.0
// Who did what in this session.

import { get } from "./api.js";
import { button, fill, h, icon } from "./dom.js";
import * as format from "./format.js";

const CHOICES = [
  ["", "everything"],
  ["download", "downloads"],
  ["restore", "restores"],
  ["search", "searches"],
  ["sign", "sign-ins"],
  ["!ok", "what did not work"],
];

export class Log {
  /** @param {{volume: (id: string) => string, failed: (error: Error) => void}} options */
  constructor(options) {
    this.options = options;
    this.rows = [];
    this.choice = h(
      "select",
      { "aria-label": "Which", onchange: () => this.paint() },
      CHOICES.map(([value, text]) => h("option", { value }, text)),
    );
    this.text = h("input", {
      type: "search",
      placeholder: "Filter",
      "aria-label": "Filter the log",
      oninput: () => this.paint(),
    });
    this.state = h("p", { class: "state", role: "status" });
    this.table = h("tbody", {});
    const heads = ["Time", "What", "Result", "Path", "Size", "From"].map((name) => h("th", { scope: "col" }, name));
    this.element = h(
      "section",
      { class: "log", "aria-label": "Session log" },
      h(
        "header",
        {},
        h("h2", {}, "Session log"),
        this.choice,
        this.text,
        this.state,
        h("span", { class: "gap" }),
        button("Refresh", { name: "refresh", onclick: () => this.refresh().catch(options.failed) }),
        h("a", { class: "button", href: "/api/log?download", download: "" }, icon("download"), "Download"),
      ),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Entries of the log" },
        h("table", {}, h("thead", {}, h("tr", {}, heads)), this.table),
      ),
    );
  }

  async refresh() {
    const { records, count } = await get("/api/log", {}, { background: true });
    this.rows = records.reverse();
    this.count = count;
    this.paint();
  }

  paint() {
    const wanted = this.choice.value;
    const text = this.text.value.toLowerCase();
    const kinds = (row) => !wanted || (wanted === "!ok" ? (row.result ?? "ok") !== "ok" : row.what.startsWith(wanted));
    const words = (row) =>
      [row.what, row.result ?? "ok", row.path ?? "", row.text ?? "", row.sha256 ?? "", row.address ?? ""]
        .join("\n")
        .toLowerCase();
    const rows = this.rows.filter((row) => kinds(row) && words(row).includes(text));
    this.state.textContent =
      rows.length === this.rows.length
        ? format.entries(rows.length)
        : `${format.count(rows.length)} of ${format.entries(this.rows.length)}`;
    if (this.count > this.rows.length) this.state.textContent += `, the newest of ${format.count(this.count)}`;
    fill(
      this.table,
      rows.map((row) =>
        h(
          "tr",
          {},
          h("td", {}, format.moment(Date.parse(row.time) / 1000, true)),
          h("td", {}, row.what),
          h("td", { class: (row.result ?? "ok") === "ok" ? "" : "bad" }, row.result ?? "ok"),
          h(
            "td",
            { class: "path" },
            row.volume && h("span", { class: "sub" }, `${this.options.volume(row.volume)} `),
            h("bdi", {}, row.path ?? ""),
            row.text && h("span", { class: "sub" }, ` ${row.text}`),
            row.sha256 && h("span", { class: "sub block" }, `SHA-256 ${row.sha256}`),
          ),
          h("td", { class: "figure" }, format.size(row.size)),
          h("td", {}, row.address ?? ""),
        ),
      ),
    );
  }
}
