// SPDX-License-Identifier: Apache-2.0
// The session around the files: signing in, the time that is left, its end; help.

import { events, get, post } from "./api.js";
import { copies, fill, h, icon, say, toast } from "./dom.js";
import * as format from "./format.js";

const EVERY = 15_000; // ms between two looks at the time that is left
const PATIENCE = 20_000; // ms for an answer about it
const LOST = 3000; // ms between two looks while nobody answers
const AGAIN = [2, 4, 8, 15, 30]; // s until the next try of a page that reached nobody

let tries = 0;

/** The page of somebody who is not signed in; `done` when they are. */
export async function signIn(app, done) {
  const token = /[#&]t=([\w-]+)/.exec(location.hash)?.[1];
  if (token) {
    history.replaceState(null, "", location.pathname);
    try {
      await post("/api/sign-in", { token });
      return done();
    } catch (error) { return ask(app, done, error, error.type === "Unreachable" ? token : ""); }
  }
  return ask(app, done, null);
}

function ask(app, done, problem, code = "") {
  const field = h("input", { name: "code", value: code, autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true, "aria-describedby": "code-help" });
  const said = (error) => (error ? `${sentence(error.what)} ${sentence(error.hint ?? "")}` : "");
  const note = h("p", { class: "bad", role: "alert", hidden: !problem }, said(problem));
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post("/api/sign-in", { token: field.value.trim().replace(/^.*#t=/, "") });
    } catch (error) {
      fill(note, said(error));
      note.hidden = false;
      field.select();
      field.focus();
      return;
    }
    done();
  };
  fill(app, h("main", { class: "card" }, h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }), h("h1", {}, "File recovery"), note,
    h("form", { onsubmit: submit }, h("label", {}, "The link, or the code at its end", field),
      h("p", { class: "sub", id: "code-help" }, "A link works once, and for ten minutes after it was made. Whoever started the session can give you a new one."),
      h("button", { type: "submit", class: "main" }, "Sign in"))));
  app.removeAttribute("aria-busy");
  document.title = "File recovery: sign in";
  field.focus();
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");

function card(app, title, ...content) {
  document.querySelectorAll("dialog, .lost, .toast").forEach((one) => one.remove());
  fill(app, h("main", { class: "card", tabindex: "-1" }, h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }), h("h1", {}, title), content));
  app.removeAttribute("aria-busy");
  app.querySelector("main").focus();
  document.title = `File recovery: ${title.toLowerCase()}`;
}

/** The page of a session that is over. */
export function over(app, why, hint) {
  card(app, "The session is over", h("p", {}, why), h("p", { class: "sub" }, hint),
    h("button", { type: "button", onclick: () => location.reload() }, "Sign in with another link"));
}

/** The page when nobody answers from the beginning; `again` is tried by itself, later and later. */
export function unreachable(app, again) {
  const left = h("span", {}, "");
  const now = () => { clearInterval(timer); again(); };
  let seconds = AGAIN[Math.min(tries++, AGAIN.length - 1)];
  const timer = setInterval(() => {
    seconds -= 1;
    left.textContent = seconds > 0 ? `Next try in ${seconds} s.` : "Trying…";
    if (seconds <= 0) now();
  }, 1000);
  card(app, "The worker does not answer", h("p", {}, "The machine that the files come from cannot be reached from here at the moment. This page tries again by itself."),
    h("p", { class: "sub" }, "Is the network there, and a VPN if you need one? If the session was stopped, or ended because nobody used it, ask for a new link: the restore point is as it was."),
    h("p", {}, left), h("button", { type: "button", class: "main", onclick: now }, "Try now"));
}

export function dialog(title, content, actions) {
  const box = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), content, h("div", { class: "actions" }, actions.map(([label, run, main]) => h("button", { type: "button", class: main ? "main" : "", onclick: () => { box.close(); run?.(); } }, label))));
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
    this.element = h("button", { type: "button", class: "clock", onclick: () => this.explain() }, icon("clock"), this.text);
    this.lost = h("div", { class: "lost", role: "alert", hidden: true }, icon("warning"), h("span", {}, "The worker does not answer. This page tries again by itself; what was chosen is kept there. If the session was stopped, a new link is needed."));
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
    if (!this.element.isConnected) return;
    clearTimeout(this.soon);
    try {
      const { left, basket } = await get("/api/status", {}, { background: true, signal: AbortSignal.timeout(PATIENCE) });
      this.take(left);
      this.options.counted(basket);
    } catch (error) { // the page says by itself that nobody answers, or that nobody is signed in
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
    return Math.max(0, Math.min(this.left.transfers ? this.left.idle : this.left.idle - passed, this.left.limit - passed));
  }

  tick() {
    if (!this.element.isConnected) return;
    const seconds = this.seconds();
    this.text.textContent = this.left.transfers ? "transfer under way" : format.duration(seconds > 120 ? Math.ceil(seconds / 60) * 60 : seconds).replace(":00 min", " min");
    this.element.setAttribute("aria-label", `Time left: ${this.text.textContent}`);
    const idles = this.left.idle <= this.left.limit;
    if (!this.left.warn) {
      this.asked?.close();
      this.asked = null;
      this.told = false;
    } else if (!this.asked?.open && !this.staying && !(this.told && !idles)) this.warn(idles); // of its last minutes somebody is told once
    if (this.asked?.open) this.asked.querySelector(".left").textContent = format.duration(seconds);
    if (seconds <= 0 && !this.looking) {
      this.looking = true;
      this.look().finally(() => { this.looking = false; });
    }
  }

  warn(idle) {
    const left = h("strong", { class: "left" });
    if (idle) {
      const text = h("p", {}, "Nobody has done anything for a while. The session ends in ", left, ".");
      this.asked = dialog("Are you still there?", text, [["Stop now", () => this.stop()], ["Stay", () => this.stay(), true]]);
      this.asked.addEventListener("cancel", () => this.stay());
      return;
    }
    this.told = true;
    const text = h("p", {}, "The session may not last any longer. It ends in ", left, ", transfers included. Ask for a new link to go on; a download of the same files goes on where it was cut.");
    this.asked = dialog("The time is nearly over", text, [["Stop now", () => this.stop()], ["Go on", null, true]]);
  }

  async stay() {
    this.staying = true;
    try {
      this.take((await post("/api/stay")).left);
    } catch { /* the page says by itself that nobody answers; the question comes again */ } finally { this.staying = false; }
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
    dialog("Stop the session?", h("p", {}, "It ends for everybody who uses it, downloads that are under way included. The restore point stays as it is."), [["Stop the session", () => this.stop()], ["Go on", null, true]]);
  }

  explain() {
    const { sha256, sha1 } = this.certificate;
    dialog("This session", h("div", {}, h("p", {}, `It ends when nobody has used it for a while (${this.text.textContent} from now), and in ${format.duration(this.left.limit)} in any case. Transfers keep it alive.`), h("p", {}, "Its certificate was made for it alone. Compare the thumbprint with the one that came with your link:"), h("dl", {}, h("dt", {}, "SHA-256 ", copies(format.grouped(sha256), "Copy the SHA-256 thumbprint")), h("dd", {}, h("code", {}, format.grouped(sha256))), h("dt", {}, "SHA-1 ", copies(format.grouped(sha1), "Copy the SHA-1 thumbprint")), h("dd", {}, h("code", {}, format.grouped(sha1))))), [["Stop the session…", () => this.confirm()], ["Close", null, true]]);
  }
}

export function help() {
  const keys = [["↑ ↓ Page Home End", "move in the list"], ["Enter", "open a folder, look at a file"], ["Backspace", "one folder up"], ["letters", "jump to a name that begins so"], ["Space", "choose; with Shift and arrows a range, Ctrl+A all"], ["Ctrl+Enter", "show where a result stands"], ["+", "add what is chosen to the restore list"], ["/", "search"], ["F2", "type a path"], ["Esc", "give up a choice, close a panel"], ["Alt+← Alt+→", "back and forward"], ["?", "this help"]];
  dialog("Keys", h("dl", { class: "keys" }, keys.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)])), [["Close", null, true]]);
}
