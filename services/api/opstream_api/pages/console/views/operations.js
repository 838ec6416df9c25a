// The list of operations: a filter in the API's own language, rows as many as there are, the newest first.

import { openapi } from "../core/capabilities.js";
import { now } from "../core/client.js";
import { h, render } from "../core/dom.js";
import { instant } from "../core/filter_completion.js";
import { largePage, listAddress, listPath, merged, readPage } from "../core/list_reader.js";
import { Poller } from "../core/poller.js";
import { duration } from "../core/time.js";
import { actionsOf } from "../core/actions.js";
import { bulkActs, bulkButton, doToAll } from "../parts/bulk_acts.js";
import { FilterBar } from "../parts/filter_bar.js";
import { indexOff, isIndexOff } from "../parts/index_off.js";
import { emptyState, errorState, relativeTime, skeleton, statusBadge, tryNowButton } from "../parts/pieces.js";
import { VirtualRows } from "../parts/virtual_rows.js";

const REFRESH = 5000;
const MOST = 50_000;
const HOUR = 3_600_000;
const ORDERS = [
  ["createdAt desc", "Requested last"],
  ["createdAt", "Requested first"],
  ["finishedAt desc", "Ended last"],
];

/** Filters that are one click away. */
function presets() {
  return [
    ["All", "", ""],
    ["Running", "status eq 'Running'", ""],
    ["Waiting", "status eq 'NotStarted'", "createdAt"],
    ["Failed in the last hour", `status eq 'Failed' and finishedAt ge ${instant(now() - HOUR)}`, "finishedAt desc"],
    ["Failed", "status eq 'Failed'", ""],
    ["Canceled", "status eq 'Canceled'", ""],
  ];
}

export class OperationsView {
  constructor(container, { query }, shell) {
    this.container = container;
    this.shell = shell;
    this.filter = query.get("filter") ?? "";
    this.orderby = query.get("orderby") || "createdAt desc";
    this.items = [];
    this.next = undefined;
    this.lag = 0;
    this.kinds = [];
    this.bar = new FilterBar(this.filter, () => this.known(), (text) => this.apply(text));
    this.rows = new VirtualRows({
      height: 38,
      label: "Operations",
      columns: ["Status", "Action", "Resource", "Asked by", "Requested", "Took", "Error"],
      row: (item) => cells(item),
      address: (item) => `#/operations/${encodeURIComponent(item.id)}`,
      atEnd: () => this.more(),
    });
    this.tools = h("div", { class: "tools" });
    this.notice = h("div", { class: "notice" });
    this.count = h("p", { class: "dim count", role: "status" });
    render(container, h("header", { class: "page-head" }, h("h1", {}, "Operations"), this.count), this.tools, this.notice);
    container.append(this.bar.element, this.rows.table);
    container.insertBefore(this.bar.element, this.notice);
    this.rows.table.hidden = true;
    render(this.notice, skeleton("Loading the list", 5));
    this.poller = new Poller((signal) => this.read(signal), () => REFRESH, (error) => this.failed(error)).start();
    this.acts = [];
    bulkActs().then((acts) => { this.acts = acts; this.drawTools(); }, () => {});
    openapi().then((document) => { this.kinds = actionsOf(document).map((action) => action.kind); }, () => {});
    this.drawTools();
  }

  stop() {
    this.poller.stop();
    this.rows.stop();
  }

  known() {
    const values = {};
    const labels = new Set();
    for (const item of this.items.slice(0, 1000)) {
      for (const [name, value] of [["caller", item.caller], ["resourceId", item.resourceId], ["error/code", item.error?.code], ["attempt", item.attempt], ["version", item.version]]) {
        if (value !== undefined) (values[name] ??= new Set()).add(value);
      }
      for (const [key, value] of Object.entries(item.labels ?? {})) {
        labels.add(key);
        (values[`label/${key}`] ??= new Set()).add(value);
      }
    }
    const lists = Object.fromEntries(Object.entries(values).map(([name, found]) => [name, [...found]]));
    return { kinds: this.kinds, labels: [...labels], values: lists, now: now() };
  }

  /** Go to the address of another filter or order; the view begins again there. */
  apply(filter, orderby = this.orderby) {
    const address = listAddress(filter, orderby === "createdAt desc" ? "" : orderby);
    if (location.hash === address) this.poller.wake();
    else location.hash = address;
  }

  async read(signal) {
    if (this.items.length && !this.rows.isAtTop) return; // a reader in the middle keeps the place
    const path = listPath({ filter: this.filter, orderby: this.orderby });
    const page = await readPage(path, signal);
    const isFirst = this.next === undefined;
    this.items = isFirst || page.items.length === 0 || !page.next ? page.items : merged(this.items, page.items);
    if (isFirst || !page.next) this.next = page.next;
    this.lag = page.lag;
    this.error = undefined;
    this.bar.complain("");
    this.show();
  }

  async more() {
    if (!this.next || this.isReading || this.items.length >= MOST) return;
    this.isReading = true;
    try {
      const page = await readPage(largePage(this.next), this.poller.stopped.signal);
      const known = new Set(this.items.map((item) => item.id));
      this.items = [...this.items, ...page.items.filter((item) => !known.has(item.id))];
      this.next = page.next;
      this.show();
    } catch (error) {
      if (!this.poller.stopped.signal.aborted) this.failed(error);
    } finally {
      this.isReading = false;
    }
  }

  failed(error) {
    this.shell.credentialsRefused(error);
    this.error = error;
    if (error.code === "InvalidParameter") {
      this.bar.complain(error.message);
      this.poller.pause = () => Infinity;
    }
    this.show();
  }

  show() {
    const { error, items } = this;
    const isRefused = error?.code === "InvalidParameter";
    this.rows.table.hidden = items.length === 0;
    render(this.notice, this.noticeFor(error, isRefused));
    this.count.textContent = error && !items.length ? "" : `${items.length.toLocaleString()}${this.next ? " and more" : ""}${this.lag >= 2 ? ` · the index is ${duration(this.lag * 1000)} behind` : ""}`;
    this.rows.show(items);
  }

  noticeFor(error, isRefused) {
    if (error && isIndexOff(error)) return indexOff(error);
    if (isRefused) return undefined;
    if (error) return errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.poller.wake()));
    if (this.items.length) return undefined;
    return this.filter
      ? emptyState("search", "No operation fits this filter", h("p", {}, h("a", { href: "#/operations" }, "Show all")))
      : emptyState("list", "No operations yet", h("p", {}, "What is submitted appears here."));
  }

  drawTools() {
    render(
      this.tools,
      h(
        "div",
        { class: "chips", role: "group", "aria-label": "Filters" },
        presets().map(([name, filter, orderby]) => {
          const isChosen = shape(filter) === shape(this.filter);
          return h("button", { type: "button", class: "chip", "aria-pressed": String(isChosen), on: { click: () => this.apply(filter, orderby || "createdAt desc") } }, name);
        }),
      ),
      this.filter && this.acts.length > 0 && h("div", { class: "buttons last", key: "acts" }, this.acts.map((name) => bulkButton(name, () => this.doToAll(name)))),
      h(
        "label",
        { class: "order" },
        h("span", { class: "hidden" }, "Order"),
        h(
          "select",
          { on: { change: (event) => this.apply(this.filter, event.target.value) } },
          ORDERS.map(([value, name]) => h("option", { value, selected: value === this.orderby }, name)),
        ),
      ),
    );
  }

  async doToAll(name) {
    try {
      const id = await doToAll(name, this.filter);
      if (id) location.hash = `#/operations/${encodeURIComponent(id)}`;
    } catch (error) {
      this.failed(error);
    }
  }

  move(step) {
    this.rows.move(step);
    return true;
  }

  key(name) {
    if (name !== "f") return false;
    this.bar.focus();
    return true;
  }
}

/** Return a filter without its times, so that a preset is recognised an hour later. */
function shape(filter) {
  return filter.replaceAll(/\d{4}-[\dT:.Z+-]+/g, "");
}

function cells(item) {
  const begun = Date.parse(item.createdAt);
  const ended = item.finishedAt ? Date.parse(item.finishedAt) : undefined;
  return [
    [statusBadge(item.status), h("span", { class: "hidden" }, ` ${item.id}`)],
    h("span", { title: item.kind }, item.kind),
    h("span", { class: "mono", title: item.resourceId }, item.resourceId ?? ""),
    h("span", { title: item.caller }, item.caller ?? ""),
    relativeTime(begun),
    ended === undefined ? "" : duration(ended - (item.startedAt ? Date.parse(item.startedAt) : begun)),
    item.error ? h("span", { title: item.error.message }, h("span", { class: "mono" }, String(item.error.code)), h("span", { class: "dim" }, ` ${item.error.message}`)) : "",
  ];
}
