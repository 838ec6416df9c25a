// The overview: what runs, what waits and why, what ended and failed in the last hour. All of it is read from lists.

import { now, send } from "../core/client.js";
import { h, render } from "../core/dom.js";
import { instant } from "../core/filter_completion.js";
import { listAddress, listPath, readPage } from "../core/list_reader.js";
import { byAction, failureCodes, minutes } from "../core/overview.js";
import { Poller } from "../core/poller.js";
import { clock, duration } from "../core/time.js";
import { reasonWord } from "../parts/advice.js";
import { barRows, columnChart } from "../parts/charts.js";
import { indexOff, isIndexOff } from "../parts/index_off.js";
import { emptyState, errorState, relativeTime, skeleton, statusBadge, tryNowButton } from "../parts/pieces.js";

const HOUR = 3_600_000;
const COLUMNS = 60;
const PAGES = 5;
const REFRESH = 5000;
const ASKED = 12;
/** Pixels between the edges of a panel and its chart. */
const CHART_PADDING = 34;
const SELECT = "id,status,kind,createdAt,startedAt,finishedAt,error";

export class OverviewView {
  constructor(container, _parameters, shell) {
    this.container = container;
    this.shell = shell;
    this.reasons = new Map();
    render(container, h("header", { class: "page-head" }, h("h1", {}, "Overview")), skeleton("Loading the overview", 6));
    this.poller = new Poller((signal) => this.read(signal), () => REFRESH, (error) => this.failed(error)).start();
  }

  stop() {
    this.poller.stop();
  }

  async read(signal) {
    const since = instant(now() - HOUR);
    const [requested, ended, open] = await Promise.all([
      this.all({ filter: `createdAt ge ${since}`, orderby: "createdAt desc" }, signal),
      this.all({ filter: `finishedAt ge ${since}`, orderby: "finishedAt desc" }, signal),
      this.all({ filter: "status in ('NotStarted', 'Running')", orderby: "createdAt" }, signal),
    ]);
    this.requested = requested;
    this.ended = ended;
    this.open = open;
    this.error = undefined;
    await this.readReasons(signal);
    this.draw();
  }

  async all(list, signal) {
    const found = { items: [], isWhole: true };
    let path = listPath({ ...list, size: 1000, select: SELECT });
    for (let page = 0; page < PAGES; page += 1) {
      const answer = await readPage(path, signal);
      found.items.push(...answer.items);
      path = answer.next;
      if (!path) return found;
    }
    found.isWhole = false;
    return found;
  }

  /** Ask the oldest that wait for their reason, which only a status has. */
  async readReasons(signal) {
    const oldest = this.open.items.filter((item) => item.status === "NotStarted").slice(0, ASKED);
    const found = await Promise.all(
      oldest.map(async (item) => {
        try {
          const { data } = await send("GET", `status/${encodeURIComponent(item.id)}`, { signal, headers: { Prefer: "wait=0" } });
          return data.status === "NotStarted" ? (data.blockedBy?.reason ?? data.waitingFor ?? "") : undefined;
        } catch (error) {
          if (error.kind === "missing") return undefined; // it has gone meanwhile
          throw error;
        }
      }),
    );
    this.reasons = new Map();
    for (const reason of found) if (reason !== undefined) this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
    this.asked = found.filter((reason) => reason !== undefined).length;
  }

  failed(error) {
    this.error = error;
    this.shell.credentialsRefused(error);
    this.draw();
  }

  draw() {
    const { error } = this;
    const head = h("header", { class: "page-head" }, h("h1", {}, "Overview"), h("p", { class: "dim count" }, "the last hour"));
    if (error && isIndexOff(error)) {
      render(this.container, head, indexOff());
      return;
    }
    const trouble = error && errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.poller.wake()));
    if (!this.open) {
      render(this.container, head, trouble);
      return;
    }
    if (!this.requested.items.length && !this.ended.items.length && !this.open.items.length) {
      render(this.container, head, trouble, emptyState("overview", "Nothing was requested and nothing has ended in the last hour", h("p", {}, h("a", { href: "#/operations" }, "Show all operations"), " or ", h("a", { href: "#/actions" }, "submit an action"))));
      return;
    }
    render(this.container, head, trouble, this.tiles(), this.rates(), h("div", { class: "halves" }, this.queues(), this.waiting(), this.failures(), this.times()));
  }

  padding() {
    const style = getComputedStyle(this.container);
    return Number.parseFloat(style.paddingLeft) + Number.parseFloat(style.paddingRight);
  }

  tiles() {
    const open = this.open.items;
    const ended = this.ended.items;
    const failed = ended.filter((item) => item.status === "Failed").length;
    const waiting = open.filter((item) => item.status === "NotStarted");
    const inFive = ended.filter((item) => Date.parse(item.finishedAt) > now() - 300_000).length / 5;
    const more = (found, text) => (found.isWhole ? text : `${text}+`);
    return h(
      "dl",
      { class: "glance tiles", "aria-label": "Now" },
      tile("Running", more(this.open, (open.length - waiting.length).toLocaleString()), listAddress("status eq 'Running'")),
      tile("Waiting", more(this.open, waiting.length.toLocaleString()), listAddress("status eq 'NotStarted'", "createdAt")),
      tile("Oldest that waits", waiting[0] ? relativeTime(Date.parse(waiting[0].createdAt)) : "none", waiting[0] && `#/operations/${encodeURIComponent(waiting[0].id)}`),
      tile("Ended per minute", inFive >= 10 ? Math.round(inFive).toLocaleString() : inFive.toFixed(1)),
      tile("Failed", failed ? `${failed.toLocaleString()} (${((failed / ended.length) * 100).toFixed(failed / ended.length < 0.1 ? 1 : 0)} %)` : "none", failed ? failedAddress() : undefined),
    );
  }

  rates() {
    const { requested, ended } = this;
    const isWhole = requested.isWhole && ended.isWhole;
    const columns = minutes(requested.items, ended.items, now(), COLUMNS).map(({ minute, requested: begun, ...parts }) => ({
      label: clock(minute * 60_000).slice(0, 5),
      parts,
      line: begun,
      title: `${clock(minute * 60_000).slice(0, 5)}: ${begun} requested, ${parts.Succeeded} succeeded, ${parts.Failed} failed, ${parts.Canceled} canceled`,
    }));
    const names = {
      parts: [["Succeeded", "Succeeded"], ["Failed", "Failed"], ["Canceled", "Canceled"]],
      line: "Requested",
      label: `Operations per minute in the last hour. ${requested.items.length} were requested, ${ended.items.length} ended.`,
    };
    return panel("Per minute", isWhole ? "" : `of the newest ${Math.max(requested.items.length, ended.items.length).toLocaleString()}`, columnChart(columns, names, Math.max(this.container.clientWidth - this.padding() - CHART_PADDING, 280)));
  }

  queues() {
    const open = byAction(this.open.items, []).filter(({ running, waiting }) => running + waiting > 0);
    const rows = open.slice(0, 10).map(({ kind, running, waiting, oldest }) => ({
      name: kind,
      note: oldest && `the oldest waits for ${duration(now() - oldest)}`,
      parts: [["running", running], ["queued", waiting]],
      text: [running && `${running.toLocaleString()} running`, waiting && `${waiting.toLocaleString()} waiting`].filter(Boolean).join(" · "),
      href: listAddress(`kind eq '${kind}' and status in ('NotStarted', 'Running')`),
    }));
    return panel("Open, by action", "", rows.length ? barRows(rows, "Open operations by action") : h("p", { class: "none dim" }, "Nothing is open."));
  }

  waiting() {
    const rows = [...this.reasons].sort((one, other) => other[1] - one[1]).map(([reason, count]) => ({ name: reasonWord(reason), parts: [["planned", count]], text: String(count) }));
    return panel("Why they wait", this.asked ? `the ${this.asked} oldest` : "", rows.length ? barRows(rows, "Reasons") : h("p", { class: "none dim" }, "Nothing waits."));
  }

  failures() {
    const rows = failureCodes(this.ended.items).slice(0, 8).map(([code, count]) => ({
      name: h("span", { class: "mono" }, code),
      parts: [["failed", count]],
      text: count.toLocaleString(),
      href: listAddress(`error/code eq '${code.replaceAll("'", "''")}' and finishedAt ge ${instant(now() - HOUR)}`),
    }));
    return panel("Failures, by code", "", rows.length ? barRows(rows, "Failures by code") : h("p", { class: "none dim" }, statusBadge("Succeeded"), " Nothing has failed."));
  }

  times() {
    const rows = byAction([], this.ended.items).filter(({ median }) => median !== undefined).sort((one, other) => other.slow - one.slow).slice(0, 8);
    const table = h(
      "table",
      { class: "times" },
      h("thead", {}, h("tr", {}, ["Action", "Median", "95 %", "Ended", "Failed"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(({ kind, median, slow, ended, failed }) => h("tr", {}, h("th", { scope: "row" }, h("a", { href: `#/actions/${encodeURIComponent(kind)}` }, kind)), [duration(median), duration(slow), ended.toLocaleString(), failed.toLocaleString()].map((text) => h("td", {}, text))))),
    );
    return panel("Slowest actions", "from start to end", rows.length ? table : h("p", { class: "none dim" }, "Nothing has ended."));
  }
}

function failedAddress() {
  return listAddress(`status eq 'Failed' and finishedAt ge ${instant(now() - HOUR)}`);
}

function tile(name, value, href) {
  return h("div", { key: name }, h("dt", {}, name), h("dd", {}, href ? h("a", { href }, value) : value));
}

function panel(title, note, ...children) {
  return h("section", { class: "panel chart-panel", "aria-label": title, key: title }, h("header", {}, h("h2", {}, title), note && h("span", { class: "dim" }, note)), children);
}
