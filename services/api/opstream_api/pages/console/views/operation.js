// An operation's page: its status is polled, its events come as they are stored, and both stop while the page is hidden.

import { follow, now, send } from "../core/client.js";
import { hasPath } from "../core/capabilities.js";
import { CAN_HASH, checkChain, sha256, storedText } from "../core/chain.js";
import { h, render } from "../core/dom.js";
import { buildLife, readEvent } from "../core/history.js";
import { Poller } from "../core/poller.js";
import { confirmAct, reasonField } from "../parts/dialogs.js";
import { history } from "../parts/history.js";
import { callouts, facts, glance, heading } from "../parts/operation_parts.js";
import { jsonView } from "../parts/json_view.js";
import { errorState, skeleton, statusWord, toast, tryNowButton } from "../parts/pieces.js";
import { signalAct } from "../parts/signal_form.js";
import { timeline } from "../parts/timeline.js";
import { remember } from "../core/recent.js";

const ENDED = new Set(["Succeeded", "Failed", "Canceled"]);
const RETRIABLE = new Set(["Failed", "Canceled"]);
const STORED_ID = "Operation-Stored-Id";

export class OperationView {
  constructor(container, { path: [id] }, shell) {
    this.container = container;
    this.shell = shell;
    this.id = id;
    this.path = `status/${encodeURIComponent(id)}`;
    this.monitor = undefined;
    this.events = [];
    this.chain = { state: CAN_HASH ? "checking" : "impossible", findings: [], begin: 1 };
    this.storedId = "";
    this.error = undefined;
    this.canRetry = false;
    this.isExpanded = false;
    this.status = new Poller((signal) => this.readStatus(signal), () => this.pause(), (error) => this.failed(error));
    this.stream = new Poller((signal) => this.readEvents(signal), () => (this.isComplete() ? Infinity : 800), (error) => this.streamFailed(error), true);
    this.clock = setInterval(() => this.isLive() && !document.hidden && this.show(), 1000);
    shell.setTitle(id);
    render(container, skeleton("Loading the operation", 6));
    this.status.start();
    this.stream.start();
    hasPath("/status/{}:retry").then((found) => { this.canRetry = found; this.show(); }, () => {});
  }

  stop() {
    this.status.stop();
    this.stream.stop();
    clearInterval(this.clock);
  }

  readNow() {
    this.status.wake();
    this.stream.wake();
  }

  isLive() {
    return this.monitor !== undefined && !ENDED.has(this.monitor.status);
  }

  isRetriable() {
    return this.canRetry && RETRIABLE.has(this.monitor?.status);
  }

  isComplete() {
    return Boolean(this.events.at(-1)?.isOutcome);
  }

  pause() {
    if (this.error && !this.monitor) return 3000;
    if (!this.isLive()) return this.isComplete() ? Infinity : 2000;
    return this.monitor.status === "NotStarted" || this.monitor.retryAt ? 1000 : 2500;
  }

  async readStatus(signal) {
    const answer = await send("GET", this.path, { signal, headers: { Prefer: "wait=0" } });
    const before = this.monitor?.status;
    this.monitor = answer.data;
    this.raw = answer.text;
    this.error = undefined;
    if (before && before !== this.monitor.status) this.shell.announce(`The operation is now ${statusWord(this.monitor.status)}`);
    if (!before) remember({ id: this.id, kind: this.monitor.kind });
    this.show();
  }

  async readEvents(signal) {
    const after = this.events.at(-1)?.position ?? 0;
    const opened = (headers) => { this.storedId = headers.get(STORED_ID) ?? ""; };
    for await (const frame of follow(`${this.path}/events`, { signal, after, opened })) {
      const event = readEvent(frame.data, frame.event);
      this.events.push(event);
      await this.check(event);
      this.status.wake();
      this.show();
    }
    this.stream.errors = 0;
  }

  async check(event) {
    if (!CAN_HASH) return;
    const hasOwnId = Boolean(this.events[0].data.ownId);
    if (hasOwnId && !this.storedId) {
      this.chain = { state: "foreign-subject", findings: [], begin: 1 };
      return;
    }
    event.hash = await sha256(storedText(event.text, this.id, this.storedId));
    const { verdict, findings, begin } = checkChain(this.events);
    this.chain = { state: verdict, findings, begin };
  }

  failed(error) {
    this.error = error;
    this.show();
    this.shell.credentialsRefused(error);
  }

  streamFailed(error) {
    if (this.monitor) this.failed(error);
  }

  show() {
    if (this.isShowing) return;
    this.isShowing = true;
    requestAnimationFrame(() => {
      this.isShowing = false;
      if (!this.stream.stopped.signal.aborted) this.draw();
    });
  }

  draw() {
    const { monitor, error } = this;
    const trouble = error && errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.readNow()));
    if (!monitor) {
      render(this.container, h("h1", { class: "hidden" }, `Operation ${this.id}`), trouble ?? skeleton("Loading the operation", 6));
      return;
    }
    this.shell.setTitle(`${monitor.kind} ${monitor.resourceId ?? ""}`.trim(), monitor.status);
    const life = buildLife(this.events, now());
    const request = life.request;
    render(
      this.container,
      heading(monitor, this.acts()),
      trouble,
      glance(monitor, life),
      h(
        "div",
        { class: "columns" },
        h(
          "div",
          { class: "wide" },
          callouts(monitor, life),
          this.events.length ? timeline(life, monitor) : this.hasStreamFailed() ? undefined : skeleton("Loading the history"),
          life.outcome?.payload !== undefined && jsonView("result", "Result", life.outcome.payload),
          request?.payload !== undefined && jsonView("input", "Input", request.payload),
          this.events.length > 0 && history(this.events, this.chain, this.isExpanded, () => { this.isExpanded = true; this.show(); }),
        ),
        h("aside", { class: "narrow", "aria-label": "Details" }, facts(monitor, life, this.id)),
      ),
    );
  }

  hasStreamFailed() {
    return this.stream.errors > 0;
  }

  acts() {
    const acts = [];
    if (this.isLive()) {
      const signal = this.monitor.blockedBy?.signal;
      if (signal) acts.push(h("button", { type: "button", key: "signal", class: "primary", on: { click: () => this.sendSignal(signal) } }, `Send ${signal.name}…`));
      acts.push(h("button", { type: "button", key: "cancel", "aria-keyshortcuts": "c", on: { click: () => this.cancel() }, disabled: this.monitor.cancelRequested }, this.monitor.cancelRequested ? "Cancel requested" : "Cancel…"));
    } else if (this.isRetriable()) {
      acts.push(h("button", { type: "button", key: "retry", "aria-keyshortcuts": "r", on: { click: () => this.retry() } }, "Do it again…"));
    }
    return acts;
  }

  async cancel() {
    if (!this.isLive() || this.monitor.cancelRequested) return;
    const runs = this.monitor.status === "Running";
    const answer = await confirmAct({
      title: "Cancel this operation?",
      text: runs
        ? "Its runner is asked to stop. The action decides how: it may clean up, and it may still succeed. Nothing is tried again."
        : "It has not begun, so it ends at once and its action is not called.",
      verb: "Cancel the operation",
      path: `${this.path}:cancel`,
      isGrave: true,
      ...reasonField("Optional; the history keeps it"),
    });
    if (!answer) return;
    this.monitor = answer.data;
    toast(this.isLive() ? "The cancel request is recorded" : "The operation is canceled");
    this.status.wake();
    this.show();
  }

  async sendSignal(signal) {
    const answer = await confirmAct(signalAct(this.path, signal));
    if (!answer) return;
    toast(`The signal ${signal.name} is recorded`);
    this.readNow();
  }

  async retry() {
    if (!this.isRetriable()) return;
    const answer = await confirmAct({
      title: "Do it again?",
      text: "A follow-up operation with the same input begins, in your name. This one stays as it is.",
      verb: "Begin the follow-up",
      path: `${this.path}:retry`,
    });
    if (answer) location.hash = `#/operations/${encodeURIComponent(answer.data.id)}`;
  }

  /** Keys of this page. */
  key(name) {
    if (name === "c") this.cancel();
    else if (name === "r") this.retry();
    else return false;
    return true;
  }
}
