// SPDX-License-Identifier: Apache-2.0
// The cells that every list of entries has.

import { h, icon } from "./dom.js";
import * as format from "./format.js";

export const cells = {
  name: (row, after) =>
    h("span", { class: "title" }, icon(row.kind), h("bdi", { class: "text", title: row.name }, row.name), after),
  size: (row) => format.size(row.size),
  modified: (row) => format.moment(row.modified),
  owner: (row) => row.owner ?? "",
  mode: (row) => format.mode(row.mode),
  flags: (row) => [
    row.problem && h("span", { class: "flag bad", title: row.problem }, "unreadable"),
    (row.flags ?? []).map((flag) => h("span", { class: "flag" }, flag)),
  ],
};
