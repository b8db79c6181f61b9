// SPDX-License-Identifier: Apache-2.0
// A look at a file's content: text, a picture, or bytes. Whatever it is, it is only ever shown, as text or in an <img>.

import { blob, get } from "./api.js";
import { fill, h } from "./dom.js";
import * as format from "./format.js";

const NARROW = 500; // pixels that have no room for sixteen bytes a row
const BYTES = "bytes"; // in the place of an encoding: no text is wanted

export class Preview {
  /** @param {HTMLElement} sheet where it is shown */
  constructor(sheet) {
    this.sheet = sheet;
    this.picture = null;
  }

  /** Lets go of a picture. */
  forget() {
    if (this.picture) URL.revokeObjectURL(this.picture);
    this.picture = null;
  }

  /** `fresh` tells whether somebody still looks at that file; `encoding`: as what, if not as what it seems to be. */
  async show(place, row, fresh, encoding = "") {
    if (row.kind !== "file") {
      fill(this.sheet, h("p", { class: "sub" }, "Only files have content."));
      return;
    }
    const found = await get("/api/preview", { ...place, encoding });
    if (!fresh()) return;
    if (found.kind === "empty") fill(this.sheet, h("p", { class: "sub" }, "The file is empty."));
    else if (found.kind === "image") await this.image(place, row, fresh);
    else this.content(place, row, found, fresh);
  }

  async image(place, row, fresh) {
    const data = await blob("/api/image", place);
    if (!fresh()) return;
    this.forget();
    this.picture = URL.createObjectURL(data);
    const head = this.head(place, row, fresh, "A picture", "Its bytes", BYTES);
    const image = h("img", { src: this.picture, alt: `The picture ${row.name}` });
    image.addEventListener("load", () =>
      head.firstChild.replaceChildren(`A picture, ${image.naturalWidth} × ${image.naturalHeight} points`),
    );
    image.addEventListener("error", () =>
      fill(this.sheet, head, h("p", { class: "bad" }, "The picture is damaged: the browser cannot show it.")),
    );
    fill(this.sheet, head, image);
  }

  /** What is shown, and the other way to see it. */
  head(place, row, fresh, text, other, encoding) {
    const again = () =>
      this.show(place, row, fresh, encoding).catch((error) =>
        fill(this.sheet, h("p", { class: "bad" }, format.sentence(error))),
      );
    return h(
      "p",
      { class: "sub line" },
      h("span", {}, text),
      other && h("button", { type: "button", class: "small", onclick: again }, other),
    );
  }

  content(place, row, found, fresh) {
    const text = found.kind === "text";
    const label = text ? "The file as text" : "The file as bytes";
    const area = h("pre", {
      class: text ? "text-view" : "hex-view",
      tabindex: "0",
      role: "region",
      "aria-label": label,
    });
    const state = h("p", { class: "sub", role: "status" });
    const wide = this.sheet.clientWidth < NARROW ? 8 : 16;
    let offset = 0;
    const add = (part) => {
      area.append(text ? (part.text ?? "") : hex(part.base64 ?? "", offset, wide));
      offset = part.offset + part.length;
      state.textContent = offset < part.size ? `${format.size(offset)} of ${format.size(part.size)}` : "";
      more.hidden = offset >= part.size || !part.length;
    };
    const ask = async () => {
      more.disabled = true;
      try {
        const part = await get("/api/preview", { ...place, offset, encoding: text ? found.encoding : BYTES });
        if (fresh()) add(part);
      } catch (error) {
        state.textContent = format.sentence(error);
      } finally {
        more.disabled = false;
      }
      if (more.hidden) area.focus();
    };
    const more = h("button", { type: "button", onclick: ask }, "Show more");
    add(found);
    const head = text
      ? this.head(place, row, fresh, `Text, ${found.encoding}`, "As bytes", BYTES)
      : this.head(place, row, fresh, "Bytes", "As text", "latin-1");
    fill(this.sheet, head, area, h("p", { class: "line" }, more, state));
  }
}

/** Rows of `wide` bytes: where they stand, what they are, and what of them is a letter. */
function hex(base64, start, wide) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const lines = [];
  for (let at = 0; at < bytes.length; at += wide) {
    const part = [...bytes.subarray(at, at + wide)];
    const figures = part
      .map((byte) => byte.toString(16).padStart(2, "0"))
      .join(" ")
      .padEnd(3 * wide - 1);
    const letters = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${(start + at).toString(16).padStart(8, "0")}  ${figures}  ${letters}\n`);
  }
  return lines.join("");
}
