// SPDX-License-Identifier: Apache-2.0
// The session around the files: the time that is left, its end, its certificate; help. Not here: who is not in it (`gate.js`).

import { events, get, post } from "./api.js";
import { copies, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";

const EVERY = 15_000; // ms between two looks at the time that is left
const PATIENCE = 20_000; // ms for an answer about it
const LOST = 3000; // ms between two looks while nobody answers

let dialogs = 0;

export function dialog(title, content, actions) {
  const id = `dialog${++dialogs}`;
  const box = h(
    "dialog",
    { "aria-labelledby": id },
    h("h2", { id }, title),
    content,
    h(
      "div",
      { class: "actions" },
      actions.map(([label, run, main]) =>
        h(
          "button",
          {
            type: "button",
            class: main ? "main" : "",
            onclick: () => {
              box.close();
              run?.();
            },
          },
          label,
        ),
      ),
    ),
  );
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

export class Clock {
  /** @param {{stopped: () => void, ended: () => void, counted: (count: number) => void}} options */
  constructor(options) {
    this.options = options;
    this.text = h("span", {});
    this.element = h(
      "button",
      { type: "button", class: "clock", onclick: () => this.explain() },
      icon("clock"),
      this.text,
    );
    this.lost = h(
      "div",
      { class: "lost", role: "alert", hidden: true },
      icon("warning"),
      h(
        "span",
        {},
        "The worker does not answer. This page tries again by itself; what was chosen is kept there. " +
          "If the session was stopped, a new link is needed.",
      ),
    );
    document.body.append(this.lost);
    events.addEventListener("lost", () => {
      this.lost.hidden = false;
    });
    events.addEventListener("found", () => {
      this.lost.hidden = true;
      say("The worker answers again");
    });
  }

  start(left, certificate) {
    this.certificate = certificate;
    this.take(left);
    setInterval(() => this.tick(), 1000);
    setInterval(() => this.look(), EVERY);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.look();
    });
  }

  async look() {
    if (!this.element.isConnected) return;
    clearTimeout(this.soon);
    try {
      const { left, basket } = await get(
        "/api/status",
        {},
        { background: true, signal: AbortSignal.timeout(PATIENCE) },
      );
      this.take(left);
      this.options.counted(basket);
    } catch (error) {
      // the page says by itself that nobody answers, or that nobody is signed in
      if (error.type !== "Unreachable") return;
      if (this.seconds() <= 0) this.options.ended();
      else this.soon = setTimeout(() => this.look(), LOST);
    }
  }

  take(left) {
    this.left = left;
    this.taken = performance.now();
    this.tick();
  }

  /** Until it ends when nobody does anything. */
  seconds() {
    const passed = (performance.now() - this.taken) / 1000;
    return Math.max(
      0,
      Math.min(this.left.transfers ? this.left.idle : this.left.idle - passed, this.left.limit - passed),
    );
  }

  tick() {
    if (!this.element.isConnected) return;
    const seconds = this.seconds();
    this.text.textContent = this.left.transfers
      ? "transfer under way"
      : format.duration(seconds > 120 ? Math.ceil(seconds / 60) * 60 : seconds).replace(":00 min", " min");
    this.element.setAttribute("aria-label", `Time left: ${this.text.textContent}`);
    const idles = this.left.idle <= this.left.limit;
    if (!this.left.warn) {
      this.asked?.close();
      this.asked = null;
      this.told = false;
    } else if (!this.asked?.open && !this.staying && (idles || !this.told)) this.warn(idles);
    if (this.asked?.open) this.asked.querySelector(".left").textContent = format.duration(seconds);
    if (seconds <= 0 && !this.looking) {
      this.looking = true;
      this.look().finally(() => {
        this.looking = false;
      });
    }
  }

  warn(idle) {
    const left = h("strong", { class: "left" });
    if (idle) {
      const text = h("p", {}, "Nobody has done anything for a while. The session ends in ", left, ".");
      this.asked = dialog("Are you still there?", text, [
        ["Stop now", () => this.stop()],
        ["Stay", () => this.stay(), true],
      ]);
      this.asked.addEventListener("cancel", () => this.stay());
      return;
    }
    this.told = true; // once is enough: there is nothing that a person could do about it
    const text = h(
      "p",
      {},
      "The session may not last any longer. It ends in ",
      left,
      ", transfers included. Ask for a new link to go on; a download of the same files goes on where it was cut.",
    );
    this.asked = dialog("The time is nearly over", text, [
      ["Stop now", () => this.stop()],
      ["Go on", null, true],
    ]);
  }

  async stay() {
    this.staying = true;
    try {
      this.take((await post("/api/stay")).left);
    } catch {
      /* the page says by itself that nobody answers; the question comes again */
    } finally {
      this.staying = false;
    }
  }

  async stop() {
    try {
      await post("/api/stop");
    } catch (error) {
      if (error.status === 401) return; // it was over already, and the page says so
      toast(`It could not be stopped. ${format.sentence(error)} It ends by itself when nobody uses it.`, { bad: true });
      return;
    }
    this.options.stopped();
  }

  confirm() {
    dialog(
      "Stop the session?",
      h(
        "p",
        {},
        "It ends for everybody who uses it, downloads that are under way included. The restore point stays as it is.",
      ),
      [
        ["Stop the session", () => this.stop()],
        ["Go on", null, true],
      ],
    );
  }

  explain() {
    const { sha256, sha1 } = this.certificate;
    dialog(
      "This session",
      h(
        "div",
        {},
        h(
          "p",
          {},
          `It ends when nobody has used it for a while (${this.text.textContent} from now), ` +
            `and in ${format.duration(this.left.limit)} in any case. Transfers keep it alive.`,
        ),
        h(
          "p",
          {},
          "Its certificate was made for it alone. Compare the thumbprint with the one that came with your link:",
        ),
        h(
          "dl",
          {},
          h("dt", {}, "SHA-256 ", copies(format.grouped(sha256), "Copy the SHA-256 thumbprint")),
          h("dd", {}, h("code", {}, format.grouped(sha256))),
          h("dt", {}, "SHA-1 ", copies(format.grouped(sha1), "Copy the SHA-1 thumbprint")),
          h("dd", {}, h("code", {}, format.grouped(sha1))),
        ),
      ),
      [
        ["Stop the session…", () => this.confirm()],
        ["Close", null, true],
      ],
    );
  }
}

export function help() {
  const keys = [
    ["↑ ↓ Page Home End", "move in the list"],
    ["Enter", "open a folder, look at a file"],
    ["Backspace", "one folder up"],
    ["letters", "jump to a name that begins so"],
    ["Space", "choose; with Shift and arrows a range, Ctrl+A all"],
    ["Ctrl+Enter", "show where a result stands"],
    ["+", "add what is chosen to the restore list"],
    ["/", "search"],
    ["F2", "type a path"],
    ["Esc", "give up a choice, close a panel"],
    ["Alt+← Alt+→", "back and forward"],
    ["?", "this help"],
  ];
  dialog(
    "Keys",
    h(
      "dl",
      { class: "keys" },
      keys.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]),
    ),
    [["Close", null, true]],
  );
}
