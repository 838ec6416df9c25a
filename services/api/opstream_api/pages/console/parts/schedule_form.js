// The form that makes or changes a schedule.

import { actionsOf, sampleOf } from "../core/actions.js";
import { curl, send } from "../core/client.js";
import { h } from "../core/dom.js";
import { compactJson, indentedJson } from "../core/json_text.js";
import { definitionJson, inputJson } from "../core/schedules.js";
import { commandBlock } from "./dialogs.js";
import { errorState, toast } from "./pieces.js";

const EVERY_HOUR = 3600;

/**
 * Return the form.
 *
 * @param {{document: object, shell: object, name?: string, known?: object, text?: string}} given `known` is the schedule
 *   that is changed, `text` its JSON as it was read; without them a new one is made.
 */
export function scheduleForm({ document, shell, name = "", known = { cron: "0 3 * * *" }, text = "{}" }) {
  const actions = actionsOf(document);
  const kinds = [...new Set([...(known.action ? [known.action] : []), ...actions.map(({ kind }) => kind)])];
  const sample = (kind) => {
    const action = actions.find((one) => one.kind === kind);
    return JSON.stringify(action ? sampleOf(document, action) : {}, null, 2);
  };
  const fields = {
    name: h("input", { id: "schedule-name", required: true, pattern: "[a-z0-9\\-]{1,40}", maxlength: "40", autocomplete: "off", spellcheck: "false", title: "a-z, 0-9 and -", placeholder: "nightly" }),
    action: h("select", { id: "schedule-action" }, kinds.map((kind) => h("option", { value: kind, selected: kind === known.action }, kind))),
    resourceId: input("schedule-resource", known.resourceId, { placeholder: "Optional" }),
    isCron: h("input", { type: "radio", name: "due", id: "due-cron", checked: Boolean(known.cron) }),
    isInterval: h("input", { type: "radio", name: "due", id: "due-every", checked: !known.cron }),
    cron: input("schedule-cron", known.cron, { placeholder: "30 3 * * 1-5", "aria-describedby": "cron-parts", class: "mono" }),
    timeZone: input("schedule-zone", known.timeZone ?? (known.action ? "UTC" : ownZone()), { list: "zones" }),
    every: input("schedule-every", String(known.every || EVERY_HOUR), { type: "number", min: "60", step: "1" }),
    input: h("textarea", { id: "schedule-input", rows: "8", spellcheck: "false", class: "mono" }),
    pauseOnFailure: h("input", { type: "checkbox", id: "schedule-failure", checked: known.pauseOnFailure }),
    paused: h("input", { type: "checkbox", id: "schedule-paused", checked: known.paused }),
  };
  fields.input.value = text === "{}" ? sample(kinds[0]) : indentedJson(inputJson(text));
  let isOwnInput = text !== "{}";
  fields.input.addEventListener("input", () => { isOwnInput = true; });
  fields.action.addEventListener("input", () => { if (!isOwnInput) fields.input.value = sample(fields.action.value); });

  const path = () => `schedules/${name || fields.name.value.trim()}`;
  const json = () => definitionJson(`{"input":${compactJson(fields.input.value) ?? "null"}}`, {
    action: fields.action.value,
    resourceId: fields.resourceId.value.trim() || undefined,
    cron: fields.isCron.checked ? fields.cron.value.trim() : undefined,
    timeZone: fields.isCron.checked ? fields.timeZone.value.trim() || undefined : undefined,
    every: fields.isCron.checked ? undefined : Number(fields.every.value),
    pauseOnFailure: fields.pauseOnFailure.checked || undefined,
    paused: fields.paused.checked || undefined,
  });
  const problem = h("div", { "aria-live": "assertive" });
  const command = h("div");
  const refresh = () => {
    const isOpen = command.firstChild?.open ?? false;
    for (const field of [fields.cron, fields.timeZone]) field.disabled = !fields.isCron.checked;
    fields.every.disabled = fields.isCron.checked;
    command.replaceChildren(commandBlock(curl("PUT", path(), { json: json() })));
    command.firstChild.open = isOpen;
  };
  const submit = async (event) => {
    event.preventDefault();
    problem.replaceChildren();
    try {
      JSON.parse(fields.input.value); // says where it is no JSON
      await send("PUT", path(), { json: json() });
      toast(name ? "The schedule is changed" : "The schedule is made");
      location.hash = `#/${path()}`;
    } catch (error) {
      const shown = error instanceof SyntaxError ? { kind: "refused", message: `The input is not JSON: ${error.message}` } : error;
      problem.replaceChildren(errorState(shown, shell.credentialsButton(shown)));
    }
  };
  refresh();
  return h(
    "form",
    { class: "panel submit schedule-form", "data-own-children": true, on: { submit, input: refresh } },
    h(
      "div",
      { class: "fields" },
      !name && [h("label", { for: "schedule-name" }, "Name"), fields.name],
      h("label", { for: "schedule-action" }, "Action"),
      fields.action,
      h("label", { for: "schedule-resource" }, "Resource id"),
      fields.resourceId,
      h(
        "fieldset",
        {},
        h("legend", {}, "Due"),
        choice(fields.isCron, "By a cron expression"),
        h("div", { class: "pair" }, field("Expression", fields.cron), field("Time zone", fields.timeZone)),
        h("p", { id: "cron-parts", class: "dim small-text" }, "Minute, hour, day of month, month, day of week."),
        choice(fields.isInterval, "At an interval"),
        h("div", { class: "pair" }, field("Seconds", fields.every)),
      ),
      h("label", { for: "schedule-input" }, "Input"),
      fields.input,
      choice(fields.pauseOnFailure, "Pause once an operation of it has failed"),
      choice(fields.paused, "Paused: nothing begins"),
      problem,
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Save"), h("a", { class: "button", href: name ? `#/schedules/${name}` : "#/schedules" }, "Leave it as it is")),
      command,
    ),
    h("datalist", { id: "zones" }, zones().map((zone) => h("option", { value: zone }))),
  );
}

function input(id, value, properties) {
  const made = h("input", { id, autocomplete: "off", spellcheck: "false", ...properties });
  made.value = value ?? "";
  return made;
}

function field(name, element) {
  return h("div", {}, h("label", { for: element.id }, name), element);
}

function choice(element, text) {
  return h("label", { class: "choice", for: element.id }, element, text);
}

function ownZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

function zones() {
  return ["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])];
}
