// What is done to all operations of a filter: first the count and some of them, then the question, then the operation that does it.

import { hasPath } from "../core/capabilities.js";
import { send } from "../core/client.js";
import { h } from "../core/dom.js";
import { confirmAct, reasonField } from "./dialogs.js";
import { relativeTime, statusBadge, toast } from "./pieces.js";

const RATE = 50;
const MOST_RATE = 500;
const ACTS = {
  retry: {
    name: "Do all again…",
    none: "None of these has failed or was canceled, so there is nothing to do again",
    title: (count) => `Do ${count} again?`,
    text: "Each that failed or was canceled gets a follow-up with the same input, in your name; one that has a follow-up gets no second one. An operation of its own does it, with progress, and a cancel of that stops it.",
    verb: "Do them again",
  },
  cancel: {
    name: "Cancel all…",
    none: "None of these is open, so there is nothing to cancel",
    title: (count) => `Cancel ${count}?`,
    text: "What has not begun ends at once; what runs is asked to stop. An operation of its own does it, with progress, and a cancel of that stops it.",
    verb: "Cancel them",
    isGrave: true,
  },
};

/** Return the acts that the API has: `retry`, `cancel`. */
export async function bulkActs() {
  const names = Object.keys(ACTS);
  const found = await Promise.all(names.map((name) => hasPath(`/status:${name}`)));
  return names.filter((_, at) => found[at]);
}

/** Return the button of an act. @param {(name: string) => void} begin hears of a click. */
export function bulkButton(name, begin) {
  return h("button", { type: "button", class: "small quiet", key: name, on: { click: () => begin(name) } }, ACTS[name].name);
}

/** Ask, and return the id of the operation that does it; undefined if there is none. Throws as `send` does. */
export async function doToAll(name, filter) {
  const act = ACTS[name];
  const path = (more) => `status:${name}?${new URLSearchParams({ filter, ...more })}`;
  const { data: found } = await send("POST", path({ dryRun: "true" }));
  if (!found.count) {
    toast(act.none);
    return undefined;
  }
  const rate = h("input", { id: "bulk-rate", type: "number", min: "1", max: String(MOST_RATE), value: String(RATE), required: true });
  const reason = name === "cancel" ? reasonField("Optional; each history keeps it") : undefined;
  const answer = await confirmAct({
    title: act.title(`${found.isWhole === false ? "more than " : ""}${found.count.toLocaleString()} ${found.count === 1 ? "operation" : "operations"}`),
    text: act.text,
    verb: act.verb,
    isGrave: act.isGrave,
    path: () => path(Number(rate.value) === RATE ? {} : { perSecond: rate.value }),
    json: reason?.json,
    fields: [sample(found), h("label", { for: "bulk-rate" }, "At most so many in a second"), rate, ...(reason?.fields ?? [])],
  });
  return answer?.data.id;
}

function sample({ sample: some, count }) {
  return h(
    "section",
    { class: "panel sample", "aria-label": "Some of them" },
    h("header", {}, h("h3", {}, some.length < count ? `The ${some.length} oldest` : "These"), h("span", { class: "dim" }, "nothing is done yet")),
    h(
      "ol",
      { tabindex: "0", "aria-label": "Operations" },
      some.map((item) => h("li", {}, statusBadge(item.status), h("span", {}, item.kind, item.resourceId && h("span", { class: "dim" }, ` ${item.resourceId}`)), h("span", { class: "dim" }, item.error ? String(item.error.code) : relativeTime(Date.parse(item.createdAt))))),
    ),
  );
}
