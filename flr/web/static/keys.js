// SPDX-License-Identifier: Apache-2.0
// The keys of a grid, as the ARIA grid pattern has them; letters are the beginning of a name.

const TYPING = 800; // ms in which letters are one word

export class Keys {
  /** @param {import("./grid.js").Grid} grid */
  constructor(grid) {
    this.grid = grid;
    this.word = "";
    grid.element.addEventListener("keydown", (event) => this.press(event));
  }

  /** What was typed belongs to another list. */
  forget() {
    this.word = "";
  }

  press(event) {
    const { grid } = this;
    if (event.altKey || event.metaKey || (event.target !== grid.element && event.target.closest("button, input")))
      return;
    const page = grid.shows() - 1;
    const to = {
      ArrowDown: grid.at + 1,
      ArrowUp: grid.at - 1,
      PageDown: grid.at + page,
      PageUp: grid.at - page,
      Home: 0,
      End: grid.total - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.word = "";
      grid.move(to);
      if (event.shiftKey) grid.range(grid.at);
      else if (!event.ctrlKey) grid.anchor = grid.at;
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.word = "";
      const open = event.ctrlKey && grid.options.locate ? grid.options.locate : grid.options.open;
      Promise.resolve(this.jumping).then(() => {
        // what was typed before leads there first
        const row = grid.row(grid.at);
        if (row) open(row);
      });
    } else if (event.key === " " && !this.word) {
      event.preventDefault();
      grid.toggle(grid.at);
      grid.anchor = grid.at;
    } else if (event.ctrlKey && event.key === "a") {
      event.preventDefault();
      grid.all(true);
    } else if (event.key === "Backspace") {
      event.preventDefault();
      grid.options.up?.();
    } else if (event.key === "Escape" && grid.picked.size) {
      event.preventDefault();
      grid.all(false);
    } else if (event.key.length === 1 && !event.ctrlKey && grid.options.jump && !"/?+".includes(event.key)) {
      event.preventDefault();
      this.jumping = this.type(event.key).catch(() => {});
    }
  }

  /** Letters that follow each other quickly are the beginning of a name; the same one again goes to the next that begins so. */
  async type(letter) {
    const { grid } = this;
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      this.word = "";
    }, TYPING);
    const again = this.word === letter;
    this.word = again ? letter : this.word + letter;
    const wanted = (this.wanted = {});
    const found = await grid.options.jump(this.word, again || this.word.length === 1 ? grid.at : grid.at - 1);
    if (found !== null && wanted === this.wanted) grid.move(found);
  }
}
