// The operations that this tab has shown, newest first, so that a reader finds back.

const KEY = "opstream.recent";
const MOST = 12;

/** @returns {{id: string, kind: string}[]} */
export function recent() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

export function remember(operation) {
  const others = recent().filter((known) => known.id !== operation.id);
  sessionStorage.setItem(KEY, JSON.stringify([operation, ...others].slice(0, MOST)));
}
