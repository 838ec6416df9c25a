// Reads lists of operations page by page (`GET /status?filter=…`), and keeps what it has read in their order.

import { send } from "./client.js";
import { nextPath } from "./pages.js";

/** Items of the first page, which is there soon, and of those after it, for readers who scroll far. */
const FIRST_SIZE = 200;
const NEXT_SIZE = 1000;

export function listPath({ filter = "", orderby = "", size = FIRST_SIZE, select = "" }) {
  const query = new URLSearchParams();
  if (filter) query.set("filter", filter);
  if (orderby) query.set("orderby", orderby);
  query.set("maxpagesize", size);
  if (select) query.set("select", select);
  return `status?${query}`;
}

/** Return the address of the console's list with a filter. */
export function listAddress(filter, orderby = "") {
  const query = new URLSearchParams({ ...(filter && { filter }), ...(orderby && { orderby }) });
  return `#/operations${query.size ? `?${query}` : ""}`;
}

/** Return the path of a further page with as many items as a page may have. */
export function largePage(path) {
  return path.replace(/maxpagesize=\d+/, `maxpagesize=${NEXT_SIZE}`);
}

/** Return a page: `{items, next, lag}`; `next` is the path of the page after it, empty at the end. */
export async function readPage(path, signal) {
  const { data, headers } = await send("GET", path, { signal });
  return { items: data.value, next: nextPath("status", data.nextLink), lag: Number(headers.get("Index-Lag") ?? 0) };
}

/** Return what a list becomes when its first page is read again: new ones first, known ones as they are now. */
export function merged(items, fresh) {
  const newest = new Map(fresh.map((item) => [item.id, item]));
  const known = new Set(items.map((item) => item.id));
  const begun = fresh.filter((item) => !known.has(item.id));
  return [...begun, ...items.map((item) => newest.get(item.id) ?? item)];
}
