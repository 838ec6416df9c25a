// How an action stands: its runners, what waits for it, and whether an operator has paused it.

import { h } from "../core/dom.js";
import { duration, moment } from "../core/time.js";
import { reasonWord } from "./advice.js";
import { icon } from "./icons.js";
import { relativeTime } from "./pieces.js";

/** Return which runners an action has, in words. @param {object} listed an item of `GET /actions`. */
export function runnersText({ runnerCount, slots, freeSlots, lastRunnerAt }) {
  if (runnerCount && slots === undefined) return String(runnerCount);
  if (runnerCount) return `${runnerCount} with ${slots - freeSlots} of ${slots} slots busy`;
  return lastRunnerAt ? ["none since ", relativeTime(Date.parse(lastRunnerAt))] : "none";
}

/** Return how much waits, and for how long; undefined if these credentials may not know. */
export function waitingOf({ waiting }) {
  if (!waiting) return undefined;
  const number = waiting.reduce((sum, one) => sum + one.number, 0);
  return number ? `${number.toLocaleString()}, for up to ${duration(Math.max(...waiting.map(({ oldest }) => oldest)) * 1000)}` : "nothing";
}

export function pausedBadge() {
  return h("span", { class: "status", "data-schedule": "Paused" }, icon("pause"), "Paused");
}

/** Return the numbers of an action at a glance. */
export function actionGlance(listed) {
  const cell = (name, value) => value !== undefined && h("div", { key: name }, h("dt", {}, name), h("dd", {}, value));
  return h(
    "dl",
    { class: "glance", "aria-label": "At a glance", key: "glance" },
    cell("Status", listed.paused ? pausedBadge() : h("span", { class: "status", "data-schedule": "Active" }, icon("actions"), "Active")),
    cell("Version", String(listed.version)),
    cell("Runners", runnersText(listed)),
    cell("Waiting", waitingOf(listed)),
    listed.waiting?.length > 0 && cell("For", [...new Set(listed.waiting.map(({ reason }) => reasonWord(reason)))].join(", ")),
  );
}

/** Return since when, by whom and why an action is paused. */
export function pauseNotice({ paused }) {
  if (!paused) return undefined;
  const end = paused.until ? `The pause ends at ${moment(Date.parse(paused.until))}, or when it is resumed.` : "It goes on when it is resumed.";
  return h(
    "section",
    { class: "callout warn", key: "paused", "aria-label": "Pause" },
    icon("pause"),
    h("div", {}, h("h2", {}, "No attempt of this action begins"), h("p", {}, "Paused ", relativeTime(Date.parse(paused.since)), paused.by && ` by ${paused.by}`, paused.reason && `: “${paused.reason}”`, ". ", end)),
  );
}
