// Pictures of 16 by 16 pixels, drawn with lines in the colour of the text. They say nothing that no word says, too.

import { s } from "../core/dom.js";

const PATHS = {
  overview: ["M2.5 9.5h2.5l2-6 3 9 2-5h1.5"],
  list: ["M5.5 4h8M5.5 8h8M5.5 12h8", "M2.5 4h.01M2.5 8h.01M2.5 12h.01"],
  actions: ["M8.8 1.8 3.5 9h4l-.8 5.2L12.5 7h-4z"],
  schedules: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 4.7V8l2.3 1.5"],
  webhooks: ["M8 6.5 5 11.5M8 6.5a2.5 2.5 0 1 1 2.4-3.2M5 11.5a2.4 2.4 0 1 1-2.2-2.9M5 11.5h5.6M10.6 11.5a2.4 2.4 0 1 0 .8-2.6M8 4.1l2.9 5"],
  plus: ["M8 3.5v9M3.5 8h9"],
  pause: ["M5.8 4v8M10.2 4v8"],
  search: ["M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9z", "m10.3 10.3 3.2 3.2"],
  copy: ["M5.5 5.5h8v8h-8z", "M10.5 5.5v-3h-8v8h3"],
  check: ["m3 8.5 3.2 3.2L13 4.8"],
  cross: ["m4 4 8 8M12 4l-8 8"],
  alert: ["M8 2.2 14.4 13H1.6z", "M8 6.5v3M8 11.3h.01"],
  info: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 7.5V11M8 5.2h.01"],
  key: ["M6 9.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4z", "m8.3 8.6 5 5M11 11.2l1.4-1.4"],
  terminal: ["m3 4.5 3.5 3.5L3 11.5M8 12h5"],
  sun: ["M8 10.7a2.7 2.7 0 1 0 0-5.4 2.7 2.7 0 0 0 0 5.4z", "M8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9"],
  moon: ["M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z"],
  system: ["M2 3h12v8H2z", "M5.5 13.5h5"],
  keyboard: ["M1.5 4h13v8h-13z", "M4 6.7h.01M6.7 6.7h.01M9.3 6.7h.01M12 6.7h.01M5 9.5h6"],
  lock: ["M3.5 7h9v6.5h-9z", "M5.5 7V4.8a2.5 2.5 0 0 1 5 0V7"],
  link: ["M6.7 9.3a2.6 2.6 0 0 0 3.7 0l2.3-2.3a2.6 2.6 0 0 0-3.7-3.7l-.9.9", "M9.3 6.7a2.6 2.6 0 0 0-3.7 0L3.3 9a2.6 2.6 0 0 0 3.7 3.7l.9-.9"],
  chevron: ["m6 4 4 4-4 4"],
  retry: ["M13 8a5 5 0 1 1-1.5-3.6", "M13 2.5v2.6h-2.6"],
  out: ["M6 2.5H3v11h3", "M9.5 5 12.5 8l-3 3M12.5 8H6"],
  NotStarted: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z"],
  Running: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "M8 5v6M5 8h6"],
  Succeeded: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "m5.3 8.2 1.9 1.9 3.5-3.9"],
  Failed: ["M5.5 2h5L14 5.5v5L10.5 14h-5L2 10.5v-5z", "m6 6 4 4M10 6l-4 4"],
  Canceled: ["M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12z", "m3.8 3.8 8.4 8.4"],
};

/** Return a picture by its name. */
export function icon(name, properties = {}) {
  const paths = name === "Running" ? runningPaths() : (PATHS[name] ?? PATHS.info).map((d) => s("path", { d }));
  const classes = ["icon", `icon-${name}`, properties.class].filter(Boolean).join(" ");
  return s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", ...properties, class: classes }, paths);
}

function runningPaths() {
  return [
    s("circle", { cx: 8, cy: 8, r: 6, class: "faint" }),
    s("path", { d: "M8 2a6 6 0 0 1 6 6", class: "turning" }),
  ];
}
