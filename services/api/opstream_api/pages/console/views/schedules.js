// The schedules of this service: when each is due next, and what became of its last moment.

import { openapi } from "../core/capabilities.js";
import { send } from "../core/client.js";
import { h, render } from "../core/dom.js";
import { Poller } from "../core/poller.js";
import { dueText } from "../core/schedules.js";
import { icon } from "../parts/icons.js";
import { emptyState, errorState, relativeTime, skeleton, tryNowButton } from "../parts/pieces.js";
import { operationLink } from "../parts/operation_parts.js";
import { scheduleForm } from "../parts/schedule_form.js";

const REFRESH = 5000;

export class SchedulesView {
  constructor(container, { query }, shell) {
    this.container = container;
    this.shell = shell;
    render(container, skeleton("Loading the schedules", 5));
    if (query.has("new")) this.readForm();
    else this.poller = new Poller((signal) => this.read(signal), () => REFRESH, (error) => this.failed(error)).start();
  }

  stop() {
    this.isStopped = true;
    this.poller?.stop();
  }

  async readForm() {
    this.shell.setTitle("New schedule");
    try {
      const document = await openapi();
      if (this.isStopped) return;
      render(this.container, h("header", { class: "page-head" }, h("h1", {}, "New schedule")), scheduleForm({ document, shell: this.shell }));
    } catch (error) {
      if (!this.isStopped) this.failed(error);
    }
  }

  async read(signal) {
    this.schedules = (await send("GET", "schedules", { signal })).data.value;
    this.error = undefined;
    this.draw();
  }

  failed(error) {
    this.error = error;
    this.draw();
    this.shell.credentialsRefused(error);
  }

  draw() {
    const { error, schedules } = this;
    const trouble = error && errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => (this.poller ? this.poller.wake() : this.readForm())));
    render(
      this.container,
      h(
        "header",
        { class: "page-head" },
        h("h1", {}, "Schedules"),
        h("p", { class: "dim count" }, schedules?.length ? schedules.length.toLocaleString() : ""),
        h("div", { class: "buttons last" }, h("a", { class: "button primary", href: "#/schedules?new" }, icon("plus"), "New schedule")),
      ),
      trouble,
      schedules && (schedules.length ? table(schedules) : emptyState("schedules", "No schedules", h("p", {}, "A schedule has an action begin again and again: by a cron expression, or at an interval."))),
    );
  }
}

function table(schedules) {
  return h(
    "section",
    { class: "panel" },
    h(
      "table",
      { class: "table stacked schedules" },
      h("thead", {}, h("tr", {}, ["Schedule", "Action", "Due", "Next", "Last"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, schedules.map(row)),
    ),
  );
}

function row(schedule) {
  const { name, action, resourceId, nextAt, last } = schedule;
  return h(
    "tr",
    { key: name, "data-row": true },
    h("th", { scope: "row" }, h("a", { href: `#/schedules/${name}` }, name)),
    h("td", {}, action, resourceId && h("span", { class: "dim" }, ` ${resourceId}`)),
    h("td", { class: "mono" }, dueText(schedule)),
    h("td", { "data-label": nextAt ? "Next" : undefined }, nextAt ? relativeTime(Date.parse(nextAt)) : scheduleBadge(schedule)),
    h("td", { "data-label": "Last" }, last ? [outcomeBadge(last), " ", h("span", { class: "dim" }, relativeTime(Date.parse(last.recordedAt)))] : h("span", { class: "dim" }, "not yet")),
  );
}

/** Return whether a schedule is active or paused, as a picture and a word. */
export function scheduleBadge({ status }) {
  return h("span", { class: "status", "data-schedule": status }, icon(status === "Paused" ? "pause" : "schedules"), status);
}

const OUTCOMES = {
  submitted: ["check", "Submitted"],
  refused: ["alert", "Refused"],
  missed: ["alert", "Missed"],
};

/** Return what became of a moment, as a picture and a word; what was submitted leads to its operation. */
export function outcomeBadge({ outcome, operationId, detail }) {
  const [picture, word] = OUTCOMES[outcome] ?? ["info", outcome];
  const badge = h("span", { class: "status", "data-outcome": outcome, title: detail }, icon(picture), word);
  return operationId ? h("a", { href: `#/operations/${encodeURIComponent(operationId)}`, title: operationId }, badge) : badge;
}

/** Return the link to the operation of a moment, if it has one. */
export function occurrenceLink({ operationId }) {
  return operationId && operationLink(operationId);
}
