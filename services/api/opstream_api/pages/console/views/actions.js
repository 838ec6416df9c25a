// The actions of this service, and a page for each: what it does, what it takes, and a form that submits it.

import { openapi } from "../core/capabilities.js";
import { curl, send } from "../core/client.js";
import { listAddress } from "../core/list_reader.js";
import { actionsOf, inputSchema, sampleOf } from "../core/actions.js";
import { h, render } from "../core/dom.js";
import { compactJson } from "../core/json_text.js";
import { commandBlock } from "../parts/dialogs.js";
import { jsonView } from "../parts/json_view.js";
import { icon } from "../parts/icons.js";
import { emptyState, errorState, skeleton } from "../parts/pieces.js";

class DocumentView {
  constructor(container, { path }, shell) {
    this.container = container;
    this.shell = shell;
    this.kind = path?.[0] ?? "";
    render(container, skeleton("Loading the actions"));
    this.load();
  }

  async load() {
    try {
      const document = await openapi();
      if (!this.isStopped) this.draw(document);
    } catch (error) {
      if (this.isStopped) return;
      render(this.container, h("h1", { class: "hidden" }, "Actions"), errorState(error, this.shell.credentialsButton(error)));
      this.shell.credentialsRefused(error);
      if (error.kind !== "unauthenticated") this.timer = setTimeout(() => this.load(), 5000);
    }
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
  }
}

export class ActionsView extends DocumentView {
  draw(document) {
    const actions = actionsOf(document);
    render(
      this.container,
      h("header", { class: "page-head" }, h("h1", {}, "Actions"), h("p", { class: "dim count" }, actions.length ? String(actions.length) : "")),
      actions.length
        ? h(
            "section",
            { class: "panel" },
            h("ol", { class: "rows actions" }, actions.map(actionRow)),
          )
        : emptyState("actions", "No actions", h("p", {}, "No runner has announced one yet, or these credentials may submit none. Start a runner with --actions MODULE.")),
    );
  }
}

function actionRow({ kind, summary }) {
  return h(
    "li",
    { "data-row": true },
    h("a", { href: `#/actions/${encodeURIComponent(kind)}` }, h("span", { class: "mono-ish" }, kind), h("span", { class: "dim" }, summary)),
  );
}

export class ActionView extends DocumentView {
  draw(document) {
    const action = actionsOf(document).find(({ kind }) => kind === this.kind);
    if (!action) {
      render(this.container, h("h1", { class: "hidden" }, "Actions"), emptyState("actions", `There is no action ${this.kind}`, h("p", {}, "No runner has announced it, or these credentials may not submit it. ", h("a", { href: "#/actions" }, "All actions"))));
      return;
    }
    this.shell.setTitle(action.kind);
    render(
      this.container,
      h(
        "header",
        { class: "page-head" },
        h("div", { class: "title" }, h("h1", { class: "mono-ish" }, action.kind), h("p", { class: "dim" }, action.summary)),
        h("div", { class: "buttons" }, h("a", { class: "button", href: listAddress(`kind eq '${action.kind}'`) }, icon("list"), "Its operations")),
      ),
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
