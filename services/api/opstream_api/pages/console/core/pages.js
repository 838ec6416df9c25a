// Reads a list whose pages follow each other by `nextLink`.

import { BASE, send } from "./client.js";

/** A link names the host by which the service knows itself. The page stays with the one that it came from. */
export function nextPath(path, link) {
  return link ? `${path.split("?")[0]}${new URL(link, BASE).search}` : "";
}

/** Return `{items, isWhole}` of at most so many pages. */
export async function readPages(path, most, signal) {
  const items = [];
  let next = path;
  for (let page = 0; page < most; page += 1) {
    const { data } = await send("GET", next, { signal });
    items.push(...data.value);
    next = nextPath(path, data.nextLink);
    if (!next) return { items, isWhole: true };
  }
  return { items, isWhole: false };
}
