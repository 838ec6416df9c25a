// Reads JSON without changing a character: what is shown of an event is what was stored, numbers as they were written.

/** Return where the value that begins at an index of a JSON text ends. */
function endOfValue(text, begin) {
  let depth = 0;
  let at = begin;
  while (at < text.length) {
    const character = text[at];
    if (character === '"') {
      at = endOfString(text, at);
      if (depth === 0) return at;
      continue;
    }
    if (character === "{" || character === "[") depth += 1;
    else if (character === "}" || character === "]") {
      if (depth === 0) return at;
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (depth === 0 && character === ",") return at;
    at += 1;
  }
  return at;
}

function endOfString(text, begin) {
  let at = begin + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

/** Return the texts of the members of a JSON object, by name. */
export function members(text) {
  const found = new Map();
  let at = text.indexOf("{") + 1;
  for (;;) {
    at = skipSpace(text, at);
    if (text[at] !== '"') return found;
    const nameEnd = endOfString(text, at);
    const name = JSON.parse(text.slice(at, nameEnd));
    at = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = endOfValue(text, at);
    found.set(name, text.slice(at, end).trimEnd());
    at = skipSpace(text, end);
    if (text[at] !== ",") return found;
    at += 1;
  }
}

function skipSpace(text, from) {
  let at = from;
  while (" \t\r\n".includes(text[at]) && at < text.length) at += 1;
  return at;
}

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** Return the lines of a JSON text, indented, each a list of `[kind, text]`; at most so many lines. */
export function jsonLines(text, limit = Infinity) {
  const lines = [[]];
  let depth = 0;
  let previous = "";
  const isFull = () => lines.length > limit;
  const newLine = () => lines.push(depth ? [["space", "  ".repeat(depth)]] : []);
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    const isOpening = token === "{" || token === "[";
    const isClosing = token === "}" || token === "]";
    if (isClosing) {
      depth -= 1;
      if (previous !== "{" && previous !== "[") newLine();
    } else if (previous === "{" || previous === "[" || previous === ",") newLine();
    if (isFull()) return lines.slice(0, limit);
    const line = lines.at(-1);
    if (token === ":") line.push(["mark", ": "]);
    else if (token.startsWith('"')) line.push([isName(text, index + token.length) ? "name" : "text", token]);
    else if (isOpening || isClosing || token === ",") line.push(["mark", token]);
    else line.push([/^[tfn]/.test(token) ? "word" : "number", token]);
    if (isOpening) depth += 1;
    previous = token;
  }
  return lines;
}

function isName(text, end) {
  return text[skipSpace(text, end)] === ":";
}

/** Return a JSON text without spaces between its parts, each part as it was written; undefined for a text that is no JSON. */
export function compactJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return undefined;
  }
  return [...text.matchAll(TOKEN)].map(([token]) => token).join("");
}

/** Return a JSON text with a line for each part, each part as it was written. */
export function indentedJson(text) {
  return jsonLines(text).map((line) => line.map(([, part]) => part).join("")).join("\n");
}
