// What the events of an operation say: the request, its attempts to scale, and what was reported meanwhile.

import { members } from "./json_text.js";

const OUTCOMES = new Set(["succeeded", "failed", "canceled"]);

/** Return an event from its text and name, with the texts of `input` and `result` as they were written. */
export function readEvent(text, name) {
  const envelope = JSON.parse(text);
  const data = envelope.data ?? {};
  const event = {
    text,
    name,
    position: envelope.position,
    previoushash: envelope.previoushash,
    subject: envelope.subject,
    at: Date.parse(envelope.time),
    time: envelope.time,
    source: envelope.source,
    data,
    isOutcome: OUTCOMES.has(name),
    isForced: Boolean(data.forced),
    bytes: new TextEncoder().encode(text).length,
    hash: "",
  };
  const shown = name === "requested" ? "input" : name === "succeeded" ? "result" : "";
  if (shown) {
    const found = members(members(text).get("data") ?? "{}"); // of a large document: where it is, and how large
    event.payload = found.get(shown) ?? found.get(`${shown}Payload`) ?? "null";
  }
  return event;
}

/** Return the life of an operation in phases. Times are milliseconds since 1970, by the clocks of who wrote them. */
export function buildLife(events, now) {
  const life = { request: undefined, attempts: [], marks: [], outcome: undefined, begin: now, end: now, waits: [] };
  let waitingSince;
  for (const event of events) {
    const { name, data, at } = event;
    const attempt = life.attempts.at(-1);
    if (name === "requested") {
      life.request = event;
      waitingSince = at;
    } else if (name === "started") {
      if (attempt && attempt.end === undefined) close(attempt, at, "lost");
      if (waitingSince !== undefined) life.waits.push({ begin: waitingSince, end: at, after: attempt?.number ?? 0 });
      waitingSince = undefined;
      life.attempts.push({ number: data.attempt, runner: data.runner, lease: data.lease, begin: at, progress: [], steps: [] });
    } else if (name === "progressed") {
      attempt?.progress.push({ at, percent: data.percent, message: data.message ?? "" });
    } else if (name.startsWith("step-")) {
      attempt?.steps.push({ at, name: stepName(data), end: name.slice(5), seconds: data.seconds ?? 0, error: data.error });
    } else if (name === "waiting") {
      if (attempt) {
        close(attempt, at, "waits");
        attempt.retryAt = data.until ? Date.parse(data.until) : undefined;
      }
      waitingSince = at;
    } else if (name === "attempt-failed") {
      if (attempt) {
        close(attempt, at, data.counted ? "failed" : "released");
        Object.assign(attempt, { error: data.error, retryAt: Date.parse(data.retryAt) });
      }
      waitingSince = at;
    } else if (name === "cancel-requested") {
      life.marks.push({ kind: "cancel", at, by: data.by ?? "", reason: data.reason ?? "" });
    } else if (event.isOutcome && !life.outcome) {
      life.outcome = event;
      if (attempt && attempt.end === undefined) {
        const isLost = ["RunnerLost", "DeadlineExceeded"].includes(data.error?.code) || event.isForced;
        close(attempt, at, isLost ? "lost" : name);
        attempt.error = data.error;
      }
      if (waitingSince !== undefined) life.waits.push({ begin: waitingSince, end: at, after: attempt?.number ?? 0 });
      waitingSince = undefined;
    }
  }
  life.begin = events[0]?.at ?? now;
  life.end = Math.max(life.outcome?.at ?? now, ...events.map((event) => event.at));
  const last = life.attempts.at(-1);
  if (last && last.end === undefined) last.isLive = true;
  if (waitingSince !== undefined) {
    life.waits.push({ begin: waitingSince, end: life.end, after: last?.number ?? 0, isLive: true });
  }
  return life;
}

function close(attempt, at, how) {
  attempt.end = Math.max(at, attempt.begin);
  attempt.how = how;
}

function stepName(data) {
  return data.key ? `${data.name} (${data.key})` : data.name;
}

/** Return a short sentence for what an event says. */
export function eventSummary({ name, data }) {
  switch (name) {
    case "requested":
      return `${data.resource}:${data.action} version ${data.actionVersion}${data.caller ? ` for ${data.caller}` : ""}`;
    case "started":
      return `attempt ${data.attempt} on ${data.runner}`;
    case "progressed":
      return [`${round(data.percent)} %`, data.message].filter(Boolean).join(", ");
    case "step-started":
      return stepName(data);
    case "step-succeeded":
      return [stepName(data), data.tries > 1 && `${data.tries} tries`].filter(Boolean).join(", ");
    case "step-failed":
      return `${stepName(data)}: ${data.error?.code} ${data.error?.message ?? ""}`;
    case "waiting":
      return [data.signal ? `for the signal ${stepName(data)}` : stepName(data), data.until && `until ${data.until}`].filter(Boolean).join(", ");
    case "signaled":
      return [data.name, data.by && `by ${data.by}`, data.via && `through ${data.via}`].filter(Boolean).join(", ");
    case "attempt-failed":
      return `attempt ${data.attempt}: ${data.error?.code} ${data.error?.message ?? ""}`;
    case "cancel-requested":
    case "canceled":
      return [data.by && `by ${data.by}`, data.reason].filter(Boolean).join(": ") || "no reason was given";
    case "failed":
      return `${data.error?.code}: ${data.error?.message ?? ""}`;
    case "succeeded":
      return "";
    default:
      return "an event of a type that this page does not know";
  }
}

export function round(percent) {
  return Math.round(percent * 10) / 10;
}
