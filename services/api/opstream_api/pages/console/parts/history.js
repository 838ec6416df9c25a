// The history as a list, each event with its bytes and its place in the hash chain, which this browser has checked.

import { h } from "../core/dom.js";
import { eventSummary } from "../core/history.js";
import { clock } from "../core/time.js";
import { icon } from "./icons.js";
import { copyButton } from "./pieces.js";

const NAMES = {
  requested: "Requested",
  started: "Started",
  progressed: "Progress",
  "step-started": "Step begins",
  "step-succeeded": "Step done",
  "step-failed": "Step failed",
  waiting: "Waits",
  signaled: "Signal",
  "attempt-failed": "Attempt failed",
  "cancel-requested": "Cancel requested",
  succeeded: "Succeeded",
  failed: "Failed",
  canceled: "Canceled",
};

const MOST = 200;

/**
 * Return the panel.
 *
 * @param {object[]} events of `readEvent`.
 * @param {{state: string, findings: object[], begin: number}} chain
 * @param {boolean} isExpanded shows all of a long history.
 * @param {() => void} expand asks for that.
 */
export function history(events, chain, isExpanded, expand) {
  const hidden = isExpanded ? 0 : Math.max(events.length - MOST, 0);
  const first = hidden ? MOST / 4 : events.length;
  return h(
    "section",
    { class: "panel history", "aria-label": "History", key: "history" },
    h("header", {}, h("h2", {}, "History"), h("span", { class: "dim" }, count(events.length))),
    chainVerdict(events, chain),
    h(
      "ol",
      { class: "events" },
      events.map((event, index) => {
        if (hidden && index === first) {
          return h("li", { key: "more", class: "more" }, h("button", { type: "button", class: "quiet", on: { click: expand } }, `Show ${count(hidden)} between`));
        }
        if (hidden && index > first && index < first + hidden) return undefined;
        return eventRow(event, events[index + 1], chain);
      }),
    ),
  );
}

function count(number) {
  return number === 1 ? "1 event" : `${number.toLocaleString()} events`;
}

function chainVerdict(events, chain) {
  const [name, tone, title, text] = verdictOf(events, chain);
  return h(
    "div",
    { class: `callout ${tone} chain`, "data-chain": chain.state, role: chain.state === "broken" ? "alert" : undefined },
    icon(name),
    h(
      "div",
      {},
      h("h3", {}, title),
      h("p", { class: "dim" }, text),
      chain.findings.map((finding) => h("p", { class: "finding" }, finding.text)),
      chain.state === "broken" &&
        h("p", { class: "dim" }, "Run ", h("code", {}, "opstream verify --chain"), " at the broker, and keep the evidence."),
    ),
  );
}

function verdictOf(events, chain) {
  const last = events.at(-1);
  const uncovered = last?.isOutcome
    ? "No event carries the hash of the last one: only a signed checkpoint proves the outcome."
    : "The last event is not covered before another one follows it.";
  switch (chain.state) {
    case "whole": {
      if (events.length === 1) return ["link", "", "The hash chain has one event", "There is nothing to compare it with before another one follows."];
      const from = chain.begin === 1 ? "" : ` Those before event ${chain.begin} have expired.`;
      return ["link", "good", "The hash chain is whole", `Each event carries the SHA-256 of the one before it, checked in this browser.${from} ${uncovered}`];
    }
    case "broken":
      return ["alert", "bad", "The hash chain is broken", "What this browser got is not what was stored, or what was stored has been changed."];
    case "passed-over":
      return ["alert", "warn", "An operator ended this operation by force", "Its end passes over messages that do not continue it."];
    case "checking":
      return ["link", "", "Checking the hash chain", "This browser computes the SHA-256 of each event."];
    case "foreign-subject":
      return ["info", "", "The hash chain can't be checked here", "This service shows your own id in place of the stored one, so these are not the stored bytes. The operator checks them by opstream verify --chain."];
    default:
      return ["info", "", "The hash chain can't be checked here", "A browser computes hashes for pages that come over https, or from this machine, and for no other."];
  }
}

function eventRow(event, next, chain) {
  const isBad = chain.findings.some((finding) => finding.position === event.position);
  const link = linkOf(event, next, chain, isBad);
  return h(
    "li",
    { key: `event-${event.position}`, "data-row": true, "data-event": event.name, class: isBad ? "bad" : undefined },
    h(
      "details",
      {},
      h(
        "summary",
        {},
        icon("chevron", { class: "turn" }),
        h("span", { class: "position mono" }, String(event.position)),
        h("span", { class: "name" }, NAMES[event.name] ?? event.name),
        h("span", { class: "summary dim" }, eventSummary(event)),
        h("span", { class: "link", title: link.title, "data-link": link.state }, icon(link.icon), h("span", { class: "hidden" }, link.title)),
        h("time", { class: "mono dim", datetime: event.time, title: event.time }, clock(event.at)),
      ),
      h(
        "div",
        { class: "bytes" },
        h(
          "dl",
          { class: "facts" },
          fact("SHA-256", event.hash || "not computed"),
          fact("Hash of the event before", event.previoushash || "none, it is the first"),
          fact("Written by", event.source),
          fact("Bytes", event.bytes.toLocaleString()),
        ),
        h("div", { class: "raw" }, h("pre", { class: "mono", tabindex: "0", "aria-label": `Bytes of event ${event.position}` }, event.text), copyButton(event.text, "Copy the event")),
      ),
    ),
  );
}

function fact(name, value) {
  return [h("dt", {}, name), h("dd", { class: "mono" }, value)];
}

function linkOf(event, next, chain, isBad) {
  if (isBad) return { state: "broken", icon: "alert", title: "The next event carries another hash" };
  if (chain.state !== "whole" && chain.state !== "broken") return { state: "unknown", icon: "link", title: "Not checked" };
  if (next) return { state: "covered", icon: "check", title: `Event ${next.position} carries the hash of this one` };
  return { state: "last", icon: "link", title: "The last event: none carries its hash yet" };
}
