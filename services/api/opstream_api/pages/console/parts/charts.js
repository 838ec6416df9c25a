// Charts of SVG, each with its numbers as a text for screen readers.

import { h, s } from "../core/dom.js";

const HEIGHT = 170;
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;
/** Pixels that a label of the time axis needs. */
const LABEL = 90;

/**
 * Return stacked bars over time with a stepped line above them.
 *
 * @param {{label: string, parts: Record<string, number>, line: number, title: string}[]} columns
 * @param {{parts: [string, string][], line: string, label: string}} names `parts` are keys with their words, lowest first.
 * @param {number} fullWidth pixels that the chart will have, so that its text has the size of other text.
 */
export function columnChart(columns, names, fullWidth) {
  const sums = columns.map(({ parts }) => Object.values(parts).reduce((sum, value) => sum + value, 0));
  const most = Math.max(1, ...sums, ...columns.map(({ line }) => line));
  const step = niceStep(most / 3);
  const top = Math.ceil(most / step) * step;
  const width = (fullWidth - LEFT) / columns.length;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const grid = [];
  for (let value = 0; value <= top; value += step) {
    grid.push(
      s("line", { x1: LEFT, x2: fullWidth, y1: y(value), y2: y(value), class: "grid-line" }),
      s("text", { x: LEFT - 6, y: y(value) + 4, class: "axis-text", "text-anchor": "end" }, value.toLocaleString()),
    );
  }
  const bars = columns.flatMap((column, index) => columnOf(column, index, { width, y, names }));
  const every = Math.ceil((columns.length * LABEL) / (fullWidth - LEFT));
  const labels = columns.map(({ label }, index) =>
    index % every === 0 && (columns.length - index) * width > LABEL / 2 ? s("text", { x: LEFT + index * width, y: HEIGHT - 4, class: "axis-text" }, label) : undefined,
  );
  const steps = columns.map(({ line }, index) => `${index ? "V" : `M${LEFT} `}${y(line).toFixed(1)}H${(LEFT + (index + 1) * width).toFixed(1)}`);
  return h(
    "figure",
    { class: "chart" },
    s(
      "svg",
      { viewBox: `0 0 ${fullWidth} ${HEIGHT}`, width: fullWidth, height: HEIGHT, role: "img", "aria-label": names.label },
      grid,
      bars,
      s("path", { d: steps.join(""), class: "chart-line" }),
      labels,
    ),
    h(
      "figcaption",
      { class: "legend" },
      names.parts.map(([key, word]) => h("span", {}, h("i", { class: `swatch part-${key}` }), word)),
      h("span", {}, h("i", { class: "swatch swatch-line" }), names.line),
    ),
  );
}

function columnOf(column, index, { width, y, names }) {
  let base = 0;
  const x = LEFT + index * width + width * 0.14;
  const rects = names.parts.map(([key]) => {
    const value = column.parts[key] ?? 0;
    const rect = value ? s("rect", { x, width: width * 0.72, y: y(base + value), height: y(base) - y(base + value), class: `part-${key}` }) : undefined;
    base += value;
    return rect;
  });
  const cover = s("rect", { x: LEFT + index * width, width, y: TOP, height: HEIGHT - TOP - BOTTOM, class: "cover" }, s("title", {}, column.title));
  return [s("g", {}, rects), cover];
}

function niceStep(rough) {
  const size = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  return [1, 2, 5, 10].map((factor) => factor * size).find((step) => step >= rough) ?? size;
}

/**
 * Return horizontal bars, one a row. All begin and end at the same places, so that their lengths can be compared.
 *
 * @param {{name: Node|string, note?: string, parts: [kind: string, value: number][], text: string, href?: string}[]} rows
 */
export function barRows(rows, label) {
  const sum = ({ parts }) => parts.reduce((total, [, value]) => total + value, 0);
  const most = Math.max(1, ...rows.map(sum));
  const share = (value) => ({ "--width": `${(value / most) * 100}%` });
  return h(
    "ol",
    { class: "bar-rows", "aria-label": label },
    rows.map(({ name, note, parts, text, href }) =>
      h(
        "li",
        { "data-row": href ? true : undefined },
        h(
          href ? "a" : "div",
          { href, class: "bar-row" },
          h("span", { class: "bar-name" }, name, note && h("span", { class: "bar-note dim" }, note)),
          h(
            "span",
            { class: "bar-lane", "aria-hidden": "true" },
            parts.filter(([, value]) => value > 0).map(([kind, value]) => h("span", { class: `bar-fill ${kind}`, style: share(value) })),
          ),
          h("span", { class: "bar-value" }, text),
        ),
      ),
    ),
  );
}
