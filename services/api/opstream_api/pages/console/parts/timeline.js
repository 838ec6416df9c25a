// The life of an operation to scale: what it waited, each attempt, the pauses between them, cancel requests.

import { h } from "../core/dom.js";
import { round } from "../core/history.js";
import { clock, duration, moment, tickStep } from "../core/time.js";
import { icon } from "./icons.js";

const TICKS = 5;
const HOW = {
  succeeded: ["Succeeded", "Succeeded", "succeeded"],
  failed: ["Failed", "Failed", "failed"],
  canceled: ["Canceled", "Canceled", "stopped on request"],
  released: ["NotStarted", "Released", "released: its runner stopped, and it does not count"],
  waits: ["NotStarted", "Waits", "ended, because its action waits; it does not count"],
  lost: ["alert", "Lost", "lost: its runner went silent, or was cut off"],
};

/** Return the panel. @param {object} life of `buildLife`. @param {object} monitor the status. */
export function timeline(life, monitor) {
  const span = Math.max(life.end - life.begin, 1);
  const scale = { begin: life.begin, span };
  const startAt = monitor.startAt ? Date.parse(monitor.startAt) : undefined;
  const rows = [];
  const queued = life.waits.find((wait) => wait.after === 0);
  if (queued) rows.push(queueRow(scale, queued, startAt));
  for (const attempt of life.attempts) {
    rows.push(attemptRow(scale, attempt, life.waits.find((wait) => wait.after === attempt.number), life));
  }
  return h(
    "section",
    { class: "panel timeline", "aria-label": "Timeline", key: "timeline" },
    h(
      "header",
      {},
      h("h2", {}, "Timeline"),
      h("span", { class: "dim" }, `${duration(span)}${life.outcome ? "" : " so far"}, to scale`),
    ),
    h("div", { class: "track axis", "aria-hidden": "true" }, h("span"), h("div", { class: "lane" }, ticks(span)), h("span")),
    h("ol", { class: "tracks" }, rows),
    marks(life),
  );
}

function ticks(span) {
  const step = tickStep(span, TICKS);
  const found = [];
  for (let at = 0; at <= span * 0.96; at += step) {
    found.push(h("span", { class: "tick", style: { "--at": `${(at / span) * 100}%` } }, at ? duration(at) : "0"));
  }
  return found;
}

function queueRow(scale, wait, startAt) {
  const parts = [];
  if (startAt > wait.begin) {
    const until = Math.min(startAt, wait.end);
    parts.push(bar(scale, wait.begin, until, "planned", `Not before ${moment(startAt)}`));
    if (wait.end > until) parts.push(bar(scale, until, wait.end, "queued", `Waited ${duration(wait.end - until)}`));
  } else parts.push(bar(scale, wait.begin, wait.end, wait.isLive ? "queued live" : "queued", `Waited ${duration(wait.end - wait.begin)}`));
  return track("Waiting", parts, duration(wait.end - wait.begin), wait.isLive ? "until it begins" : "before it began");
}

function attemptRow(scale, attempt, pause, life) {
  const end = attempt.end ?? life.end;
  const [picture, word, text] = HOW[attempt.how] ?? ["Running", "Running", "running"];
  const took = duration(end - attempt.begin);
  const title = `Attempt ${attempt.number} on ${attempt.runner}: ${text}, ${took}, from ${clock(attempt.begin)}`;
  const parts = [bar(scale, attempt.begin, end, attempt.isLive ? "running live" : attempt.how, title)];
  for (const report of attempt.progress.slice(-60)) {
    parts.push(
      h("span", {
        class: "dot",
        style: { "--at": `${place(scale, report.at)}%` },
        title: `${round(report.percent)} % ${report.message} at ${clock(report.at)}`,
      }),
    );
  }
  for (const step of attempt.steps.slice(-60)) {
    parts.push(
      h("span", {
        class: "dot",
        "data-step": step.name,
        style: { "--at": `${place(scale, step.at)}%` },
        title: `Step ${step.name} ${step.end} at ${clock(step.at)}${step.seconds ? `, took ${duration(step.seconds * 1000)}` : ""}`,
      }),
    );
  }
  if (pause && pause.end > pause.begin) {
    const text = attempt.retryAt ? `Pause until ${clock(attempt.retryAt)}` : "Pause";
    parts.push(bar(scale, pause.begin, pause.end, pause.isLive ? "pause live" : "pause", `${text}, ${duration(pause.end - pause.begin)}`));
  }
  const note = h(
    "span",
    { class: "how", "data-how": attempt.how ?? "running" },
    icon(picture),
    word,
    attempt.error && h("span", { class: "mono code" }, String(attempt.error.code)),
  );
  return track(`Attempt ${attempt.number}`, parts, took, note, attempt);
}

function track(name, parts, took, note, attempt) {
  return h(
    "li",
    { class: "track", "data-attempt": attempt?.number, title: attempt && `Runner ${attempt.runner}` },
    h("span", { class: "name" }, name),
    h("div", { class: "lane", "aria-hidden": "true" }, parts),
    h("span", { class: "took" }, h("b", {}, took), h("span", { class: "dim" }, note)),
  );
}

function bar(scale, begin, end, kind, title) {
  const from = place(scale, begin);
  return h("span", {
    class: `bar ${kind}`,
    title,
    style: { "--from": `${from}%`, "--width": `${Math.max(place(scale, end) - from, 0)}%` },
  });
}

function place(scale, at) {
  return Math.min(Math.max(((at - scale.begin) / scale.span) * 100, 0), 100);
}

function marks(life) {
  return life.marks.map((mark) =>
    h(
      "p",
      { class: "mark dim" },
      icon("Canceled"),
      `Cancel requested at ${clock(mark.at)}`,
      mark.by && ` by ${mark.by}`,
      mark.reason && `: ${mark.reason}`,
    ),
  );
}
