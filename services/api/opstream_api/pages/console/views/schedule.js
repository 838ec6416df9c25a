// A schedule's page: when it is due next, what became of its moments, and what can be done with it.

import { openapi } from "../core/capabilities.js";
import { now, send } from "../core/client.js";
import { h, render } from "../core/dom.js";
import { Poller } from "../core/poller.js";
import { dueText, inputJson, localField } from "../core/schedules.js";
import { moment } from "../core/time.js";
import { confirmAct } from "../parts/dialogs.js";
import { icon } from "../parts/icons.js";
import { jsonView } from "../parts/json_view.js";
import { errorState, relativeTime, skeleton, statusBadge, toast, tryNowButton } from "../parts/pieces.js";
import { scheduleForm } from "../parts/schedule_form.js";
import { occurrenceLink, outcomeBadge, scheduleBadge } from "./schedules.js";

const REFRESH = 5000;
const COMING = 10;
const DAY = 86_400_000;
/** Moments of which the page shows how their operations stand. */
const WITH_STATUS = 10;
const ENDED = new Set(["Succeeded", "Failed", "Canceled"]);
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short" });

export class ScheduleView {
  constructor(container, { path: [name], query }, shell) {
    this.container = container;
    this.shell = shell;
    this.name = name;
    this.path = `schedules/${encodeURIComponent(name)}`;
    this.isEditing = query.has("edit");
    this.statuses = new Map();
    shell.setTitle(name);
    render(container, skeleton("Loading the schedule", 6));
    this.poller = new Poller((signal) => this.read(signal), () => (this.isEditing && this.schedule ? Infinity : REFRESH), (error) => this.failed(error)).start();
  }

  stop() {
    this.poller.stop();
  }

  async read(signal) {
    const [one, coming, history] = await Promise.all([
      send("GET", this.path, { signal }),
      send("GET", `${this.path}:preview?count=${COMING}`, { signal }),
      send("GET", `${this.path}/history`, { signal }),
    ]);
    this.schedule = one.data;
    this.text = one.text;
    this.coming = coming.data.value;
    this.history = history.data.value.reverse();
    this.error = undefined;
    if (this.isEditing) {
      const document = await openapi();
      if (!signal.aborted) this.drawForm(document);
      return;
    }
    await this.readStatuses(signal);
    this.draw();
  }

  /** Ask how the newest operations stand; what has ended is not asked for again. */
  async readStatuses(signal) {
    const ids = this.history.map(({ operationId }) => operationId).filter(Boolean).slice(0, WITH_STATUS);
    await Promise.all(
      ids
        .filter((id) => !ENDED.has(this.statuses.get(id)))
        .map(async (id) => {
          try {
            const { data } = await send("GET", `status/${encodeURIComponent(id)}`, { signal, headers: { Prefer: "wait=0" } });
            this.statuses.set(id, data.status);
          } catch (error) {
            if (error.kind !== "missing") throw error; // its retention is over
          }
        }),
    );
  }

  failed(error) {
    this.error = error;
    this.draw();
    this.shell.credentialsRefused(error);
  }

  drawForm(document) {
    const { name, schedule, text, shell } = this;
    render(this.container, h("header", { class: "page-head" }, h("h1", {}, `Change ${name}`)), this.takesOver(), scheduleForm({ document, shell, name, known: schedule, text }));
  }

  /** Whoever saves a schedule is who it belongs to from then on, which is worth a line. */
  takesOver() {
    return this.schedule.caller && h("p", { class: "prose" }, `It begins operations in the name of ${this.schedule.caller}. The caller that saves it has it begin them in its own name.`);
  }

  draw() {
    const { schedule, error } = this;
    const trouble = error && errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.poller.wake()));
    if (!schedule) {
      render(this.container, h("h1", { class: "hidden" }, `Schedule ${this.name}`), trouble ?? skeleton("Loading the schedule", 6));
      return;
    }
    render(
      this.container,
      h("header", { class: "page-head" }, h("div", { class: "title" }, h("h1", {}, schedule.name), h("p", { class: "dim" }, schedule.action, schedule.resourceId && ` ${schedule.resourceId}`)), h("div", { class: "buttons" }, this.acts())),
      trouble,
      this.glance(),
      this.pausedBecause(),
      h(
        "div",
        { class: "columns" },
        h("div", { class: "wide" }, this.historyPanel(), jsonView("input", "Input", inputJson(this.text))),
        h("aside", { class: "narrow", "aria-label": "Details" }, this.comingPanel(), this.facts()),
      ),
    );
  }

  acts() {
    const isPaused = this.schedule.status === "Paused";
    const button = (name, text, act, properties = {}) => h("button", { type: "button", key: name, ...properties, on: { click: act } }, text);
    return [
      button("trigger", "Trigger now…", () => this.trigger(), { class: "primary" }),
      isPaused ? button("resume", "Resume…", () => this.resume()) : button("pause", "Pause…", () => this.pause()),
      button("backfill", "Backfill…", () => this.backfill()),
      h("a", { class: "button", key: "edit", href: `#/schedules/${this.name}?edit` }, "Change"),
      button("delete", "Delete…", () => this.remove()),
    ];
  }

  glance() {
    const { schedule } = this;
    const cell = (name, value) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value));
    return h(
      "dl",
      { class: "glance", "aria-label": "At a glance" },
      cell("Status", scheduleBadge(schedule)),
      cell("Due", h("span", { class: "mono" }, dueText(schedule))),
      cell("Next", schedule.nextAt ? relativeTime(Date.parse(schedule.nextAt)) : "while it is paused, never"),
      cell("Last", schedule.last ? outcomeBadge(schedule.last) : "not yet"),
      schedule.caller && cell("In the name of", schedule.caller),
    );
  }

  pausedBecause() {
    const why = this.schedule.pausedBecause;
    if (!why) return undefined;
    return h("section", { class: "callout warn", key: "paused", "aria-label": "Why it is paused" }, icon("pause"), h("div", {}, h("h2", {}, "opstream has paused it"), h("p", {}, `${why}. It goes on when it is resumed, or saved again.`)));
  }

  comingPanel() {
    const isPaused = this.schedule.status === "Paused";
    const row = (text) => {
      const at = Date.parse(text);
      return h("li", { key: text }, h("time", { datetime: text, title: text }, `${WEEKDAY.format(at)}, ${moment(at)}`), h("span", { class: "dim" }, relativeTime(at)));
    };
    return h(
      "section",
      { class: "panel coming", "aria-label": "Next moments", key: "coming" },
      h("header", {}, h("h2", {}, `Next ${this.coming.length}`), h("span", { class: "dim" }, isPaused ? "if it were not paused" : "your time")),
      this.coming.length ? h("ol", {}, this.coming.map(row)) : h("p", { class: "none dim" }, "None: this expression has no further moment."),
    );
  }

  historyPanel() {
    return h(
      "section",
      { class: "panel", "aria-label": "History", key: "history" },
      h("header", {}, h("h2", {}, "History"), h("span", { class: "dim" }, this.history.length ? `${this.history.length} moments` : "")),
      this.history.length
        ? h(
            "table",
            { class: "table stacked moments" },
            h("thead", {}, h("tr", {}, ["Due", "Outcome", "Operation", "Cause"].map((name) => h("th", { scope: "col" }, name)))),
            h("tbody", {}, this.history.map((record) => this.historyRow(record))),
          )
        : h("p", { class: "none dim" }, "It has not been due yet."),
    );
  }

  historyRow(record) {
    const status = this.statuses.get(record.operationId);
    const by = `${record.cause ?? "schedule"}${record.by ? ` by ${record.by}` : ""}`;
    return h(
      "tr",
      { key: `${record.recordedAt}${record.operationId ?? ""}`, "data-row": record.operationId ? true : undefined },
      h("td", {}, h("time", { datetime: record.dueAt, title: record.dueAt }, moment(Date.parse(record.dueAt)))),
      h("td", {}, status ? statusBadge(status) : outcomeBadge({ ...record, operationId: undefined }), record.detail && h("p", { class: "dim small-text" }, record.detail)),
      h("td", {}, record.operationId && h("p", { class: "cut", title: record.operationId }, occurrenceLink(record))),
      h("td", { class: "dim" }, by),
    );
  }

  facts() {
    const { schedule } = this;
    const time = (text) => h("time", { datetime: text, title: text }, moment(Date.parse(text)));
    const rows = [
      ["Action", h("a", { class: "mono", href: `#/actions/${encodeURIComponent(schedule.action)}` }, schedule.action)],
      ["Resource id", schedule.resourceId && h("span", { class: "mono" }, schedule.resourceId)],
      ["After a failure", schedule.pauseOnFailure ? "it pauses" : "it goes on"],
      ["Made", time(schedule.createdAt)],
      ["Changed", time(schedule.changedAt)],
    ];
    return h(
      "section",
      { class: "panel facts-panel" },
      h("header", {}, h("h2", {}, "Details")),
      h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    );
  }

  async act(given, done) {
    const answer = await confirmAct(given);
    if (!answer) return;
    done(answer.data);
    this.poller.wake();
  }

  trigger() {
    return this.act(
      { title: "Have an operation begin now?", text: "It is one more, and changes nothing of when the schedule is due.", verb: "Trigger", path: `${this.path}:trigger` },
      ({ id }) => { location.hash = `#/operations/${encodeURIComponent(id)}`; },
    );
  }

  pause() {
    return this.act(
      { title: "Pause this schedule?", text: "Nothing begins before it is resumed, and what is due meanwhile is not made up for. What it has begun goes on.", verb: "Pause", path: `${this.path}:pause` },
      () => toast("The schedule is paused"),
    );
  }

  resume() {
    return this.act(
      { title: "Resume this schedule?", text: "What is due from now on begins.", verb: "Resume", path: `${this.path}:resume` },
      () => toast("The schedule goes on"),
    );
  }

  backfill() {
    const from = h("input", { id: "backfill-from", type: "datetime-local", required: true });
    const to = h("input", { id: "backfill-to", type: "datetime-local", required: true });
    from.value = localField(now() - DAY);
    to.value = localField(now());
    const instant = (field) => (field.value ? new Date(field.value).toISOString() : "");
    return this.act(
      {
        title: "Make up for a time that has passed?",
        text: "Each moment of it gets its operation, 100 at most. One that has had its operation gets no second one.",
        verb: "Backfill",
        path: `${this.path}:backfill`,
        fields: [h("label", { for: "backfill-from" }, "From"), from, h("label", { for: "backfill-to" }, "To"), to],
        json: () => JSON.stringify({ from: instant(from), to: instant(to) }),
      },
      ({ value }) => toast(`${value.filter(({ operationId }) => operationId).length} of ${value.length} moments have an operation now`),
    );
  }

  remove() {
    return this.act(
      { title: "Delete this schedule?", text: "Nothing more begins by it. What it has begun goes on, and keeps its history.", verb: "Delete the schedule", method: "DELETE", path: this.path, isGrave: true },
      () => {
        toast("The schedule is deleted");
        location.hash = "#/schedules";
      },
    );
  }
}
