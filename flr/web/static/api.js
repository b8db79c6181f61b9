// SPDX-License-Identifier: Apache-2.0
// Requests to the server that this page came from. What goes wrong is a Problem: what, value, hint, as the server tells it.

/**
 * @typedef {{point: string, volume: string, path: string}} Place  `path` coded as the server codes it
 * @typedef {{id: string, made: number|null, kind: string, disks: string[], size: number}} Point
 * @typedef {{id: string, kind: string, size: number, used: number|null, holds: string, label: string, mounted: string,
 *   journal: string, opens: boolean, why_not: string, hint: string, part_of: string, warnings: string[]}} Volume
 * @typedef {{key: string, name: string, kind: string, size?: number, modified?: number, owner?: string, group?: string,
 *   mode?: number, flags?: string[], problem?: string}} Row
 */

export class Problem extends Error {
  constructor({ type = "", what, value = "", hint = "" }, status = 0) {
    super(value ? `${what}: ${value}` : what);
    Object.assign(this, { type, what, value, hint, status });
  }
}

/** Told when nobody is signed in any more, and when the server cannot be reached or can again. */
export const events = new EventTarget();
let reachable = true;

async function ask(path, options, background, tries = 3) {
  let answer, document;
  try {
    const headers = { ...options.headers, ...(background ? { "x-background": "1" } : {}) };
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options, headers });
    document = (answer.headers.get("content-type") ?? "").startsWith("application/json") ? await answer.json() : null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (reachable) {
      reachable = false;
      events.dispatchEvent(new Event("lost"));
    }
    throw new Problem({
      type: "Unreachable",
      what: "the worker does not answer",
      hint: "this page tries again by itself",
    });
  }
  if (!reachable) {
    reachable = true;
    events.dispatchEvent(new Event("found"));
  }
  if (answer.ok) return document ?? answer;
  if (answer.status === 429 && document?.error?.type === "TooOften" && tries > 1) {
    await new Promise((done) => {
      setTimeout(done, 1000 * Number(answer.headers.get("retry-after") ?? 1));
    });
    return ask(path, options, background, tries - 1);
  }
  const problem = new Problem(document?.error ?? { what: `the server answered ${answer.status}` }, answer.status);
  if (answer.status === 401) events.dispatchEvent(new CustomEvent("out", { detail: problem }));
  throw problem;
}

const query = (values) =>
  new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== "")).toString();

/**
 * `background`: the page asks by itself, nobody did anything.
 * @param {string} path @param {object} values @param {{signal?: AbortSignal, background?: boolean}} more
 */
export const get = (path, values = {}, { signal, background } = {}) =>
  ask(`${path}?${query(values)}`, { signal }, background);

export const post = (path, body = {}) =>
  ask(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-recovery": "1" },
  });

/** A picture's bytes. */
export async function blob(path, values) {
  const answer = await ask(`${path}?${query(values)}`, {});
  return answer.blob();
}
