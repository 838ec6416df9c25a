// Shows JSON as it was written, coloured by kind; of a long one the beginning first.

import { h } from "../core/dom.js";
import { jsonLines } from "../core/json_text.js";
import { copyButton } from "./pieces.js";

const FIRST_LINES = 60;

/** Return a panel with JSON. `key` keeps it open while the page is updated. */
export function jsonView(key, title, text) {
  const block = h("pre", { class: "json", tabindex: "0", "aria-label": title });
  const lines = jsonLines(text, FIRST_LINES + 1);
  fill(block, lines.slice(0, FIRST_LINES));
  const more =
    lines.length > FIRST_LINES &&
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        on: {
          click: (event) => {
            fill(block, jsonLines(text));
            event.target.remove();
          },
        },
      },
      `Show all of it (${text.length.toLocaleString()} characters)`,
    );
  return h(
    "section",
    { class: "panel", key: `${key}-${text.length}`, "data-own-children": true },
    h("header", {}, h("h2", {}, title), copyButton(text, `Copy ${title.toLowerCase()}`)),
    block,
    more,
  );
}

function fill(block, lines) {
  block.replaceChildren(
    ...lines.flatMap((line) => [...line.map(([kind, text]) => h("span", { class: `json-${kind}` }, text)), "\n"]),
  );
}
