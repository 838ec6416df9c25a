// The actions of this service, as its OpenAPI document describes them to this caller.

const SUBMIT = /^\/([a-z0-9-]+)\/\{[^}]+\}:([a-z0-9-]+)$/;
const OWN = new Set(["status", "schedules", "actions"]);

/**
 * Return the actions of a document.
 *
 * @returns {{kind: string, summary: string, description: string, path: string, post: object}[]}
 */
export function actionsOf(document) {
  return Object.entries(document.paths)
    .map(([path, item]) => [path, item, SUBMIT.exec(path)])
    .filter(([, item, found]) => found && item.post && !OWN.has(found[1]))
    .map(([path, item, [, resource, action]]) => ({
      kind: `${resource}:${action}`,
      summary: item.post.summary ?? "",
      description: item.post.description ?? "",
      path,
      post: item.post,
    }))
    .sort((one, other) => one.kind.localeCompare(other.kind));
}

/** Follow a reference within a document. */
export function resolved(document, node) {
  if (!node?.$ref) return node;
  const found = node.$ref.slice(2).split("/").reduce((at, name) => at?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], document);
  return resolved(document, found);
}

/** Return an example of the input of an action, from `actionsOf`. */
export function sampleOf(document, action) {
  const content = contentOf(action);
  if (content.example !== undefined) return content.example;
  const example = resolved(document, Object.values(content.examples ?? {})[0]);
  return example?.value ?? {};
}

/** Return the schema of the input of an action. */
export function inputSchema(document, action) {
  return resolved(document, contentOf(action).schema) ?? {};
}

function contentOf(action) {
  return action.post.requestBody?.content?.["application/json"] ?? {};
}
