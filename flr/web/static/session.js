// SPDX-License-Identifier: Apache-2.0
// The session around the files: signing in, the time that is left, its end; help.

import { events, get, post } from "./api.js";
import { button, fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";

const EVERY = 15_000;

/** The page of somebody who is not signed in; `done` when they are. */
export async function signIn(app, done) {
  const token = /[#&]t=([\w-]+)/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, "", location.pathname);
    try {
      await post("/api/sign-in", { token });
      return done();
    } catch (error) { return ask(app, done, error); }
  }
  return ask(app, done, null);
}

function ask(app, done, problem) {
  const field = h("input", { name: "code", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "code-help" });
  const note = h("p", { class: "bad", role: "alert" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    const token = field.value.trim().replace(/^.*#t=/, "");
    try { await post("/api/sign-in", { token }); done(); } catch (error) { fill(note, `${sentence(error.what)} ${sentence(error.hint ?? "")}`); field.focus(); }
  } }, h("label", {}, "The link, or the code at its end", field), h("p", { class: "sub", id: "code-help" }, "A link works once, and for ten minutes. Whoever started the session can give you a new one."), h("button", { type: "submit", class: "main" }, "Sign in"));
  fill(app, h("main", { class: "card" }, h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }), h("h1", {}, "File recovery"), problem && h("p", { class: "bad", role: "alert" }, `${sentence(problem.what)} ${sentence(problem.hint)}`), note, form));
  app.removeAttribute("aria-busy");
  field.focus();
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

/** The page of a session that is over. */
export function over(app, why, hint) {
  document.querySelectorAll("dialog").forEach((dialog) => dialog.remove());
  fill(app, h("main", { class: "card", tabindex: "-1" }, h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }), h("h1", {}, "The session is over"), h("p", {}, why), h("p", { class: "sub" }, hint), h("button", { type: "button", class: "main", onclick: () => location.reload() }, "Try again")));
  app.querySelector("main").focus();
  document.title = "File recovery: over";
}

export function dialog(title, content, actions) {
  const box = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), content, h("div", { class: "actions" }, actions.map(([label, run, main]) => h("button", { type: "button", class: main ? "main" : "", onclick: () => { box.close(); run?.(); } }, label))));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
  return box;
}

export class Clock {
  /** @param {{stopped: () => void, counted: (count: number) => void}} options */
  constructor(options) {
    this.options = options;
    this.text = h("span", {});
    this.element = h("button", { type: "button", class: "clock", onclick: () => this.explain() }, icon("clock"), this.text);
    this.lost = h("div", { class: "lost", role: "alert", hidden: true }, icon("warning"), h("span", {}, "The worker does not answer. This page tries again by itself; what was chosen is kept there."));
    document.body.append(this.lost);
    events.addEventListener("lost", () => { this.lost.hidden = false; });
    events.addEventListener("found", () => { this.lost.hidden = true; say("The worker answers again"); });
  }

  start(left, certificate) {
    this.certificate = certificate;
    this.take(left);
    setInterval(() => this.tick(), 1000);
    setInterval(() => this.look(), EVERY);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.look(); });
  }

  async look() {
    try {
      const { left, basket } = await get("/api/status", {}, { background: true });
      this.take(left);
      this.options.counted(basket);
    } catch { /* the page says by itself that nobody answers, or that nobody is signed in */ }
  }

  take(left) {
    this.left = left;
    this.taken = performance.now();
    this.tick();
  }

  tick() {
    const passed = (performance.now() - this.taken) / 1000;
    const idle = this.left.transfers ? this.left.idle : this.left.idle - passed;
    const seconds = Math.max(0, Math.min(idle, this.left.limit - passed));
    this.text.textContent = this.left.transfers ? "transfer under way" : format.duration(seconds > 120 ? Math.ceil(seconds / 60) * 60 : seconds).replace(":00 min", " min");
    this.element.setAttribute("aria-label", `Time left: ${this.text.textContent}`);
    if (this.left.warn && !this.asked) this.warn(idle <= this.left.limit - passed);
    if (!this.left.warn && this.asked) { this.asked.close(); this.asked = null; }
    if (this.asked) this.asked.querySelector(".left").textContent = format.duration(seconds);
    if (seconds <= 0 && !this.left.transfers) this.look();
  }

  warn(idle) {
    const text = h("p", {}, idle ? "Nobody has done anything for a while. The session ends in " : "The session's time is nearly over. It ends in ", h("strong", { class: "left" }), ".");
    this.asked = dialog("Are you still there?", text, [["Stop now", () => this.stop()], ["Stay", () => this.stay(), true]]);
    this.asked.addEventListener("cancel", () => this.stay());
  }

  async stay() {
    const { left } = await post("/api/stay");
    this.asked = null;
    this.take(left);
  }

  async stop() {
    await post("/api/stop").catch(() => {});
    this.options.stopped();
  }

  confirm() {
    dialog("Stop the session?", h("p", {}, "It ends for everybody who uses it, downloads that are under way included. The restore point stays as it is."), [["Stop the session", () => this.stop()], ["Go on", null, true]]);
  }

  explain() {
    const copy = (text) => button("Copy", { text: true, onclick: () => navigator.clipboard.writeText(text).then(() => toast("Copied.")) });
    const { sha256, sha1 } = this.certificate;
    dialog("This session", h("div", {}, h("p", {}, `It ends when nobody has used it for a while (${this.text.textContent} from now), and in ${format.duration(this.left.limit)} in any case. Transfers keep it alive.`), h("p", {}, "Its certificate was made for it alone. Compare the thumbprint with the one that came with your link:"), h("dl", {}, h("dt", {}, "SHA-256 ", copy(format.grouped(sha256))), h("dd", {}, h("code", {}, format.grouped(sha256))), h("dt", {}, "SHA-1 ", copy(sha1)), h("dd", {}, h("code", {}, format.grouped(sha1))))), [["Stop the session…", () => this.confirm()], ["Close", null, true]]);
  }
}

export function help() {
  const keys = [["↑ ↓ Page Home End", "move in the list"], ["Enter", "open a folder, look at a file"], ["Backspace", "one folder up"], ["letters", "jump to a name that begins so"], ["Space", "choose; with Shift and arrows a range, Ctrl+A all"], ["+", "add what is chosen to the restore list"], ["/", "search"], ["F2", "type a path"], ["Esc", "give up a choice, close a panel"], ["Alt+← Alt+→", "back and forward"], ["?", "this help"]];
  dialog("Keys", h("dl", { class: "keys" }, keys.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)])), [["Close", null, true]]);
}
