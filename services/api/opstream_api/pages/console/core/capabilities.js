// What this service can do, by its own OpenAPI document: the page shows a button only where the API has the request.

import { send } from "./client.js";

let loading;
let loadedAt = 0;
const FRESH = 30_000;

/** Return the OpenAPI document, at most half a minute old. Throws `ApiError`. */
export async function openapi() {
  if (!loading || Date.now() - loadedAt > FRESH) {
    loadedAt = Date.now();
    loading = send("GET", "openapi.json").then((answer) => answer.data);
    loading.catch(() => forget());
  }
  return loading;
}

/** Read the document again with the next question, as with other credentials. */
export function forget() {
  loading = undefined;
}

/** Return true if the API has a path, with any names of its parameters: `/status/{}:retry`. */
export async function hasPath(shape) {
  const { paths } = await openapi();
  return Object.keys(paths).some((path) => path.replaceAll(/\{[^}]*\}/g, "{}") === shape);
}
