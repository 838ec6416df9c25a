// A list of any length of which only the rows on the screen are elements.

import { h, update } from "../core/dom.js";

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
    /** The rows that are elements now, by their index. */
    this.drawn = new Map();
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
    const shown = this.items.slice(first, first + count).map((item, at) => this.row(item, first + at));
    this.rows.style.setProperty("transform", `translateY(${first * height}px)`);
    this.drawn = new Map(shown.map((row) => [row.index, row]));
    const elements = new Set(shown.map((row) => row.element));
    for (const element of [...this.rows.children]) if (!elements.has(element)) element.remove();
    let at = this.rows.firstChild;
    for (const { element } of shown) {
      if (element === at) at = at.nextSibling;
      else this.rows.insertBefore(element, at);
    }
    if (first + count >= this.items.length) this.options.atEnd();
  }

  /** Return a row; the one that is there, if it shows the same: while a reader scrolls, most of them do. */
  row(item, index) {
    const isSelected = index === this.selected;
    const isFocusable = index === Math.max(this.selected, 0);
    const known = this.drawn.get(index);
    if (known && known.item === item && known.isSelected === isSelected && known.isFocusable === isFocusable) return known;
    const fresh = h(
      "div",
      { role: "row", class: "grid-row", "aria-rowindex": index + 2, "data-selected": isSelected },
      this.options.row(item).map((cell, column) =>
        h("span", { role: "cell" }, column === 0 ? h("a", { href: this.options.address(item), tabindex: isFocusable ? "0" : "-1" }, cell) : cell),
      ),
    );
    if (!known) return { index, item, isSelected, isFocusable, element: fresh };
    update(known.element, fresh); // the focus stays where it is
    return { index, item, isSelected, isFocusable, element: known.element };
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
