// What did not reach others: failed webhook deliveries, and events that subscribers put aside; both can be tried again.

import { h, render } from "../core/dom.js";
import { readPages } from "../core/pages.js";
import { Poller } from "../core/poller.js";
import { confirmAct, confirmAll } from "../parts/dialogs.js";
import { icon } from "../parts/icons.js";
import { operationLink } from "../parts/operation_parts.js";
import { errorState, relativeTime, skeleton, statusBadge, toast, tryNowButton } from "../parts/pieces.js";

const REFRESH = 5000;
/** Milliseconds for a list of which the page does not read all. */
const SLOW_REFRESH = 30_000;
const PAGES = 5;
/** Rows that are added at once. */
const ROWS = 100;
/** Milliseconds that a subscriber has to handle an event. */
const HANDLING = 45_000;
const OUTCOMES = { "gave-up": ["Failed", "Given up"], retrying: ["retry", "Retrying"] };

export class UndeliveredView {
  constructor(container, _parameters, shell) {
    this.container = container;
    this.shell = shell;
    /** The time of the last attempt of each delivery that was asked for here, by its path. */
    this.asked = new Map();
    this.most = ROWS;
    render(container, h("header", { class: "page-head" }, h("h1", {}, "Undelivered")), skeleton("Loading what was not delivered", 5));
    this.poller = new Poller((signal) => this.read(signal), () => (this.deliveries?.isWhole === false ? SLOW_REFRESH : REFRESH), (error) => this.failed(error)).start();
  }

  stop() {
    this.poller.stop();
  }

  async read(signal) {
    [this.deliveries, this.parked] = await Promise.all([readPages("webhooks/deliveries", PAGES, signal), readPages("subscribers/parked", PAGES, signal)]);
    this.deliveries.items.reverse(); // the newest failures first
    this.error = undefined;
    this.draw();
  }

  failed(error) {
    this.error = error;
    this.draw();
    this.shell.credentialsRefused(error);
  }

  draw() {
    const { error, deliveries, parked } = this;
    const trouble = error && errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.poller.wake()));
    render(this.container, h("header", { class: "page-head" }, h("h1", {}, "Undelivered")), trouble, deliveries && this.deliveriesPanel(deliveries), parked && this.parkedPanel(parked));
  }

  deliveriesPanel({ items, isWhole }) {
    const endpoints = Map.groupBy(items, ({ endpoint }) => endpoint);
    const all = [...endpoints].map(([endpoint, found]) =>
      h("button", { type: "button", class: "chip", key: endpoint, on: { click: () => this.sendAll(endpoint, found) } }, `Send all to ${endpoint} again…`),
    );
    return h(
      "section",
      { class: "panel", "aria-label": "Webhook deliveries", key: "deliveries" },
      h("header", {}, h("h2", {}, "Webhook deliveries that failed"), h("span", { class: "dim" }, count(items, isWhole))),
      items.length > 1 && h("div", { class: "chips above" }, all),
      items.length
        ? h(
            "table",
            { class: "table stacked deliveries" },
            h("thead", {}, h("tr", {}, ["Delivery", "Endpoint", "Last attempt", "Why", ""].map((name) => (name ? h("th", { scope: "col" }, name) : h("td", {}))))),
            h("tbody", {}, items.slice(0, this.most).map((item) => this.deliveryRow(item))),
          )
        : isWhole
          ? nothing("Every outcome that was to be delivered has been, or is on its way for the first time.")
          : h("p", { class: "none dim" }, "There are more records of attempts than this page reads, and the oldest of them are all settled. See ", h("code", {}, "opstream deliveries --failed"), "."),
      this.moreButton(items),
    );
  }

  deliveryRow(item) {
    const [picture, word] = OUTCOMES[item.outcome] ?? ["info", item.outcome];
    const path = deliveryPath(item);
    const isAsked = this.asked.get(path) === item.at;
    return h(
      "tr",
      { key: path, "data-row": true },
      h("td", {}, h("span", { class: "status", "data-outcome": item.outcome }, icon(picture), word), h("span", { class: "dim" }, ` ${item.action}, ${item.event}`), h("p", { class: "cut small-text" }, operationLink(item.operationId))),
      h("td", {}, item.endpoint, item.url && h("p", { class: "dim small-text cut", title: item.url }, item.url)),
      h("td", {}, relativeTime(Date.parse(item.at)), h("p", { class: "dim small-text" }, `attempt ${item.attempt}`, item.nextAt && [", next ", relativeTime(Date.parse(item.nextAt))])),
      h("td", { class: "break" }, item.error || `answered ${item.status}`),
      h("td", { class: "act" }, isAsked ? h("span", { class: "dim" }, "asked for") : h("button", { type: "button", on: { click: () => this.send(item) } }, "Send again…")),
    );
  }

  parkedPanel({ items, isWhole }) {
    return h(
      "section",
      { class: "panel", "aria-label": "Parked events", key: "parked" },
      h("header", {}, h("h2", {}, "Events that subscribers could not handle"), h("span", { class: "dim" }, count(items, isWhole))),
      items.length
        ? h(
            "table",
            { class: "table stacked parked" },
            h("thead", {}, h("tr", {}, ["Event", "Subscriber", "Tried", "Why", ""].map((name) => (name ? h("th", { scope: "col" }, name) : h("td", {}))))),
            h("tbody", {}, items.slice(0, this.most).map((item) => this.parkedRow(item))),
          )
        : nothing("No subscriber has put an event aside."),
      this.moreButton(items),
    );
  }

  moreButton({ length }) {
    if (length <= this.most) return undefined;
    const more = () => {
      this.most += ROWS;
      this.draw();
    };
    return h("p", { class: "more", key: "more" }, h("button", { type: "button", class: "quiet", on: { click: more } }, `Show more of ${length.toLocaleString()}`));
  }

  parkedRow(item) {
    return h(
      "tr",
      { key: parkedPath(item), "data-row": true },
      h("td", {}, statusOf(item.event), h("span", { class: "dim" }, ` ${item.action}`), h("p", { class: "cut small-text" }, operationLink(item.operationId))),
      h("td", {}, item.durable, h("p", { class: "dim small-text mono" }, String(item.sequence))),
      h("td", {}, item.deliveries === 1 ? "once" : `${item.deliveries}\u00a0times`),
      h("td", {}, h("span", { class: "mono" }, item.reason), item.detail && h("p", { class: "small-text break" }, item.detail)),
      h("td", { class: "act" }, h("button", { type: "button", on: { click: () => this.handle(item) } }, "Handle again…")),
    );
  }

  async send(item) {
    const path = deliveryPath(item);
    const answer = await confirmAct({
      title: "Send it again?",
      text: `The outcome of ${item.operationId} is sent to ${item.endpoint} now, with as many attempts as a new one. The receiver knows a repetition by its webhook-id, which stays the same.`,
      verb: "Send again",
      path: `${path}:redeliver`,
    });
    if (!answer) return;
    this.asked.set(path, item.at);
    toast("The webhooks service sends it again");
    this.poller.wake();
  }

  async sendAll(endpoint, items) {
    const done = await confirmAll({
      title: items.length === 1 ? `Send one delivery to ${endpoint} again?` : `Send ${items.length.toLocaleString()} deliveries to ${endpoint} again?`,
      text: "One after the other, each now, with as many attempts as a new one. Receivers know a repetition by its webhook-id, which stays the same.",
      verb: "Send them again",
      paths: items.map((item) => `${deliveryPath(item)}:redeliver`),
    });
    for (const item of items) if (done.has(`${deliveryPath(item)}:redeliver`)) this.asked.set(deliveryPath(item), item.at);
    this.poller.wake();
  }

  async handle(item) {
    const answer = await confirmAct({
      title: "Handle it again?",
      text: `A running process of the subscriber ${item.durable} handles the event now. If it does, the event is not parked any more.`,
      verb: "Handle again",
      path: `${parkedPath(item)}:retry`,
      timeout: HANDLING,
    });
    if (!answer) return;
    toast("The subscriber has handled it");
    this.poller.wake();
  }
}

function deliveryPath({ operationId, endpoint }) {
  return `webhooks/deliveries/${encodeURIComponent(operationId)}/${endpoint}`;
}

function parkedPath({ durable, sequence }) {
  return `subscribers/parked/${durable}/${sequence}`;
}

function count(items, isWhole) {
  return items.length ? `${items.length.toLocaleString()}${isWhole ? "" : " and more"}` : "";
}

function nothing(text) {
  return h("p", { class: "none dim" }, h("span", { class: "status", "data-status": "Succeeded" }, icon("Succeeded"), text));
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** Return an outcome as its status, and any other event by its name. */
function statusOf(event) {
  return ["succeeded", "failed", "canceled"].includes(event) ? statusBadge(capital(event)) : h("span", { class: "status" }, icon("info"), event);
}
