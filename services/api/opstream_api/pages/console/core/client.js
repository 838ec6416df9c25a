// Requests to the public API: the same that curl would send, with the caller's own credentials.

import { credentials } from "./session.js";

/** The service's own URL. This file lies below it, so it is found below any path prefix. */
export const BASE = new URL("../../", import.meta.url);
const TIMEOUT = 20_000;
/** Milliseconds after which the page says that it waits. */
const SLOW = 1500;
const CREDENTIALS_FOR_CURL = "$OPSTREAM_KEY";

export class ApiError extends Error {
  /**
   * @param {string} kind `unauthenticated`, `forbidden`, `missing`, `refused`, `busy`, `broken`, `unreachable`, `slow`.
   */
  constructor(kind, message, { status = 0, code = "", target = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { kind, status, code, target, requestId });
  }
}

/** How the API does, for the line at the edge of the page. */
export const health = new EventTarget();
let state = "ok";
let skew = 0;

function say(next) {
  if (next === state) return;
  state = next;
  health.dispatchEvent(new CustomEvent("change", { detail: next }));
}

export function healthNow() {
  return state;
}

/** Milliseconds since 1970 by the service's clock, as its answers say to the second. */
export function now() {
  return Date.now() + skew;
}

/**
 * Send a request, and return its answer. Throws `ApiError`; what `signal` aborts throws `AbortError`.
 *
 * A body is a value, or as `json` a text of JSON, which is sent without a change: a number keeps its digits.
 */
export async function send(method, path, { body, json = jsonOf(body), headers = {}, signal, timeout = TIMEOUT } = {}) {
  const limit = AbortSignal.timeout(timeout);
  const waiting = setTimeout(() => say("slow"), SLOW);
  try {
    const response = await fetch(urlOf(path), {
      method,
      headers: { ...headers, ...authorization(), ...(json === undefined ? {} : { "Content-Type": "application/json" }) },
      body: json,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: "same-origin",
      redirect: "error",
    });
    const text = await response.text();
    learnTime(response);
    if (!response.ok && response.status !== 304) throw failure(response, text);
    const data = parse(response, text);
    say("ok");
    return { status: response.status, headers: response.headers, text, data };
  } catch (error) {
    throw translated(error, signal, timeout);
  } finally {
    clearTimeout(waiting);
  }
}

/** Open a stream of Server-Sent Events, and yield each as `{id, event, data}`. Throws as `send` does. */
export async function* follow(path, { signal, after = 0, opened = () => {} }) {
  let response;
  try {
    response = await fetch(urlOf(path), {
      headers: {
        ...authorization(),
        Accept: "text/event-stream",
        ...(after ? { "Last-Event-ID": String(after) } : {}),
      },
      signal,
      redirect: "error",
      cache: "no-store",
    });
    learnTime(response);
    if (response.status === 204) return;
    if (!response.ok) throw failure(response, await response.text());
    say("ok");
    opened(response.headers);
    yield* frames(response.body);
  } catch (error) {
    throw translated(error, signal, 0);
  }
}

/** What has a colon before any slash, as an action without a resource id, is a path all the same. */
function urlOf(path) {
  return new URL(`./${path}`, BASE);
}

async function* frames(stream) {
  // `ignoreBOM` keeps a mark that is part of an event: its bytes are hashed.
  const reader = stream.pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true })).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const frame = frameOf(part);
        if (frame) yield frame;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function frameOf(text) {
  const frame = { id: 0, event: "", data: [] };
  for (const line of text.split("\n")) {
    if (line.startsWith("data: ")) frame.data.push(line.slice(6));
    else if (line.startsWith("id: ")) frame.id = Number(line.slice(4));
    else if (line.startsWith("event: ")) frame.event = line.slice(7);
  }
  return frame.data.length ? { ...frame, data: frame.data.join("\n") } : undefined;
}

function authorization() {
  const text = credentials();
  return text ? { Authorization: `Bearer ${text}` } : {};
}

function learnTime(response) {
  const served = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(served)) return;
  const difference = served - Date.now();
  skew = Math.abs(difference) > 2500 ? difference : 0;
}

function parse(response, text) {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError("broken", "The answer is not JSON. Something between this page and the service answers for it.", {
      status: response.status,
    });
  }
}

function failure(response, text) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // A proxy's page. The status says what there is to say.
  }
  const message = error.message ?? `The answer has the status ${response.status}, and does not say why.`;
  return new ApiError(kindOf(response.status), message, {
    status: response.status,
    code: error.code ?? response.headers.get("x-ms-error-code") ?? "",
    target: error.target ?? "",
    requestId: response.headers.get("x-ms-request-id") ?? "",
  });
}

function kindOf(status) {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "forbidden";
  if (status === 404) return "missing";
  if (status === 429) return "busy";
  return status >= 500 ? "broken" : "refused";
}

function translated(error, signal, timeout) {
  if (error instanceof ApiError) {
    say(error.kind === "broken" ? "broken" : "ok");
    return error;
  }
  if (signal?.aborted) return error;
  if (error.name === "TimeoutError") {
    say("slow");
    return new ApiError("slow", `The API has not answered within ${Math.round(timeout / 1000)} seconds.`);
  }
  say("unreachable");
  return new ApiError("unreachable", "The API can't be reached. It may be restarting, or this machine is offline.");
}

/** Return the command that sends the same request from a shell. The credentials are a variable of the shell. */
export function curl(method, path, { body, json = jsonOf(body), headers = {} } = {}) {
  const words = ["curl", "-sS"];
  if (method !== "GET") words.push("-X", method);
  words.push(quoted(urlOf(path).href));
  if (credentials()) words.push("-H", `"Authorization: Bearer ${CREDENTIALS_FOR_CURL}"`);
  for (const [name, value] of Object.entries(headers)) words.push("-H", quoted(`${name}: ${value}`));
  if (json !== undefined) words.push("-H", quoted("Content-Type: application/json"), "-d", quoted(json));
  return words.join(" ");
}

function jsonOf(body) {
  return body === undefined ? undefined : JSON.stringify(body);
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
