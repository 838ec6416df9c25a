// Schedules: when they are due, in words, and their definitions as texts that keep each digit of an input.

import { members } from "./json_text.js";
import { duration } from "./time.js";

/** Members that `PUT /schedules/{name}` takes. */
const DEFINITION = ["action", "resourceId", "input", "cron", "timeZone", "every", "pauseOnFailure", "paused"];

/** Return when a schedule is due. */
export function dueText({ cron, timeZone = "UTC", every }) {
  return cron ? `${cron} · ${timeZone}` : `every ${duration(every * 1000)}`;
}

/** Return the definition in the text of a schedule, with some members changed; a member that is `undefined` is left out. */
export function definitionJson(text, changes = {}) {
  const found = members(text);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) found.delete(name);
    else found.set(name, JSON.stringify(value));
  }
  return `{${DEFINITION.filter((name) => found.has(name)).map((name) => `"${name}":${found.get(name)}`).join(",")}}`;
}

/** Return the input in the text of a schedule, as it was written. */
export function inputJson(text) {
  return members(text).get("input") ?? "{}";
}

/** Return the value of a field for a local time, in the reader's time zone: `2026-11-30T09:41`. */
export function localField(milliseconds) {
  const shifted = new Date(milliseconds - new Date(milliseconds).getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}
