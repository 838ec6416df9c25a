// What may come next in a filter of `GET /status`, for the completion below the filter bar.

const SAME = ["eq", "ne", "in"];
const ORDERED = ["eq", "ne", "gt", "ge", "lt", "le", "in"];
export const STATUSES = ["NotStarted", "Running", "Succeeded", "Failed", "Canceled"];

/** Fields by name: their operators, and what their values are. A test holds them to those of the service. */
export const FIELDS = {
  status: { operators: SAME, type: "status", hint: "how it stands" },
  kind: { operators: SAME, type: "kind", hint: "the action" },
  resourceId: { operators: SAME, type: "text", hint: "what the action is about" },
  createdAt: { operators: ORDERED, type: "time", hint: "when it was requested" },
  finishedAt: { operators: ORDERED, type: "time", hint: "when it ended" },
  startAt: { operators: ORDERED, type: "time", hint: "before which it does not begin" },
  startedAt: { operators: ORDERED, type: "time", hint: "when its first attempt began" },
  "error/code": { operators: SAME, type: "text", hint: "why it failed" },
  "error/message": { operators: ["contains"], type: "text", hint: "the text of the error" },
  caller: { operators: SAME, type: "text", hint: "who asked" },
  attempt: { operators: ORDERED, type: "number", hint: "number of its last attempt" },
  version: { operators: ORDERED, type: "number", hint: "of the action" },
  id: { operators: SAME, type: "text", hint: "of the operation" },
  parent: { operators: SAME, type: "text", hint: "the operation whose action asked for it" },
  retryOf: { operators: SAME, type: "text", hint: "the operation that it follows" },
  label: { operators: SAME, type: "text", hint: "a label: label/KEY" },
};
const HINTS = { eq: "is", ne: "is not", gt: "after, more than", ge: "from, at least", lt: "before, less than", le: "until, at most", in: "is one of" };
const AGES = [
  ["the last hour", 3_600_000],
  ["the last 24 hours", 86_400_000],
  ["the last 7 days", 604_800_000],
];
const TOKEN = /'(?:[^']|'')*'?|[(),]|[^\s(),']+/g;

/**
 * Return what may stand where the cursor is.
 *
 * @param {string} text up to the cursor.
 * @param {{kinds: string[], labels: string[], values: Record<string, string[]>, now: number}} known
 * @returns {{from: number, options: {text: string, hint: string}[]}} `from` is where the option goes.
 */
export function completions(text, known) {
  const tokens = [...text.matchAll(TOKEN)].map((match) => ({ text: match[0], at: match.index }));
  const isInside = tokens.length > 0 && endOf(tokens.at(-1)) === text.length && !/[\s(,]$/.test(text);
  const current = isInside ? tokens.pop() : { text: "", at: text.length };
  const options = optionsAfter(tokens, known).filter(({ text: option }) => matches(option, current.text));
  return { from: current.at, options: options.slice(0, 12) };
}

function endOf(token) {
  return token.at + token.text.length;
}

function matches(option, typed) {
  const plain = (text) => text.replace(/^'/, "").toLowerCase();
  return plain(option).startsWith(plain(typed)) && option !== typed;
}

function optionsAfter(tokens, known) {
  const before = tokens.map((token) => token.text).filter((word) => word !== "(" && word !== "not");
  const last = before.at(-1);
  if (last === undefined || last === "and" || last === "or") return [...fieldOptions(known), { text: "contains(message, '", hint: "errors that speak of …" }];
  const field = fieldOf(last);
  if (field) return field.operators.filter((name) => name !== "contains").map((name) => ({ text: name, hint: HINTS[name] }));
  const operator = before.at(-1);
  const subject = fieldOf(before.at(-2) ?? "");
  if (subject && operator in HINTS) return valueOptions(before.at(-2), subject, operator, known);
  if (last === ",") return listValues(before, known);
  return [
    { text: "and", hint: "both" },
    { text: "or", hint: "one of both" },
  ];
}

function listValues(before, known) {
  const at = before.lastIndexOf("in");
  const subject = fieldOf(before[at - 1] ?? "");
  return subject ? valueOptions(before[at - 1], subject, "eq", known) : [];
}

function fieldOf(name) {
  return FIELDS[name] ?? (name.startsWith("label/") && name.length > 6 ? FIELDS.label : undefined);
}

function fieldOptions(known) {
  const fields = Object.entries(FIELDS)
    .filter(([name, field]) => name !== "label" && !field.operators.includes("contains"))
    .map(([text, field]) => ({ text, hint: field.hint }));
  return [...fields, ...known.labels.map((key) => ({ text: `label/${key}`, hint: "a label" }))];
}

function valueOptions(name, field, operator, known) {
  const begin = operator === "in" ? "(" : "";
  const quote = (value, hint = "") => ({ text: `${begin}'${String(value).replaceAll("'", "''")}'`, hint });
  if (field.type === "status") return STATUSES.map((value) => quote(value));
  if (field.type === "kind") return known.kinds.map((value) => quote(value));
  if (field.type === "time") return AGES.map(([hint, age]) => ({ text: instant(known.now - age), hint }));
  return (known.values[name] ?? []).map((value) => (field.type === "number" ? { text: `${begin}${value}`, hint: "" } : quote(value)));
}

/** Return a moment as a filter writes it, to the second. */
export function instant(milliseconds) {
  return `${new Date(milliseconds).toISOString().slice(0, 19)}Z`;
}
