// SPDX-License-Identifier: Apache-2.0
// Back to the machine: what a restore would meet, the choice of a rule, and how far restores are.

import { get, post } from "./api.js";
import { fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";
import { dialog } from "./session.js";

const WAIT = 1000; // ms between two looks at a restore that runs, or at a machine that is waited for
const SOON = 400; // ms between two looks at a preview
const SHOWN = 100; // conflicts in the dialog's table
const RULES = [
  [
    "keep",
    "Keep both",
    "What is restored gets _RESTORED_ with date and time behind its name, where the name is taken.",
  ],
  ["overwrite", "Overwrite", "What stands there is replaced."],
  ["skip", "Skip", "What stands there stays; only what is missing is restored."],
  ["newer", "Overwrite older", "What stands there is replaced only if it is older than what is restored."],
];
const STATES = {
  waiting: "waiting",
  counting: "its files are counted",
  running: "running",
  done: "restored",
  warning: "with remarks",
  skipped: "skipped",
  failed: "failed",
  stopped: "stopped",
};
const KINDS = { file: "a file", folder: "a folder", link: "a link", other: "a device, pipe or socket" };

/** What becomes of one conflict by a rule; as the machine decides it, which looks again. */
function becomes(rule, one) {
  if (rule === "keep") return "kept beside it";
  if (rule === "skip") return "skipped";
  if (one.kind === "folder" || !["file", "link"].includes(one.there)) return "fails: it is not replaced";
  if (rule === "newer" && (one.modified ?? 0) <= one.there_modified) return "skipped: it is not older";
  return "replaced";
}

export class Restores {
  /**
   * @param {{failed: (error: Error) => void, changed: () => void, listed: () => boolean,
   *   states: (states: Map<number, string>) => void}} options
   */
  constructor(options) {
    this.options = options;
    this.target = { offered: false, why: "" };
    this.list = h("ul", { class: "downloads", "aria-label": "Restores" });
    this.way = h("p", { class: "sub", role: "status" });
    this.element = h("section", { hidden: true }, h("h3", {}, "Restores to the machine"), this.list);
  }

  /** Whether a restore can be asked for, and how those are that were. */
  async refresh() {
    clearTimeout(this.later);
    const before = JSON.stringify(this.target);
    try {
      this.target = await get("/api/restore", {}, { background: true });
      if (before !== JSON.stringify(this.target)) {
        this.way.textContent = this.words();
        this.options.changed();
      }
      if (this.target.offered) await this.look();
    } finally {
      // the machine may come, and go
      if (this.target.offered && this.options.listed())
        this.later = setTimeout(() => this.refresh().catch(() => {}), (this.target.state.ready ? 10 : 2) * WAIT);
    }
  }

  words() {
    if (!this.target.offered) return format.sentence({ what: this.target.why });
    const { text, host, lacks } = this.target.state;
    return [
      format.sentence({ what: host && !text.includes(host) ? `${text}, on ${host}` : text }),
      ...lacks.map((what) => format.sentence({ what })),
    ].join(" ");
  }

  /** The button for what is chosen, or all; null where files are only handed out. */
  offer(what, ids) {
    if (!this.target.offered) return null;
    return h(
      "button",
      {
        type: "button",
        class: "main",
        disabled: !this.target.state.ready,
        onclick: () => this.ask(ids, what),
      },
      icon("disk"),
      `Restore ${what} to the machine…`,
    );
  }

  // -- before

  ask(ids, what) {
    const host = this.target.state.host;
    const folder = h("input", {
      type: "text",
      id: "restore-folder",
      placeholder: "/srv/recovered",
      "aria-label": "Folder of the machine",
      autocomplete: "off",
      spellcheck: "false",
      disabled: true,
    });
    const began = { number: 0, place: null };
    let seen = null;
    let asked = null;
    const rule = () => box.querySelector("input[name=rule]:checked").value;
    const elsewhere = () => box.querySelector("input[name=place]:checked").value === "other";
    const place = () => (elsewhere() ? `in ${folder.value.trim()}` : "where it was");
    const summary = h("div", { class: "preview", role: "status" });
    const conflicts = h("div", {});
    const counts = new Map(RULES.map(([id]) => [id, h("span", { class: "sub" })]));
    const privileges = h("input", { type: "checkbox" });
    const radio = (name, value, checked, label, ...more) =>
      h(
        "label",
        { class: "choice" },
        h("input", { type: "radio", name, value, checked, onchange: changed }),
        h("span", {}, h("span", {}, label), ...more),
      );
    const content = h(
      "div",
      { class: "restore-form" },
      h(
        "fieldset",
        {},
        h("legend", {}, "Where to"),
        radio("place", "same", true, "Where it was"),
        radio("place", "other", false, "Another folder of the machine"),
        folder,
      ),
      h(
        "fieldset",
        {},
        h("legend", {}, "Where something stands already"),
        RULES.map(([id, label, text], k) =>
          radio("rule", id, k === 0, label, " ", counts.get(id), h("span", { class: "sub block" }, text)),
        ),
      ),
      h(
        "label",
        { class: "choice" },
        privileges,
        h(
          "span",
          {},
          "Programs get their special rights back",
          h("span", { class: "sub block" }, "Set-user-id bits and file capabilities; left out otherwise."),
        ),
      ),
      summary,
      conflicts,
    );
    const box = dialog(`Restore ${what}${host ? ` to ${host}` : ""}`, content, [["Cancel", null]]);
    box.classList.add("wide");
    const go = h("button", { type: "button", class: "main", disabled: true, onclick: () => start() }, "Restore");
    box.querySelector(":scope > .actions").append(go);
    const closed = () => !box.isConnected;
    folder.addEventListener("input", () => {
      go.disabled = true; // what is shown is of another folder
      began.failed = true;
      seen = null;
      clearTimeout(this.typed);
      this.typed = setTimeout(changed, 2 * SOON);
    });
    const problem = (error) => {
      seen = null;
      began.failed = true;
      fill(
        summary,
        h(
          "p",
          { class: "bad" },
          `${format.sentence(error)} ${error.hint ? format.sentence({ what: error.hint }) : ""}`,
        ),
      );
      fill(conflicts);
      go.disabled = true;
    };
    const look = async () => {
      const mine = ++began.number;
      const where = elsewhere() ? folder.value.trim() : "";
      began.place = place();
      began.failed = false;
      seen = null;
      go.disabled = true;
      for (const place of counts.values()) place.textContent = "";
      fill(conflicts);
      if (elsewhere() && !where) {
        fill(summary, h("p", { class: "sub" }, "Name the folder, from / on; it is made if it is not there."));
        return;
      }
      fill(summary, h("p", { class: "sub" }, "Looking what stands there…"));
      try {
        asked = await post("/api/restore/preview", { ids, folder: where });
        while (asked.state === "running" && mine === began.number && !closed()) {
          paint(asked, false);
          await new Promise((done) => {
            setTimeout(done, SOON);
          });
          if (mine === began.number && !closed())
            asked = await get("/api/restore/looked", { id: asked.id }, { background: true });
        }
        if (mine !== began.number || closed()) return;
        if (asked.error) problem(asked.error);
        else {
          seen = asked;
          paint(seen, true);
        }
      } catch (error) {
        if (mine === began.number && !closed()) problem(error);
      }
    };
    function changed() {
      folder.disabled = !elsewhere();
      if (place() !== began.place || began.failed) look();
      else if (seen) paint(seen, true);
    }
    function paint(found, whole) {
      const { files, bytes, free, conflict_count: many } = found;
      const words = [
        `${format.count(files)} ${files === 1 ? "file" : "files"}, ${format.size(bytes)}`,
        free !== null && `${format.size(free)} free there`,
        whole ? (many ? `${format.count(many)} in the way` : "nothing in the way") : "still looking…",
      ];
      const notes = [
        free !== null && bytes > free && "There is not room enough for all of it.",
        found.left_out === 1 && "1 device, pipe or socket is left out.",
        found.left_out > 1 && `${format.count(found.left_out)} devices, pipes and sockets are left out.`,
        found.unreadable && `${format.count(found.unreadable)} could not be read from the restore point.`,
        ...found.blocked.map(
          ({ why, count }) => `${format.count(count)} cannot be restored there: ${format.sentence({ what: why })}`,
        ),
      ];
      fill(
        summary,
        h("p", {}, h("strong", {}, words.filter(Boolean).join(" · "))),
        notes.filter(Boolean).map((text) => h("p", { class: "warn" }, icon("warning"), h("bdi", {}, text))),
      );
      for (const [id, place] of counts) {
        const one = found.rules[id];
        const parts = [
          one.beside && `${format.count(one.beside)} kept beside`,
          one.replace && `${format.count(one.replace)} replaced`,
          one.skip && `${format.count(one.skip)} skipped`,
          one.refuse && `${format.count(one.refuse)} fail`,
        ];
        place.textContent = many ? parts.filter(Boolean).join(", ") : "";
      }
      fill(conflicts, many > 0 && whole && table(found));
      go.disabled = !whole;
    }
    function table(found) {
      const now = rule();
      const some = found.conflicts.toSorted((one, other) => Number(one.same) - Number(other.same)).slice(0, SHOWN);
      const figure = (size, modified, kind) =>
        h(
          "td",
          {},
          kind === "file" ? format.size(size) : KINDS[kind],
          h("span", { class: "sub block" }, format.moment(modified)),
        );
      return h(
        "details",
        { open: content.querySelector(".conflicts")?.open ?? false, class: "conflicts" },
        h(
          "summary",
          {},
          found.conflict_count === 1
            ? "What is in the way"
            : `What is in the way (${format.count(found.conflict_count)})`,
        ),
        h(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": "What is in the way" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["Path", "There now", "Restored", "Then"].map((text) => h("th", { scope: "col" }, text)),
              ),
            ),
            h(
              "tbody",
              {},
              some.map((one) =>
                h(
                  "tr",
                  {},
                  h("td", { class: "path" }, h("bdi", {}, one.path)),
                  figure(one.there_size, one.there_modified, one.there),
                  figure(one.size, one.modified, one.kind),
                  h("td", {}, one.same ? "same size and time: " : "", becomes(now, one)),
                ),
              ),
            ),
          ),
        ),
        found.conflict_count > some.length &&
          h("p", { class: "sub" }, `and ${format.count(found.conflict_count - some.length)} more`),
      );
    }
    const start = async () => {
      go.disabled = true;
      try {
        if (place() !== began.place) return; // what was looked at is another place
        const folderNow = elsewhere() ? folder.value.trim() : "";
        await post("/api/restore/begin", { ids, folder: folderNow, rule: rule(), privileges: privileges.checked });
        box.close();
        toast("The restore has begun. The restore list shows how far it is; this page may be closed meanwhile.");
        await this.look();
      } catch (error) {
        problem(error);
      }
    };
    look();
  }

  // -- while and after

  async look() {
    clearTimeout(this.soon);
    try {
      await this.paint();
    } finally {
      // also after an answer that did not come: what runs is looked at until it is over
      if (this.running)
        this.soon = setTimeout(() => this.look().catch(() => {}), this.options.listed() ? WAIT : 5 * WAIT);
    }
  }

  async paint() {
    const { restores } = await get("/api/restores", {}, { background: true });
    this.element.hidden = !restores.length;
    const text = JSON.stringify(restores);
    if (text !== this.seen) {
      this.seen = text;
      const open = new Set([...this.list.querySelectorAll("details[open]")].map((one) => one.dataset.id));
      const focused = this.list.contains(document.activeElement) && document.activeElement.dataset.does;
      fill(
        this.list,
        restores.map((one) => this.line(one, open)),
      );
      if (focused)
        (this.list.querySelector(`[data-does="${focused}"]`) ?? this.list.querySelector("button, summary"))?.focus();
      const states = new Map();
      for (const one of restores.toReversed()) for (const item of one.items) states.set(item.id, this.state(item));
      this.options.states(states);
    }
    const running = restores.find((one) => one.ended === null);
    if (this.running && !running) this.ended(restores[0]);
    this.running = running?.id;
  }

  ended(one) {
    say(`The restore has ended: ${this.counts(one)}`);
    if (one.error) toast(format.sentence(one.error), { bad: true });
    else if (one.counts.failed)
      toast(`${format.count(one.counts.failed)} could not be restored. The restore list says why.`, { bad: true });
    else toast("The restore has ended.");
  }

  state(item) {
    if (item.state === "running" && item.bytes) return `${Math.floor((100 * item.sent) / item.bytes)} %`;
    return STATES[item.state];
  }

  counts({ counts }) {
    const parts = [
      [counts.done, "restored"],
      [counts.warning, "restored with warnings"],
      [counts.skipped, "skipped"],
      [counts.failed, "failed"],
    ];
    return parts
      .filter(([count]) => count)
      .map(([count, word]) => `${format.count(count)} ${word}`)
      .join(", ");
  }

  line(one, open) {
    const rule = RULES.find(([id]) => id === one.rule)[1].toLowerCase();
    const running = one.ended === null;
    const acts = (path) => async () => {
      try {
        await post(path, { id: one.id });
        await this.look();
      } catch (error) {
        this.options.failed(error);
      }
    };
    const several = one.items.length > 1;
    return h(
      "li",
      {},
      icon("disk"),
      h(
        "span",
        { class: "what" },
        h(
          "span",
          { class: "text" },
          `${format.moment(one.began, true)} · ${several ? `${format.count(one.items.length)} items` : ""}`,
          !several && h("bdi", {}, one.items[0]?.name ?? ""),
          one.folder ? " to " : " to where it was",
          one.folder && h("bdi", {}, one.folder),
          ` · ${rule}`,
        ),
        running &&
          h("progress", { max: Math.max(1, one.total), value: one.done, "aria-label": "How far the restore is" }),
        h("span", { class: "sub" }, this.far(one)),
        one.error &&
          h(
            "span",
            { class: "bad" },
            format.sentence(one.error),
            " ",
            one.error.hint ? format.sentence({ what: one.error.hint }) : "",
          ),
        one.problem_count > 0 &&
          h(
            "details",
            { open: open.has(one.id), "data-id": one.id },
            h(
              "summary",
              { class: one.counts.failed ? "bad" : "" },
              one.problem_count === 1 ? "1 remark" : `${format.count(one.problem_count)} remarks`,
            ),
            h(
              "ul",
              {},
              one.problems.map((text) => h("li", {}, h("bdi", {}, text))),
              one.problem_count > one.problems.length &&
                h("li", {}, `and ${format.count(one.problem_count - one.problems.length)} more`),
            ),
            h("a", { href: `/api/restore/problems?id=${one.id}`, download: "" }, "Download the remarks"),
          ),
      ),
      running &&
        h(
          "button",
          { type: "button", "data-does": `stop-${one.id}`, onclick: acts("/api/restore/stop"), disabled: one.stopping },
          "Stop",
        ),
      one.retry &&
        h(
          "button",
          { type: "button", "data-does": `retry-${one.id}`, onclick: acts("/api/restore/retry") },
          icon("refresh"),
          "Retry what failed",
        ),
    );
  }

  far(one) {
    if (one.state === "counting" || one.state === "waiting")
      return `Its files are counted: ${format.count(one.entries)} so far`;
    const counts = this.counts(one);
    if (one.ended === null) {
      const parts = [
        `${format.size(one.done)} of ${format.size(one.total)}`,
        one.rate > 0 && `${format.size(Math.round(one.rate))}/s`,
        one.eta !== null && one.eta > 0 && `${format.duration(one.eta)} left`,
        counts,
      ];
      return parts.filter(Boolean).join(" · ");
    }
    const took = `in ${format.duration(one.ended - one.began)}`;
    return [
      one.state === "stopped" ? "Stopped" : one.state === "failed" ? "Failed" : "Ended",
      took,
      counts && `· ${counts}`,
    ]
      .filter(Boolean)
      .join(" ");
  }
}
