// The upper part of an operation's page: what it is, how it stands, what to do about it, and its details.

import { h } from "../core/dom.js";
import { round } from "../core/history.js";
import { duration, moment } from "../core/time.js";
import { adviceFor, waitingText } from "./advice.js";
import { icon } from "./icons.js";
import { copyButton, relativeTime, statusBadge } from "./pieces.js";

/** Return the title with the acts. */
export function heading(monitor, acts) {
  return h(
    "header",
    { class: "page-head" },
    h(
      "div",
      { class: "title" },
      h("h1", { class: "mono-ish" }, monitor.kind || monitor.id, monitor.resourceId && h("span", { class: "dim" }, ` ${monitor.resourceId}`)),
      h("p", { class: "id mono dim" }, monitor.id, copyButton(monitor.id, "Copy the id")),
    ),
    h("div", { class: "buttons" }, acts),
  );
}

/** Return the line with the most important numbers. */
export function glance(monitor, life) {
  const running = life.attempts.reduce((sum, attempt) => sum + (attempt.end ?? life.end) - attempt.begin, 0);
  const waited = life.waits.filter((wait) => wait.after === 0).reduce((sum, wait) => sum + wait.end - wait.begin, 0);
  const pauses = life.waits.filter((wait) => wait.after > 0).reduce((sum, wait) => sum + wait.end - wait.begin, 0);
  const known = life.request !== undefined;
  return h(
    "dl",
    { class: "glance", "aria-label": "At a glance" },
    cell("Status", statusBadge(monitor.status)),
    monitor.createdAt && cell("Requested", relativeTime(Date.parse(monitor.createdAt))),
    known && cell("Waited", duration(waited)),
    known && cell("Ran", life.attempts.length ? duration(running) : "not yet"),
    pauses > 0 && cell("Paused", duration(pauses)),
    cell("Attempts", String(monitor.attempt ?? 0)),
    known && cell("Asked by", life.request.data.caller || life.request.data.clientAddress || "not known"),
  );
}

function cell(name, value) {
  return h("div", { key: name }, h("dt", {}, name), h("dd", {}, value));
}

/** Return what the reader should know at once: an error with what to do, what it waits for, how far it is. */
export function callouts(monitor, life) {
  return [failure(monitor), waiting(monitor), cancelRequest(monitor), progress(monitor, life)];
}

function failure({ error }) {
  if (!error) return undefined;
  return h(
    "section",
    { class: "callout bad", key: "error", "aria-label": "Error" },
    icon("Failed"),
    h(
      "div",
      {},
      h("h2", {}, h("span", { class: "mono" }, String(error.code)), error.target && h("span", { class: "dim mono" }, ` ${error.target}`)),
      h("p", { class: "message" }, error.message),
      h("p", { class: "dim" }, adviceFor(error)),
    ),
  );
}

function waiting(monitor) {
  if (monitor.status !== "NotStarted" && !monitor.retryAt && !monitor.blockedBy) return undefined;
  if (["Succeeded", "Failed", "Canceled"].includes(monitor.status)) return undefined;
  const found = waitingText(monitor);
  if (!found) return undefined;
  const owner = monitor.blockedBy?.operationId;
  return h(
    "section",
    { class: "callout warn", key: "waiting", "aria-label": "What it waits for", "data-reason": monitor.blockedBy?.reason ?? monitor.waitingFor },
    icon("schedules"),
    h(
      "div",
      {},
      h("h2", {}, found[0]),
      found[1] && h("p", {}, found[1]),
      owner && h("p", {}, "It is owned by ", operationLink(owner), "."),
    ),
  );
}

function cancelRequest(monitor) {
  if (!monitor.cancelRequested) return undefined;
  return h(
    "section",
    { class: "callout warn", key: "cancel-request" },
    icon("Canceled"),
    h("div", {}, h("h2", {}, "It is asked to stop"), h("p", {}, monitor.cancelRequestedAt && `Since ${moment(Date.parse(monitor.cancelRequestedAt))}. `, "It ends when its action has stopped.")),
  );
}

function progress(monitor, life) {
  const { percentComplete: percent, message } = monitor;
  if (percent === undefined || monitor.status === "Succeeded") return undefined;
  const shown = round(percent);
  const last = life.attempts.at(-1)?.progress.at(-1);
  return h(
    "section",
    { class: "panel progress", key: "progress", "aria-label": "Progress" },
    h("header", {}, h("h2", {}, "Progress"), h("b", { class: "number" }, `${shown} %`)),
    h(
      "div",
      { class: "meter", role: "progressbar", "aria-valuenow": shown, "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Progress", "data-status": monitor.status },
      h("span", { style: { "--width": `${Math.min(percent, 100)}%` } }),
    ),
    (message || last) && h("p", { class: "dim" }, message, last && monitor.status === "Running" && [message ? " · " : "", "reported ", relativeTime(last.at)]),
  );
}

/** Return the list of details. */
export function facts(monitor, life, id) {
  const data = life.request?.data ?? {};
  const time = (text) => text && h("time", { datetime: text, title: text }, moment(Date.parse(text)));
  const coming = (text) => text && [time(text), h("br"), h("span", { class: "dim" }, relativeTime(Date.parse(text)))];
  const rows = [
    ["Action", monitor.kind && h(isBulk(monitor.kind) ? "span" : "a", { href: isBulk(monitor.kind) ? undefined : `#/actions/${encodeURIComponent(monitor.kind)}`, class: "mono" }, monitor.kind, data.actionVersion && h("span", { class: "dim" }, ` v${data.actionVersion}`))],
    ["Resource id", monitor.resourceId && h("span", { class: "mono" }, monitor.resourceId)],
    ["Requested", time(monitor.createdAt)],
    ["Not before", coming(monitor.startAt)],
    ["Started", time(monitor.startedAt)],
    ["Ended", time(monitor.finishedAt)],
    ["Deadline", !monitor.finishedAt && coming(data.deadline)],
    ["Asked by", data.caller && h("span", { class: "mono" }, data.caller, data.tenant && h("span", { class: "dim" }, ` of ${data.tenant}`))],
    ["Application", data.clientId && h("span", { class: "mono" }, data.clientId)],
    ["From", data.clientAddress && h("span", { class: "mono" }, data.clientAddress)],
    ["Labels", monitor.labels && labels(monitor.labels)],
    ["Follows", monitor.retryOf && operationLink(monitor.retryOf)],
    ["Child of", monitor.parent && operationLink(monitor.parent)],
    ["Children", monitor.children && monitor.children.map((group) => childrenOf(group, id))],
    ["Files", monitor.attachments && monitor.attachments.map(fileLink)],
    ["Uploads", monitor.uploads && monitor.uploads.map(fileLink)],
    ["Followed by", monitor.retriedBy && [monitor.retriedBy].flat().map(operationLink)],
    ["Callback", data.callback && h("span", { class: "mono break" }, data.callback)],
    ["Trace", data.trace && h("span", { class: "mono break" }, data.trace.traceparent)],
    ["Kept", data.retention && `${duration(data.retention * 1000)} after its end`],
  ];
  return h(
    "section",
    { class: "panel facts-panel" },
    h("header", {}, h("h2", {}, "Details")),
    h(
      "dl",
      { class: "facts" },
      rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
    ),
    h("p", { class: "dim small-text" }, "Raw: ", h("a", { href: `status/${encodeURIComponent(id)}` , target: "_blank", rel: "noreferrer" }, "status"), " · ", h("a", { href: `status/${encodeURIComponent(id)}/events`, target: "_blank", rel: "noreferrer" }, "events")),
  );
}

/** A bulk operation is opstream's own: no runner offers its action, so it has no page. */
function isBulk(kind) {
  return kind.startsWith("operations:");
}

function labels(found) {
  return h("ul", { class: "labels" }, Object.entries(found).map(([key, value]) => h("li", {}, h("span", { class: "dim" }, key), " ", value)));
}

/** A link as those to the raw status: it opens by itself where the service asks for no credentials. */
function fileLink({ name, size, href }) {
  const link = h("a", { class: "mono break", href: href.replace(/^\//, ""), target: "_blank", rel: "noreferrer" }, name);
  return h("div", {}, link, h("span", { class: "dim" }, ` ${size.toLocaleString("en")} bytes`));
}

function childrenOf(group, parent) {
  const name = h("span", { class: "dim" }, `${group.name}${group.key ? ` ${group.key}` : ""}: `);
  const rest = group.count - group.ids.length;
  const filter = encodeURIComponent(`parent eq '${parent}'`);
  const all = rest > 0 && h("a", { href: `#/operations?filter=${filter}` }, `and ${rest} more`);
  return h("div", {}, name, group.ids.flatMap((id) => [operationLink(id), " "]), all);
}

export function operationLink(id) {
  return h("a", { class: "mono break", href: `#/operations/${encodeURIComponent(id)}` }, id);
}
