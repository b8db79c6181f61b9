// SPDX-License-Identifier: Apache-2.0
// Where somebody is, as the part of the address behind "#": #/POINT/VOLUME/path, or #list, #log. A path is coded as by the server.

/** {view: "files", point, volume, path} or {view: "list" | "log"}; null when it says nothing. */
export function read() {
  const hash = location.hash;
  if (hash === "#list" || hash === "#log") return { view: hash.slice(1) };
  const found = /^#\/([^/]+)\/([^/]+)(\/.*)?$/.exec(hash);
  if (!found) return null;
  try {
    const [point, volume] = [decodeURIComponent(found[1]), decodeURIComponent(found[2])];
    return { view: "files", point, volume, path: found[3] || "/" };
  } catch {
    return null; // somebody cut it where it must not be cut
  }
}

export function write(place) {
  if (place.view !== "files") return `#${place.view}`;
  return `#/${encodeURIComponent(place.point)}/${encodeURIComponent(place.volume)}${place.path}`;
}

export function go(place, replace = false) {
  const hash = write(place);
  if (hash === location.hash) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  dispatchEvent(new Event("route"));
}

export const join = (path, key) => (path === "/" ? `/${key}` : `${path}/${key}`);
export const parent = (path) => path.replace(/\/[^/]*$/, "") || "/";

/** What a coded path looks like to a person who may edit it: text where it is text, the rest stays coded. */
export function shown(path) {
  return path
    .split("/")
    .map((part) => {
      try {
        return decodeURIComponent(part).replace(
          /[%/\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]|^\s|\s$/g,
          (c) => encodeURIComponent(c),
        );
      } catch {
        return part;
      }
    })
    .join("/");
}

/** The other way: what was typed, coded. A percent sign that codes something stays. */
export function typed(text) {
  const clean = `/${text.trim()}`.replace(/\/{2,}/g, "/").replace(/(.)\/$/, "$1");
  return clean
    .split("/")
    .map((part) =>
      part.replace(/%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9_.~%-]/gu, (c) => {
        try {
          return encodeURIComponent(c).replace(/[!'()*]/g, (d) => `%${d.charCodeAt(0).toString(16).toUpperCase()}`);
        } catch {
          return "%3F";
        }
      }),
    )
    .join("/");
}
