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
 * @param {{title: string, text: string, verb: string, method?: string, path: string|(() => string), isGrave?: boolean, timeout?: number,
 *   fields?: Node[], json?: () => string|undefined}} act `path` and `json` return it and the body as the fields have them.
 */
export async function confirmAct({ title, text, verb, method = "POST", path, isGrave = false, fields = [], json = () => undefined, ...sending }) {
  let answer;
  const address = typeof path === "function" ? path : () => path;
  const problem = h("div", { "aria-live": "assertive" });
  const command = h("div");
  const showCommand = () => {
    const wasOpen = command.firstChild?.open ?? false;
    command.replaceChildren(commandBlock(curl(method, address(), { json: json() })));
    command.firstChild.open = wasOpen;
  };
  showCommand();
  const act = h("button", { type: "submit", class: isGrave ? "primary grave" : "primary" }, verb);
  const dialog = h("dialog", { "aria-labelledby": "act-title" });
  const submit = async (event) => {
    event.preventDefault();
    act.disabled = true;
    problem.replaceChildren();
    try {
      answer = await send(method, address(), { ...sending, json: json() });
      dialog.close("done");
    } catch (error) {
      problem.replaceChildren(errorState(error));
      act.disabled = false;
    }
  };
  dialog.append(
    h(
      "form",
      { on: { submit, input: showCommand } },
      h("h2", { id: "act-title" }, title),
      h("p", {}, text),
      fields,
      problem,
      command,
      h(
        "div",
        { class: "buttons end" },
        h("button", { type: "button", on: { click: () => dialog.close("") } }, "Not now"),
        act,
      ),
    ),
  );
  await show(dialog);
  return answer;
}

/**
 * Ask before many acts of one kind, send them one after the other, and return the paths of those that were done.
 *
 * @param {{title: string, text: string, verb: string, paths: string[]}} acts each a POST without a body.
 */
export async function confirmAll({ title, text, verb, paths }) {
  const done = new Set();
  const stopping = new AbortController();
  const problem = h("div", { "aria-live": "assertive" });
  const progress = h("p", { class: "dim", role: "status" });
  const act = h("button", { type: "submit", class: "primary" }, verb);
  const leave = h("button", { type: "button", on: { click: () => dialog.close("") } }, "Not now");
  const dialog = h("dialog", { "aria-labelledby": "act-title" });
  const submit = async (event) => {
    event.preventDefault();
    act.disabled = true;
    leave.textContent = "Stop";
    problem.replaceChildren();
    let refused;
    for (const path of paths.filter((one) => !done.has(one))) {
      try {
        await send("POST", path, { signal: stopping.signal });
        done.add(path);
      } catch (error) {
        if (stopping.signal.aborted) return;
        refused = error;
        if (error.kind !== "missing" && error.kind !== "refused") break; // the next one would end as this one did
      }
      progress.textContent = `${done.size.toLocaleString()} of ${paths.length.toLocaleString()} are done`;
    }
    if (!refused) return dialog.close("done");
    problem.replaceChildren(errorState(refused));
    leave.textContent = "Close";
    act.disabled = false;
  };
  dialog.addEventListener("close", () => stopping.abort());
  dialog.append(
    h(
      "form",
      { on: { submit } },
      h("h2", { id: "act-title" }, title),
      h("p", {}, text),
      progress,
      problem,
      commandBlock(paths.map((path) => curl("POST", path)).join("\n")),
      h("div", { class: "buttons end" }, leave, act),
    ),
  );
  await show(dialog);
  return done;
}

/** Return the field for a reason, and the body with it, for `confirmAct`. */
export function reasonField(hint) {
  const note = h("input", { id: "act-reason", name: "reason", maxlength: "500", autocomplete: "off", placeholder: hint });
  const json = () => (note.value.trim() ? JSON.stringify({ reason: note.value.trim() }) : undefined);
  return { fields: [h("label", { for: "act-reason" }, "Reason"), note], json };
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
