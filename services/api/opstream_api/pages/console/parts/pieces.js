// Small pieces that every page uses: the status, times that go on, buttons that copy, and what is shown instead of data.

import { now } from "../core/client.js";
import { h } from "../core/dom.js";
import { ago, moment } from "../core/time.js";
import { icon } from "./icons.js";

const WORDS = {
  NotStarted: "Not started",
  Running: "Running",
  Succeeded: "Succeeded",
  Failed: "Failed",
  Canceled: "Canceled",
};

export function statusWord(status) {
  return WORDS[status] ?? status;
}

/** Return the status as a picture and a word, so that its colour is not needed. */
export function statusBadge(status, properties = {}) {
  return h(
    "span",
    { class: "status", "data-status": status, ...properties },
    icon(status in WORDS ? status : "info"),
    statusWord(status),
  );
}

/** Return a moment as `3 min ago`, which goes on, with the whole time as its title. */
export function relativeTime(milliseconds) {
  const title = `${moment(milliseconds)} (${new Date(milliseconds).toISOString()})`;
  return h(
    "time",
    { datetime: new Date(milliseconds).toISOString(), title, "data-ago": milliseconds },
    ago(milliseconds, now()),
  );
}

/** Bring all relative times of the page up to date. */
export function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Number(element.dataset.ago), now());
    if (element.textContent !== text) element.textContent = text;
  }
}

/** Return a button that puts a text on the clipboard. */
export function copyButton(text, label) {
  return h(
    "button",
    {
      type: "button",
      class: "quiet small",
      title: label,
      "aria-label": label,
      on: { click: () => copy(text) },
    },
    icon("copy"),
  );
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    toast("The browser does not let this page copy. Select the text instead.");
  }
}

let hiding = 0;

/** Show a sentence for a moment; screen readers say it. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => place.classList.remove("shown"), 4000);
}

/** Return what stands where nothing is: a title, what it means, and what to do next. */
export function emptyState(name, title, ...children) {
  return h("div", { class: "empty" }, icon(name), h("h2", {}, title), children);
}

/** Return grey lines in the place of what is being loaded. */
export function skeleton(label, count = 4) {
  const lines = Array.from({ length: count }, (_, index) =>
    h("div", { class: "skeleton", style: { "--width": `${90 - index * 14}%` } }),
  );
  return h("div", { class: "loading", role: "status" }, h("span", { class: "hidden" }, label), lines);
}

const TITLES = {
  unauthenticated: "This service needs credentials",
  forbidden: "These credentials do not allow this",
  missing: "There is no such thing here",
  refused: "The API has refused this",
  busy: "Too many requests for these credentials",
  broken: "The API has answered with an error",
  unreachable: "The API can't be reached",
  slow: "The API does not answer in time",
};
const NEXT = {
  forbidden: "Ask the operator of the service for the scope that the message names, or use other credentials.",
  busy: "This page goes on more slowly by itself.",
  broken: "This page tries again by itself. The service's log has the cause, under the request id if there is one.",
  unreachable: "This page tries again by itself.",
  slow: "This page tries again by itself.",
};

const PASSING = new Set(["broken", "unreachable", "slow"]);

/** Return a button that reads again at once, for an error after which the page does so by itself, later each time. */
export function tryNowButton(error, tryNow) {
  return PASSING.has(error.kind ?? "broken") && h("button", { type: "button", on: { click: tryNow } }, "Try now");
}

/** Return what an error is, in words that say what to do. */
export function errorState(error, ...offered) {
  const kind = error.kind ?? "broken";
  const actions = offered.filter(Boolean);
  return h(
    "div",
    { class: "callout bad", role: "alert", "data-error": kind },
    icon(kind === "unauthenticated" || kind === "forbidden" ? "lock" : "alert"),
    h(
      "div",
      {},
      h("h2", {}, TITLES[kind] ?? TITLES.broken),
      h("p", {}, error.message),
      NEXT[kind] && h("p", { class: "dim" }, NEXT[kind]),
      (error.code || error.requestId) &&
        h(
          "p",
          { class: "dim mono" },
          [error.status, error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · "),
        ),
      actions.length ? h("p", { class: "buttons" }, actions) : undefined,
    ),
  );
}
