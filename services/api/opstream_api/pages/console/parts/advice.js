// What to do about an error, and what an operation waits for, in words.

import { moment } from "../core/time.js";

const BY_CODE = {
  500: "The handler raised an exception that it did not mean to raise. The log of the runner has the traceback, under this operation's id.",
  InvalidInput: "The input fits the action's schema, and not the code of the handler's own type. Change the input, or the type's rules.",
  InvalidResult: "The handler returned something that its annotation does not declare, or that has no JSON. Correct the handler.",
  ResultTooLarge: "Return a reference to the data, as a URL, instead of the data.",
  DeadlineExceeded: "It did not end before its deadline. See in the timeline whether it waited or ran; then give the action more runners, or a longer deadline.",
  AttemptTimedOut: "An attempt took longer than the action allows. Raise its attempt timeout, or find out in the runner's log what it waited for.",
  RunnerLost: "The runners of its attempts went silent: killed, out of memory, or cut off. Look at the logs of the runners that the timeline names.",
  ChildFailed: "A child has failed, which the message names. Look at that operation.",
  ChildRefused: "The API did not accept a child, as the message says. Correct the action's call of run or run_all.",
  ResourceBusy: "Another operation had the exclusive resource. Submit it again when that one has ended.",
  WaitTimedOut: "Nobody sent the signal in time that its action waited for. See in the history which one it was; then submit it again, or give the wait more time.",
  InvalidWait: "The action waits wrongly: a name twice, a type without a schema, or approvers where callers prove nothing. The log of the runner has the reason.",
  FailedByOperator: "An operator ended it. The history has the reason.",
};

/** Return what to do about an error of an operation. */
export function adviceFor(error) {
  const known = BY_CODE[error.code];
  if (known) return known;
  return "The action itself gave this code and message. Its runner's log has more, under this operation's id.";
}

const REASONS = {
  Runner: "No runner",
  FreeRunner: "All runners are busy",
  Concurrency: "max_concurrency is reached",
  Rate: "Rate",
  Resource: "Exclusive resource",
  Retry: "Pause before another attempt",
  Version: "No runner of its version",
  StartTime: "Start time",
  Sleep: "Its action sleeps",
  Signal: "A signal",
  Child: "It waits for its children",
  Paused: "The action is paused",
};

/** Return a reason to wait in a few words. */
export function reasonWord(reason) {
  return reason ? (REASONS[reason] ?? reason) : "About to begin";
}

/** Return `[title, text]` for what an open operation waits for; undefined if nothing is known. */
export function waitingText(monitor) {
  const blocked = monitor.blockedBy ?? (monitor.waitingFor ? { reason: monitor.waitingFor } : undefined);
  if (blocked) return blockedText(blocked, monitor);
  if (monitor.retryAt) return ["It waits for its next attempt", `The next one begins at ${at(monitor.retryAt)}.`];
  if (monitor.startAt && monitor.status === "NotStarted") return startText(monitor);
  return undefined;
}

function blockedText(blocked, monitor) {
  switch (blocked.reason) {
    case "Runner":
      return ["No runner takes this action", `${since(blocked)}Start a runner with --actions for ${monitor.kind}.`];
    case "FreeRunner": {
      const slots = blocked.slots ? ` ${number(blocked.runners, "runner")} with ${number(blocked.slots, "slot")}.` : "";
      return ["All runners of this action are busy", `It begins as soon as one is free.${slots}`];
    }
    case "Concurrency":
      return ["The action's max_concurrency is reached", `It begins when one that runs has ended.${blocked.slots ? ` ${blocked.slots} may run at once.` : ""}`];
    case "Rate":
      return ["The action's rate does not allow it yet", blocked.until ? `It may begin at ${at(blocked.until)}.` : "It begins when its slot has come."];
    case "Resource": {
      const position = blocked.position ?? monitor.queuePosition;
      return ["Another operation has its exclusive resource", position ? `It is number ${position} in the queue.` : "It begins when that one has ended."];
    }
    case "Retry":
      return ["It waits for its next attempt", `Attempt ${blocked.attempt ?? monitor.attempt} failed${blocked.error ? `: ${blocked.error.code} ${blocked.error.message}` : ""}. The next one begins at ${at(blocked.until ?? monitor.retryAt)}.`];
    case "Version":
      return ["No runner has the version that it was requested for", `It was requested for version ${blocked.version}; runners have ${(blocked.runnerVersions ?? []).join(", ") || "others"}.`];
    case "StartTime":
      return startText(monitor);
    case "Child":
      return ["It waits for its children", `${blocked.message ? `${blocked.message}: i` : "I"}t goes on when they have ended. Its details name them.`];
    case "Sleep":
      return ["Its action waits for a time", blocked.until ? `It goes on at ${at(blocked.until)}.` : "It goes on when that has come."];
    case "Signal":
      return [`Its action waits for the signal ${blocked.signal?.name ?? ""}`.trim(), signalText(blocked)];
    case "Paused":
      return ["The action is paused", pausedText(blocked)];
    default:
      return [`It waits: ${blocked.reason}`, ""];
  }
}

function startText(monitor) {
  return ["Its start time has not come", monitor.startAt ? `It begins at ${at(monitor.startAt)}, and not before.` : ""];
}

function signalText({ signal, until }) {
  const approvers = signal?.approvers > 1 ? `${signal.approvers} callers must send it. ` : "";
  const other = signal?.notRequester ? "Who requested the operation may not send it. " : "";
  return `${approvers}${other}${until ? `The wait ends without it at ${at(until)}.` : "It goes on when the signal has come."}`;
}

function pausedText(blocked) {
  const who = `${blocked.since ? ` since ${at(blocked.since)}` : ""}${blocked.by ? ` by ${blocked.by}` : ""}`;
  const end = blocked.until ? `The pause ends at ${at(blocked.until)}, or when an operator resumes the action.` : "It begins when an operator resumes the action.";
  return `${who ? `Paused${who}. ` : ""}${blocked.message ? `“${blocked.message}” ` : ""}${end}`;
}

function since(blocked) {
  return blocked.since ? `The last one was there at ${at(blocked.since)}. ` : "";
}

function at(text) {
  return text ? moment(Date.parse(text)) : "a moment that is not known";
}

function number(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}
