// The start: open an operation by its id, or one that this tab has shown.

import { openapi } from "../core/capabilities.js";
import { h, render } from "../core/dom.js";
import { recent } from "../core/recent.js";
import { emptyState, errorState } from "../parts/pieces.js";

export class StartView {
  constructor(container, _parameters, shell) {
    this.container = container;
    this.shell = shell;
    this.draw();
    openapi().catch((error) => {
      this.draw(error);
      shell.credentialsRefused(error);
    });
  }

  stop() {}

  draw(error) {
    const known = recent();
    render(
      this.container,
      h("header", { class: "page-head" }, h("h1", {}, "Operations")),
      error && errorState(error, this.shell.credentialsButton(error)),
      known.length
        ? h(
            "section",
            { class: "panel" },
            h("header", {}, h("h2", {}, "Shown in this tab")),
            h(
              "ol",
              { class: "rows" },
              known.map(({ id, kind }) =>
                h("li", { "data-row": true }, h("a", { href: `#/operations/${encodeURIComponent(id)}` }, h("span", {}, kind), h("span", { class: "mono dim" }, id))),
              ),
            ),
          )
        : emptyState(
            "search",
            "Open an operation by its id",
            h("p", {}, "Press ", h("kbd", {}, "/"), " and paste the id that a submit has answered."),
          ),
    );
  }
}
