// The filter bar: a text in the filter language of the API, with what may come next below it.

import { completions } from "../core/filter_completion.js";
import { h } from "../core/dom.js";
import { icon } from "./icons.js";

export class FilterBar {
  /**
   * @param {string} text the first filter.
   * @param {() => object} known what the completion knows, as `completions` takes it.
   * @param {(text: string) => void} apply hears of a filter that the reader has entered.
   */
  constructor(text, known, apply) {
    this.known = known;
    this.apply = apply;
    this.options = [];
    this.chosen = -1;
    this.input = h("input", {
      id: "filter",
      type: "text",
      role: "combobox",
      "aria-label": "Filter",
      "aria-expanded": "false",
      "aria-controls": "filter-options",
      "aria-autocomplete": "list",
      "aria-describedby": "filter-problem",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "status eq 'Failed' and createdAt ge …",
      on: {
        input: () => this.suggest(),
        focus: () => this.suggest(),
        click: () => this.suggest(),
        blur: () => this.close(),
        keydown: (event) => this.key(event),
      },
    });
    this.input.value = text;
    this.list = h("ul", { id: "filter-options", role: "listbox", "aria-label": "What may come next", class: "options" });
    this.list.hidden = true;
    this.problem = h("p", { id: "filter-problem", class: "problem", "aria-live": "polite" });
    this.element = h(
      "form",
      {
        class: "filter",
        on: {
          submit: (event) => {
            event.preventDefault();
            this.close();
            this.apply(this.input.value.trim());
          },
        },
      },
      h("div", { class: "filter-box" }, icon("search"), this.input, h("button", { type: "submit", class: "small quiet" }, "Apply")),
      this.list,
      this.problem,
    );
  }

  set(text) {
    this.input.value = text;
    this.complain("");
  }

  /** Say what is wrong with the filter; an empty text says that nothing is. */
  complain(text) {
    this.problem.textContent = text;
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  suggest() {
    const before = this.input.value.slice(0, this.input.selectionStart ?? undefined);
    const { from, options } = completions(before, this.known());
    this.from = from;
    this.options = options;
    this.chosen = -1;
    this.draw();
  }

  draw() {
    this.list.hidden = this.options.length === 0;
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    this.list.replaceChildren(
      ...this.options.map((option, index) =>
        h(
          "li",
          {
            id: `filter-option-${index}`,
            role: "option",
            "aria-selected": String(index === this.chosen),
            on: {
              pointerdown: (event) => {
                event.preventDefault(); // the input keeps the focus
                this.take(index);
              },
            },
          },
          h("span", { class: "mono" }, option.text),
          h("span", { class: "dim" }, option.hint),
        ),
      ),
    );
    if (this.chosen < 0) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `filter-option-${this.chosen}`);
  }

  close() {
    this.options = [];
    this.draw();
  }

  take(index) {
    const { value, selectionStart } = this.input;
    const option = this.options[index].text;
    const after = value.slice(selectionStart);
    const space = option.startsWith("contains") ? "" : " "; // its text goes on within the quotes
    const next = `${value.slice(0, this.from)}${option}${after.startsWith(" ") ? "" : space}`;
    this.input.value = next + after;
    this.input.setSelectionRange(next.length, next.length);
    this.suggest();
  }

  key(event) {
    const count = this.options.length;
    if (event.key === "ArrowDown" && count) this.choose((this.chosen + 1) % count);
    else if (event.key === "ArrowUp" && count) this.choose(this.chosen <= 0 ? count - 1 : this.chosen - 1);
    else if (event.key === "Tab" && count && !event.shiftKey && this.input.value) this.take(Math.max(this.chosen, 0));
    else if (event.key === "Enter" && this.chosen >= 0) this.take(this.chosen);
    else if (event.key === "Escape" && count) {
      this.close();
      event.stopPropagation();
    } else return;
    event.preventDefault();
  }

  choose(index) {
    this.chosen = index;
    this.draw();
    this.list.children[this.chosen]?.scrollIntoView({ block: "nearest" });
  }
}
