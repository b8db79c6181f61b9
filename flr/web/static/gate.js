// SPDX-License-Identifier: Apache-2.0
// The pages of somebody who is not in a session: signing in, a session that is over, a worker that does not answer.

import { post } from "./api.js";
import { fill, h } from "./dom.js";
import * as format from "./format.js";

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
    } catch (error) {
      return ask(app, done, error, error.type === "Unreachable" ? token : "");
    }
  }
  return ask(app, done, null);
}

function ask(app, done, problem, code = "") {
  const field = h("input", {
    name: "code",
    value: code,
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    required: true,
    "aria-describedby": "code-help",
  });
  const said = (error) =>
    error
      ? [format.sentence(error), error.hint && format.sentence({ what: error.hint })].filter(Boolean).join(" ")
      : "";
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
  fill(
    app,
    h(
      "main",
      { class: "card" },
      h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }),
      h("h1", {}, "File recovery"),
      note,
      h(
        "form",
        { onsubmit: submit },
        h("label", {}, "The link, or the code at its end", field),
        h(
          "p",
          { class: "sub", id: "code-help" },
          "A link works once, and for ten minutes after it was made. Whoever started the session can give you a new one.",
        ),
        h("button", { type: "submit", class: "main" }, "Sign in"),
      ),
    ),
  );
  app.removeAttribute("aria-busy");
  document.title = "File recovery: sign in";
  field.focus();
}

function card(app, title, ...content) {
  document.querySelectorAll("dialog, .lost, .toast").forEach((one) => one.remove());
  fill(
    app,
    h(
      "main",
      { class: "card", tabindex: "-1" },
      h("img", { src: "/static/icon.svg", alt: "", width: "48", height: "48" }),
      h("h1", {}, title),
      content,
    ),
  );
  app.removeAttribute("aria-busy");
  app.querySelector("main").focus();
  document.title = `File recovery: ${title.toLowerCase()}`;
}

/** The page of a session that is over. */
export function over(app, why, hint) {
  card(
    app,
    "The session is over",
    h("p", {}, why),
    h("p", { class: "sub" }, hint),
    h("button", { type: "button", onclick: () => location.reload() }, "Sign in with another link"),
  );
}

/** The page when nobody answers from the beginning; `again` is tried by itself, later and later. */
export function unreachable(app, again) {
  const left = h("span", {}, "");
  const now = () => {
    clearInterval(timer);
    again();
  };
  let seconds = AGAIN[Math.min(tries++, AGAIN.length - 1)];
  const timer = setInterval(() => {
    seconds -= 1;
    left.textContent = seconds > 0 ? `Next try in ${seconds} s.` : "Trying…";
    if (seconds <= 0) now();
  }, 1000);
  card(
    app,
    "The worker does not answer",
    h(
      "p",
      {},
      "The machine that the files come from cannot be reached from here at the moment. This page tries again by itself.",
    ),
    h(
      "p",
      { class: "sub" },
      "Is the network there, and a VPN if you need one? If the session was stopped, or ended because nobody used it, " +
        "ask for a new link: the restore point is as it was.",
    ),
    h("p", {}, left),
    h("button", { type: "button", class: "main", onclick: now }, "Try now"),
  );
}
