// SPDX-License-Identifier: Apache-2.0
// Rows of a list that may be long: fetched in blocks when they are looked at, given up when they are scrolled past, forgotten
// when too many are kept. Not here: how rows look (`grid.js`).

export const BLOCK = 200; // rows
const KEPT = 100; // blocks
const SOON = 70; // ms that a place is looked at before its rows are asked for: who drags a scroll bar only passes by

/**
 * What is known of a block: its rows, which may be `stale`; or those that are `coming`, for somebody who may only be `passing`.
 * @typedef {{rows?: object[], stale?: boolean, coming?: Promise<object[]>, controller?: AbortController, passing?: boolean}} Block
 */
export class Pages {
  /**
   * @param {(offset: number, count: number, signal: AbortSignal) => Promise<{rows: object[], matched: number}>} load
   * @param {(matched: number) => void} came told when a block came
   */
  constructor(load, came) {
    this.load = load;
    this.came = came;
    this.first = 0; // of the rows that are seen, and when that was another one
    this.moved = 0;
    /** @type {Map<number, Block>} */
    this.blocks = new Map();
  }

  /** What was known is of another list. */
  clear() {
    clearTimeout(this.timer);
    for (const block of this.blocks.values()) block.controller?.abort();
    this.blocks.clear();
  }

  /** The list may have changed: what is known is shown until the same place was asked for again. */
  age() {
    for (const [number, block] of this.blocks) {
      block.controller?.abort();
      if (block.rows) this.blocks.set(number, { rows: block.rows, stale: true });
      else this.blocks.delete(number);
    }
  }

  row(index) {
    return this.blocks.get(Math.floor(index / BLOCK))?.rows?.[index % BLOCK];
  }

  /** The rows of a block, fetched if need be. AbortError when the list became another one meanwhile. */
  block(number, passing = false) {
    const known = this.blocks.get(number);
    if (known?.rows && !known.stale) return Promise.resolve(known.rows);
    if (known?.coming) {
      known.passing &&= passing;
      return known.coming;
    }
    const controller = new AbortController();
    const block = { ...known, controller, passing };
    block.coming = this.load(number * BLOCK, BLOCK, controller.signal)
      .then((page) => {
        controller.signal.throwIfAborted();
        this.blocks.delete(number); // the newest are the last ones in the map
        this.blocks.set(number, { rows: page.rows });
        this.came(page.matched);
        return page.rows;
      })
      .catch((error) => {
        if (this.blocks.get(number) === block) this.blocks.delete(number);
        throw controller.signal.aborted ? new DOMException("", "AbortError") : error;
      });
    this.blocks.set(number, block);
    return block.coming;
  }

  /** Rows from `first` to `last`, both included. */
  async range(first, last) {
    const rows = [];
    for (let number = Math.floor(first / BLOCK); number <= Math.floor(last / BLOCK); number += 1) {
      const start = number * BLOCK;
      rows.push(...(await this.block(number)).slice(Math.max(0, first - start), last - start + 1));
    }
    return rows;
  }

  /** These rows are seen now. `failed` is told of what goes wrong. */
  look(first, last, failed) {
    const [low, high] = [Math.floor(first / BLOCK), Math.floor(Math.max(first, last) / BLOCK)];
    clearTimeout(this.timer);
    const moving = performance.now() - this.moved < 2 * SOON;
    if (first !== this.first) this.moved = performance.now();
    this.first = first;
    if (![...Array(high - low + 1).keys()].some((k) => !this.fresh(low + k))) return;
    const ask = () => {
      for (const [number, block] of this.blocks)
        if (block.coming && block.passing && (number < low - 1 || number > high + 1)) this.drop(number, block);
      for (let number = low; number <= high; number += 1)
        if (!this.fresh(number)) this.block(number, true).catch(failed);
      for (const number of this.blocks.keys()) {
        if (this.blocks.size <= KEPT) break;
        if (number < low - 1 || number > high + 1) this.drop(number, this.blocks.get(number));
      }
    };
    if (moving) this.timer = setTimeout(ask, SOON);
    else ask();
  }

  fresh(number) {
    const block = this.blocks.get(number);
    return block !== undefined && (block.coming !== undefined || (block.rows !== undefined && !block.stale));
  }

  drop(number, block) {
    block.controller?.abort();
    this.blocks.delete(number);
  }
}
