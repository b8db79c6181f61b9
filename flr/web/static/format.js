// SPDX-License-Identifier: Apache-2.0
// Figures for people.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const AGES = [
  ["year", 31557600],
  ["month", 2629800],
  ["week", 604800],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
]; // seconds
/** @type {[number, number, string, string][]} */
const SPECIAL = [
  [0o4000, 2, "s", "S"],
  [0o2000, 5, "s", "S"],
  [0o1000, 8, "t", "T"],
];
const number = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export const count = (value) => number.format(value);
export const entries = (value) => (value === 1 ? "1 entry" : `${count(value)} entries`);

export function size(bytes) {
  if (bytes === undefined || bytes === null) return "";
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return unit ? `${one.format(value)} ${UNITS[unit]}` : `${value} B`;
}

/** Bytes of what a person wrote: 10, 4k, 1.5 GiB. NaN when it is no size. */
export function parseSize(text) {
  const found = /^\s*([\d.]+)\s*([kmgtp]?)(i?b)?\s*$/i.exec(text);
  return found ? Math.round(Number(found[1]) * 1024 ** " kmgtp".indexOf(found[2].toLowerCase() || " ")) : NaN;
}

const two = (value) => String(value).padStart(2, "0");

/** In the person's own time zone, to the minute or to the second. */
export function moment(seconds, exact = false) {
  if (seconds === undefined || seconds === null) return "";
  const at = new Date(seconds * 1000);
  if (Number.isNaN(at.getTime())) return `${Math.round(seconds)} s`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}${exact ? `:${two(at.getSeconds())}` : ""}`;
}

const weekday = new Intl.DateTimeFormat("en", { weekday: "short" });

/** A restore point's time, as somebody thinks of it; with seconds if another one is of the same minute. `ago`: and how long ago. */
export function point({ made }, all = [], ago = true) {
  if (made === null) return "As it is on the disks";
  const minute = (seconds) => Math.floor(seconds / 60);
  const twin = all.filter((one) => one.made !== null && minute(one.made) === minute(made)).length > 1;
  return `${weekday.format(new Date(made * 1000))} ${moment(made, twin)}${ago ? ` · ${age(made)}` : ""}`;
}

/** How long ago. */
export function age(seconds) {
  const passed = seconds - Date.now() / 1000;
  const found = AGES.find(([, length]) => Math.abs(passed) >= length);
  return found ? relative.format(Math.round(passed / found[1]), found[0]) : "just now";
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return whole >= 60 ? `${Math.floor(whole / 60)}:${two(whole % 60)} min` : `${whole} s`;
}

/** The nine letters of a mode. */
export function mode(bits) {
  if (bits === undefined) return "";
  const letters = [..."rwxrwxrwx"].map((letter, k) => ((bits >> (8 - k)) & 1 ? letter : "-"));
  for (const [bit, at, set, only] of SPECIAL) {
    if (bits & bit) letters[at] = letters[at] === "x" ? set : only;
  }
  return letters.join("");
}

/** The last part of a name after its dot, in capitals, for a column of types. */
export function type(row) {
  if (row.kind !== "file") return row.kind[0].toUpperCase() + row.kind.slice(1);
  const dot = row.name.lastIndexOf(".");
  return dot > 0 && row.name.length - dot < 12 ? row.name.slice(dot + 1).toUpperCase() : "File";
}

/** What a narrow screen shows below a name. */
export const under = (row) => [size(row.size), moment(row.modified)].filter(Boolean).join(" · ");

export const grouped = (text) => text.match(/../g).join(":");

/**
 * What went wrong, as a sentence: "What: value."
 * @param {{what?: string, value?: string, message?: string}} problem
 */
export function sentence({ what, value, message }) {
  const text = what ? (value ? `${what}: ${value}` : what) : message;
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.…!?]$/.test(text) ? "" : "."}`;
}
