// What stands in the place of a list where the service has no index.

import { h } from "../core/dom.js";
import { recent } from "../core/recent.js";
import { emptyState } from "./pieces.js";

/** True for an answer of a service without an index, also of one that knows no lists. */
export function isIndexOff(error) {
  return error.code === "IndexOff" || error.code === "NotFound" || error.code === "MethodNotAllowed";
}

/** Return how to switch lists on, and what this tab has shown meanwhile. */
export function indexOff() {
  const known = recent();
  return [
    emptyState(
      "list",
      "This service has no index, so it can't list operations",
      h("p", {}, "Its operator switches one on: the projector writes it, the API reads it, both from the same URL."),
      h("pre", { class: "mono hint", tabindex: "0", "aria-label": "Options" }, "opstream projector --index sqlite:/var/lib/opstream/index.db\nopstream api       --index sqlite:/var/lib/opstream/index.db"),
      h("p", {}, "Meanwhile ", h("kbd", {}, "/"), " opens an operation by its id."),
    ),
    known.length > 0 &&
      h(
        "section",
        { class: "panel", key: "recent" },
        h("header", {}, h("h2", {}, "Shown in this tab")),
        h(
          "ol",
          { class: "rows" },
          known.map(({ id, kind }) =>
            h("li", { "data-row": true }, h("a", { href: `#/operations/${encodeURIComponent(id)}` }, h("span", {}, kind), h("span", { class: "mono dim" }, id))),
          ),
        ),
      ),
  ];
}
