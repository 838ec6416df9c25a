// The actions of this service, and a page for each: what it does, what it takes, and a form that submits it.

import { openapi } from "../core/capabilities.js";
import { curl, send } from "../core/client.js";
import { listAddress } from "../core/list_reader.js";
import { actionsOf, inputSchema, sampleOf } from "../core/actions.js";
import { h, render } from "../core/dom.js";
import { compactJson } from "../core/json_text.js";
import { Poller } from "../core/poller.js";
import { actionGlance, pausedBadge, pauseNotice, runnersText, waitingOf } from "../parts/action_state.js";
import { commandBlock, confirmAct, reasonField } from "../parts/dialogs.js";
import { jsonView } from "../parts/json_view.js";
import { icon } from "../parts/icons.js";
import { emptyState, errorState, skeleton, toast, tryNowButton } from "../parts/pieces.js";

const REFRESH = 5000;
const LENGTHS = [
  ["until it is resumed", ""],
  ["15 minutes", "900"],
  ["an hour", "3600"],
  ["8 hours", "28800"],
  ["a day", "86400"],
];

/** A view of the document, and of how actions stand, if the API says so. */
class DocumentView {
  constructor(container, { path }, shell) {
    this.container = container;
    this.shell = shell;
    this.kind = path?.[0] ?? "";
    this.listed = new Map();
    render(container, skeleton("Loading the actions"));
    this.poller = new Poller((signal) => this.read(signal), () => REFRESH, (error) => this.failed(error)).start();
  }

  async read(signal) {
    const document = await openapi();
    const hasStates = "/actions" in document.paths;
    if (hasStates) {
      const { data } = await send("GET", "actions", { signal });
      this.listed = new Map(data.value.map((one) => [one.action, one]));
    }
    if (signal.aborted) return;
    this.document = document;
    this.draw(document);
  }

  failed(error) {
    const trouble = errorState(error, this.shell.credentialsButton(error), tryNowButton(error, () => this.poller.wake()));
    if (this.document) this.draw(this.document, trouble);
    else render(this.container, h("h1", { class: "hidden" }, "Actions"), trouble);
    this.shell.credentialsRefused(error);
  }

  stop() {
    this.poller.stop();
  }
}

export class ActionsView extends DocumentView {
  draw(document, trouble) {
    const actions = actionsOf(document);
    render(
      this.container,
      h("header", { class: "page-head", key: "head" }, h("h1", {}, "Actions"), h("p", { class: "dim count" }, actions.length ? String(actions.length) : "")),
      trouble,
      actions.length
        ? h(
            "section",
            { class: "panel", key: "actions" },
            h("ol", { class: "rows actions" }, actions.map((action) => actionRow(action, this.listed.get(action.kind)))),
          )
        : emptyState("actions", "No actions", h("p", {}, "No runner has announced one yet, or these credentials may submit none. Start a runner with --actions MODULE.")),
    );
  }
}

function actionRow({ kind, summary }, listed) {
  const state = listed && h("span", { class: listed.runnerCount ? "dim" : "bad-text" }, "runners: ", runnersText(listed), listed.waiting?.length > 0 && ` · waiting: ${waitingOf(listed)}`);
  return h(
    "li",
    { "data-row": true, key: kind },
    h("a", { href: `#/actions/${encodeURIComponent(kind)}` }, h("span", { class: "mono-ish" }, kind, listed?.paused && [" ", pausedBadge()]), h("span", { class: "dim" }, summary, state && h("br"), state)),
  );
}

export class ActionView extends DocumentView {
  constructor(...given) {
    super(...given);
    this.trouble = h("div");
    this.acts = h("div", { class: "buttons" });
    this.state = h("div");
  }

  /** Draw the page once, as its form keeps what is typed, and how the action stands with each read. */
  draw(document, trouble) {
    if (!this.isDrawn) this.drawPage(document);
    render(this.trouble, trouble);
    const listed = this.listed.get(this.kind);
    if (!this.isDrawn || !listed) return;
    render(this.state, pauseNotice(listed), actionGlance(listed));
    const canPause = "/actions/{kind}:pause" in document.paths;
    render(
      this.acts,
      canPause && (listed.paused ? h("button", { type: "button", key: "resume", on: { click: () => this.resume() } }, "Resume…") : h("button", { type: "button", key: "pause", on: { click: () => this.pause() } }, "Pause…")),
      this.operationsLink(),
    );
  }

  operationsLink() {
    return h("a", { class: "button", key: "operations", href: listAddress(`kind eq '${this.kind}'`) }, icon("list"), "Its operations");
  }

  async pause() {
    const reason = reasonField("Optional; who waits reads it");
    const length = h("select", { id: "pause-length" }, LENGTHS.map(([name, value]) => h("option", { value }, name)));
    const json = () => {
      const body = { ...JSON.parse(reason.json() ?? "{}"), ...(length.value && { seconds: Number(length.value) }) };
      return Object.keys(body).length ? JSON.stringify(body) : undefined;
    };
    const answer = await confirmAct({
      title: `Pause ${this.kind}?`,
      text: "No attempt of it begins, of any caller. What runs goes on; what is submitted waits, and can be canceled.",
      verb: "Pause the action",
      path: `actions/${this.kind}:pause`,
      fields: [h("label", { for: "pause-length" }, "For"), length, ...reason.fields],
      json,
    });
    this.done(answer, "The action is paused");
  }

  async resume() {
    const answer = await confirmAct({
      title: `Resume ${this.kind}?`,
      text: "What waits begins, as fast as there are free runners.",
      verb: "Resume the action",
      path: `actions/${this.kind}:resume`,
      ...reasonField("Optional; it is recorded"),
    });
    this.done(answer, "The action goes on");
  }

  done(answer, text) {
    if (!answer) return;
    toast(text);
    this.poller.wake();
  }

  drawPage(document) {
    const action = actionsOf(document).find(({ kind }) => kind === this.kind);
    if (!action) {
      render(this.container, h("h1", { class: "hidden" }, "Actions"), emptyState("actions", `There is no action ${this.kind}`, h("p", {}, "No runner has announced it, or these credentials may not submit it. ", h("a", { href: "#/actions" }, "All actions"))));
      return;
    }
    this.isDrawn = true;
    this.shell.setTitle(action.kind);
    render(this.acts, this.operationsLink());
    this.container.replaceChildren(
      h(
        "header",
        { class: "page-head" },
        h("div", { class: "title" }, h("h1", { class: "mono-ish" }, action.kind), h("p", { class: "dim" }, action.summary)),
        this.acts,
      ),
      this.trouble,
      this.state,
      h("p", { class: "prose" }, action.description.replaceAll("`", "")),
      h(
        "div",
        { class: "columns" },
        h("div", { class: "wide" }, this.form(action, sampleOf(document, action))),
        h("div", { class: "narrow" }, jsonView("schema", "Schema of the input", JSON.stringify(inputSchema(document, action)))),
      ),
    );
  }

  form(action, sample) {
    const resourceId = h("input", { id: "resource-id", autocomplete: "off", spellcheck: "false", placeholder: "Optional" });
    const input = h("textarea", { id: "action-input", rows: "12", spellcheck: "false", class: "mono" });
    input.value = JSON.stringify(sample, null, 2);
    const problem = h("div", { "aria-live": "assertive" });
    const command = h("div");
    const path = () => {
      const [resource, name] = action.kind.split(":");
      const id = resourceId.value.trim();
      return id ? `${resource}/${encodeURIComponent(id)}:${name}` : `${resource}:${name}`;
    };
    const showCommand = () => {
      const isOpen = command.firstChild?.open ?? false;
      command.replaceChildren(commandBlock(curl("POST", path(), { json: compactJson(input.value) })));
      command.firstChild.open = isOpen;
    };
    for (const field of [resourceId, input]) field.addEventListener("input", showCommand);
    showCommand();
    const submit = async (event) => {
      event.preventDefault();
      problem.replaceChildren();
      try {
        JSON.parse(input.value); // says where it is no JSON
        const answer = await send("POST", path(), { json: compactJson(input.value) });
        location.hash = `#/operations/${encodeURIComponent(answer.data.id)}`;
      } catch (error) {
        const shown = error instanceof SyntaxError ? { kind: "refused", message: `The input is not JSON: ${error.message}` } : error;
        problem.replaceChildren(errorState(shown, this.shell.credentialsButton(shown)));
      }
    };
    return h(
      "form",
      { class: "panel submit", "data-own-children": true, on: { submit } },
      h("header", {}, h("h2", {}, "Submit")),
      h(
        "div",
        { class: "fields" },
        h("label", { for: "resource-id" }, "Resource id"),
        resourceId,
        h("label", { for: "action-input" }, "Input"),
        input,
        problem,
        h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Submit")),
        command,
      ),
    );
  }
}
