// Begins the page: the frame around all views, the address after `#`, the keyboard.

import { forget } from "./core/capabilities.js";
import { health, healthNow } from "./core/client.js";
import { h, render } from "./core/dom.js";
import { listAddress } from "./core/list_reader.js";
import { chooseTheme, credentials, keepCredentials, theme, THEMES } from "./core/session.js";
import { askForCredentials, showShortcuts } from "./parts/dialogs.js";
import { icon } from "./parts/icons.js";
import { emptyState, refreshTimes } from "./parts/pieces.js";
import { ActionsView, ActionView } from "./views/actions.js";
import { OperationView } from "./views/operation.js";
import { OperationsView } from "./views/operations.js";
import { OverviewView } from "./views/overview.js";
import { ScheduleView } from "./views/schedule.js";
import { SchedulesView } from "./views/schedules.js";
import { UndeliveredView } from "./views/undelivered.js";

/** Pages of the navigation: address, name, picture, second key after `g`, view, view of one thing. */
const PAGES = [
  { address: "overview", name: "Overview", picture: "overview", key: "h", view: OverviewView },
  { address: "operations", name: "Operations", picture: "list", key: "o", view: OperationsView, one: OperationView },
  { address: "schedules", name: "Schedules", picture: "schedules", key: "s", view: SchedulesView, one: ScheduleView },
  { address: "actions", name: "Actions", picture: "actions", key: "a", view: ActionsView, one: ActionView },
  { address: "undelivered", name: "Undelivered", picture: "webhooks", key: "u", view: UndeliveredView },
];
const SHORTCUTS = [
  ["Everywhere", [["/", "Search: an operation's id, an action, or a filter"], ["?", "This list"], ...PAGES.map(({ key, name }) => [`g ${key}`, name]), ["t", "Light, dark, or as the system"]]],
  ["In lists", [["j", "Next row"], ["k", "Row before"], ["Enter", "Open the row"], ["f", "Change the filter"]]],
  ["On an operation's page", [["c", "Cancel it"], ["r", "Do it again"]]],
];
const HEALTH = {
  slow: "The API is slow: still waiting for its answer.",
  broken: "The API answers with errors. This page tries again by itself.",
  unreachable: "The API can't be reached. This page tries again by itself.",
};
/** What a search takes for a filter of a list, and for an action; anything else is an id. */
const FILTER = /\s(eq|ne|gt|ge|lt|le|in)\s|contains\(/;
const KIND = /^[a-z0-9-]{1,40}:[a-z0-9-]{1,40}$/;
const THEME_PICTURES = { system: "system", light: "sun", dark: "moon" };

class Shell {
  constructor() {
    this.view = undefined;
    this.container = document.getElementById("view");
    this.pending = "";
    this.asked = false;
    addEventListener("hashchange", () => this.open());
    addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => this.drawHealth());
    health.addEventListener("change", () => this.drawHealth());
    setInterval(() => !document.hidden && refreshTimes(), 1000);
    document.getElementById("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address after `#` is the view's
      this.container.focus();
    });
    const search = document.getElementById("search");
    search.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(document.getElementById("search-text").value.trim());
    });
    this.open();
  }

  /** Show the view of the address. */
  open() {
    const [, ...parts] = location.hash.replace(/\?.*$/, "").split("/").map(decoded);
    const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
    const page = PAGES.find(({ address }) => address === (parts[0] || PAGES[0].address));
    const path = parts.slice(1).filter(Boolean);
    this.view?.stop();
    this.page = page;
    this.container.replaceChildren();
    this.drawFrame();
    const View = page && (path.length ? page.one : page.view);
    if (View) {
      this.setTitle(page.name);
      this.view = new View(this.container, { path, query }, this);
    } else {
      this.view = undefined;
      this.setTitle("No such page");
      render(this.container, h("h1", { class: "hidden" }, "No such page"), emptyState("search", "There is no such page", h("p", {}, h("a", { href: "#/" }, "Begin at the start"))));
    }
    this.container.scrollTop = 0;
  }

  setTitle(text, status = "") {
    const marks = { Succeeded: "✓ ", Failed: "✕ ", Running: "▶ ", Canceled: "⊘ " };
    document.title = `${marks[status] ?? ""}${text} · opstream`;
  }

  /** Have screen readers say a sentence. */
  announce(text) {
    document.getElementById("announcer").textContent = text;
  }

  search(text) {
    if (!text) return;
    if (FILTER.test(text)) location.hash = listAddress(text);
    else if (KIND.test(text)) location.hash = listAddress(`kind eq '${text}'`);
    else location.hash = `#/operations/${encodeURIComponent(text)}`;
    document.getElementById("search-text").value = "";
    this.container.focus();
  }

  /** Ask for credentials, once by itself, if an error says that they are missing or not valid any more. */
  credentialsRefused(error) {
    if (error.kind !== "unauthenticated" || this.asked) return;
    this.askForCredentials(credentials() ? "The API does not take the credentials of this tab any more: they have expired, or were revoked." : "");
  }

  /** Return the button for an error that other credentials would help. */
  credentialsButton(error) {
    if (error.kind !== "unauthenticated" && error.kind !== "forbidden") return undefined;
    return h("button", { type: "button", class: "primary", on: { click: () => this.askForCredentials() } }, "Enter credentials");
  }

  async askForCredentials(why = "") {
    this.asked = true;
    if (!(await askForCredentials(why))) return;
    this.asked = false;
    forget();
    this.open();
  }

  signOut() {
    keepCredentials("");
    forget();
    this.asked = true;
    this.open();
  }

  drawFrame() {
    const nav = document.getElementById("navigation");
    render(
      nav,
      PAGES.map((page) =>
        h("a", { href: `#/${page.address}`, "aria-current": page === this.page ? "page" : undefined, title: `g ${page.key}` }, icon(page.picture), h("span", {}, page.name)),
      ),
    );
    const foot = document.getElementById("foot");
    const chosen = theme();
    render(
      foot,
      h("button", { type: "button", class: "quiet", title: "Theme (t)", on: { click: () => this.nextTheme() } }, icon(THEME_PICTURES[chosen]), h("span", {}, `Theme: ${chosen}`)),
      h("button", { type: "button", class: "quiet", title: "Keyboard (?)", on: { click: () => showShortcuts(SHORTCUTS) } }, icon("keyboard"), h("span", {}, "Keyboard")),
      credentials() && h("button", { type: "button", class: "quiet", on: { click: () => this.signOut() } }, icon("out"), h("span", {}, "Forget credentials")),
    );
    this.drawHealth();
  }

  drawHealth() {
    const text = HEALTH[healthNow()];
    const line = document.getElementById("health");
    line.hidden = !text;
    line.dataset.health = healthNow();
    render(line, text && [icon("alert"), text]);
  }

  nextTheme() {
    chooseTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    this.drawFrame();
    this.announce(`Theme: ${theme()}`);
  }

  key(event) {
    const isTyping = event.target.matches("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && isTyping) event.target.blur();
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const pending = this.pending;
    this.pending = "";
    if (pending === "g") {
      const page = PAGES.find(({ key }) => key === event.key);
      if (page) location.hash = `#/${page.address}`;
      return;
    }
    if (event.key === "g") this.pending = "g";
    else if (event.key === "/") document.getElementById("search-text").focus();
    else if (event.key === "?") showShortcuts(SHORTCUTS);
    else if (event.key === "t") this.nextTheme();
    else if (event.key === "j" || event.key === "k") this.move(event.key === "j" ? 1 : -1);
    else if (!this.view?.key?.(event.key)) return;
    event.preventDefault();
  }

  /** Move the focus to the next or previous row of the page. */
  move(step) {
    if (this.view?.move?.(step)) return;
    const rows = [...this.container.querySelectorAll("[data-row]")];
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const row = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
    (row.querySelector("summary, a") ?? row).focus();
    row.scrollIntoView({ block: "nearest" });
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

new Shell();
