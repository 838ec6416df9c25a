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
