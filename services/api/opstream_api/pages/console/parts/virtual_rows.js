// A list of any length of which only the rows on the screen are elements.

import { h, render } from "../core/dom.js";

const OVERSCAN = 8;

export class VirtualRows {
  /**
   * @param {{height: number, columns: string[], row: (item: object) => Node[], address: (item: object) => string,
   *   label: string, atEnd: () => void}} options `atEnd` hears that the reader comes near the end.
   */
  constructor(options) {
    this.options = options;
    this.items = [];
    this.selected = -1;
    this.rows = h("div", { role: "rowgroup", class: "grid-rows" });
    this.space = h("div", { class: "grid-space", role: "presentation" }, this.rows);
    this.scroller = h("div", { class: "grid-scroll", role: "presentation", on: { scroll: () => this.schedule() } }, this.space);
    this.table = h(
      "div",
      { role: "table", class: "grid", "aria-label": options.label },
      h(
        "div",
        { role: "rowgroup" },
        h("div", { role: "row", class: "grid-row grid-head" }, options.columns.map((name) => h("span", { role: "columnheader" }, name))),
      ),
      this.scroller,
    );
    this.observer = new ResizeObserver(() => this.schedule());
    this.observer.observe(this.scroller);
  }

  stop() {
    this.observer.disconnect();
  }

  get isAtTop() {
    return this.scroller.scrollTop < this.options.height;
  }

  show(items) {
    this.items = items;
    this.table.setAttribute("aria-rowcount", String(items.length + 1));
    this.space.style.setProperty("height", `${items.length * this.options.height}px`);
    this.schedule();
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  }

  draw() {
    const { height } = this.options;
    const first = Math.max(Math.floor(this.scroller.scrollTop / height) - OVERSCAN, 0);
    const count = Math.ceil(this.scroller.clientHeight / height) + 2 * OVERSCAN;
    const shown = this.items.slice(first, first + count);
    this.rows.style.setProperty("transform", `translateY(${first * height}px)`);
    render(
      this.rows,
      shown.map((item, index) => this.row(item, first + index)),
    );
    if (first + count >= this.items.length) this.options.atEnd();
  }

  row(item, index) {
    return h(
      "div",
      { role: "row", class: "grid-row", "aria-rowindex": index + 2, key: `row-${index}`, "data-selected": index === this.selected },
      this.options.row(item).map((cell, column) =>
        h("span", { role: "cell" }, column === 0 ? h("a", { href: this.options.address(item), tabindex: index === Math.max(this.selected, 0) ? "0" : "-1" }, cell) : cell),
      ),
    );
  }

  /** Move the selection by some rows, and the focus with it. */
  move(step) {
    if (!this.items.length) return;
    const { height } = this.options;
    this.selected = Math.min(Math.max(this.selected + step, 0), this.items.length - 1);
    const top = this.selected * height;
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + height > scrollTop + clientHeight) this.scroller.scrollTop = top + height - clientHeight;
    this.draw();
    this.rows.querySelector(`[aria-rowindex="${this.selected + 2}"] a`)?.focus({ preventScroll: true });
  }
}
