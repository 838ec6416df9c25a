// The form for what an operation waits for. A second click after an answer that was lost is the same signal.

import { now } from "../core/client.js";
import { h } from "../core/dom.js";

/** Return what `confirmAct` asks before it sends `signal`, as `blockedBy` of a status has it. */
export function signalAct(path, signal) {
  const payload = h("textarea", { id: "signal-payload", class: "mono", rows: "6", spellcheck: "false", autocomplete: "off" });
  payload.value = "{}";
  return {
    title: `Send the signal ${signal.name}?`,
    text: "The action goes on with it. It can't be taken back, and the history keeps who sent it.",
    verb: "Send the signal",
    path: `${path}:signal/${encodeURIComponent(signal.name)}`,
    headers: { "Repeatability-Request-ID": randomId(), "Repeatability-First-Sent": new Date(now()).toUTCString() },
    fields: [
      h("label", { for: "signal-payload" }, "Payload, as JSON"),
      payload,
      h("details", {}, h("summary", {}, "The schema that it must fit"), h("pre", { class: "mono", tabindex: "0", "aria-label": "Schema" }, JSON.stringify(signal.schema, null, 2))),
    ],
    json: () => payload.value.trim() || "{}",
  };
}

/** `crypto.randomUUID` is only there on pages that come over https. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
