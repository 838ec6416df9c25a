// Dialogs: they take the focus, give it back, and close with Escape, as the browser's own element does.

import { credentials, keepCredentials } from "../core/session.js";
import { curl, send } from "../core/client.js";
import { h } from "../core/dom.js";
import { icon } from "./icons.js";
import { copyButton, errorState } from "./pieces.js";

/** Show a dialog; return a promise of the value with which it was closed, empty for Escape. */
export function show(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/** Return a block with the command that does the same from a shell. */
export function commandBlock(command) {
  return h(
    "details",
    { class: "command" },
    h("summary", {}, icon("terminal"), "The same from a shell"),
    h("div", { class: "raw" }, h("pre", { class: "mono", tabindex: "0", "aria-label": "Command" }, command), copyButton(command, "Copy the command")),
  );
}

/**
 * Ask before an act, send it, and return its answer; undefined if the reader thought better of it.
 *
 * @param {{title: string, text: string, verb: string, path: string, reason?: boolean, isGrave?: boolean}} act
 */
export async function confirmAct({ title, text, verb, path, reason = false, isGrave = false, body }) {
  let answer;
  const note = h("input", { id: "act-reason", name: "reason", maxlength: "500", autocomplete: "off", placeholder: "Optional; the history keeps it" });
  const problem = h("div", { "aria-live": "assertive" });
  const command = h("div");
  const bodyNow = () => (reason ? (note.value.trim() ? { reason: note.value.trim() } : undefined) : body);
  const showCommand = () => command.replaceChildren(commandBlock(curl("POST", path, { body: bodyNow() })));
  note.addEventListener("input", () => {
    const wasOpen = command.firstChild?.open;
    showCommand();
    command.firstChild.open = wasOpen;
  });
  showCommand();
  const act = h("button", { type: "submit", class: isGrave ? "primary grave" : "primary" }, verb);
  const dialog = h("dialog", { "aria-labelledby": "act-title" });
  const form = h(
    "form",
    {
      on: {
        submit: async (event) => {
          event.preventDefault();
          act.disabled = true;
          problem.replaceChildren();
          try {
            answer = await send("POST", path, { body: bodyNow() });
            dialog.close("done");
          } catch (error) {
            problem.replaceChildren(errorState(error));
            act.disabled = false;
          }
        },
      },
    },
    h("h2", { id: "act-title" }, title),
    h("p", {}, text),
    reason && h("label", { for: "act-reason" }, "Reason"),
    reason && note,
    problem,
    command,
    h(
      "div",
      { class: "buttons end" },
      h("button", { type: "button", on: { click: () => dialog.close("") } }, "Not now"),
      act,
    ),
  );
  dialog.append(form);
  await show(dialog);
  return answer;
}

/** Ask for credentials. Resolves to true once the API has taken some. */
export async function askForCredentials(why) {
  if (document.getElementById("credentials")) return false;
  const before = credentials();
  const field = h("input", { id: "credentials-text", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const problem = h("div", { "aria-live": "assertive" });
  const enter = h("button", { type: "submit", class: "primary" }, "Continue");
  const dialog = h("dialog", { id: "credentials", "aria-labelledby": "credentials-title" });
  dialog.append(
    h(
      "form",
      {
        on: {
          submit: async (event) => {
            event.preventDefault();
            enter.disabled = true;
            keepCredentials(field.value.trim());
            try {
              await send("GET", "openapi.json");
              dialog.close("done");
            } catch (error) {
              if (error.kind !== "unauthenticated") {
                problem.replaceChildren(errorState(error));
              } else {
                keepCredentials(before);
                problem.replaceChildren(errorState({ ...error, kind: "unauthenticated", message: "The API does not take these: they are unknown, expired or revoked." }));
              }
              enter.disabled = false;
            }
          },
        },
      },
      h("h2", { id: "credentials-title" }, icon("key"), "Your credentials"),
      why && h("p", { class: "why" }, why),
      h("p", { class: "dim" }, "An API key, or a bearer token of your identity provider. This tab keeps it until it is closed, sends it to this service only, and you see and do what it allows."),
      h("label", { for: "credentials-text" }, "API key or token"),
      field,
      problem,
      h(
        "div",
        { class: "buttons end" },
        h("button", { type: "button", on: { click: () => dialog.close("") } }, "Not now"),
        enter,
      ),
    ),
  );
  const answer = await show(dialog);
  if (answer !== "done") return false;
  return true;
}

/** Show the keyboard's shortcuts. */
export function showShortcuts(groups) {
  if (document.getElementById("shortcuts")) return;
  const dialog = h("dialog", { id: "shortcuts", "aria-labelledby": "shortcuts-title" });
  dialog.append(
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "shortcuts-title" }, icon("keyboard"), "Keyboard"),
      groups.map(([title, rows]) => [
        h("h3", {}, title),
        h(
          "dl",
          { class: "shortcuts" },
          rows.map(([keys, text]) => [h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))), h("dd", {}, text)]),
        ),
      ]),
      h("div", { class: "buttons end" }, h("button", { class: "primary", autofocus: true }, "Close")),
    ),
  );
  show(dialog);
}
