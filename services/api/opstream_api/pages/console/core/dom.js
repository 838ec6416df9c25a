// Builds and updates the page. Values become text nodes and attributes, never markup, so what an operation says of
// itself can't become a script.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = Symbol("handlers");
/** Attributes that the reader of the page changes, and an update must leave alone. */
const KEPT = new Set(["open", "value"]);

/** Return an HTML element. Properties: `on` (handlers), `style` (CSS properties), `key` (identity), else attributes. */
export function h(tag, properties = {}, ...children) {
  return build(document.createElement(tag), properties, children);
}

/** Return an SVG element. */
export function s(tag, properties = {}, ...children) {
  return build(document.createElementNS(SVG, tag), properties, children);
}

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [type, handler] of Object.entries(value)) listen(element, type, handler);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else if (name === "key") {
      element.dataset.key = value;
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter(isShown).map(asNode));
  return element;
}

function isShown(child) {
  return child !== undefined && child !== null && child !== false && child !== "";
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

function listen(element, type, handler) {
  element[HANDLERS] ??= {};
  if (!(type in element[HANDLERS])) {
    element.addEventListener(type, (event) => element[HANDLERS][type]?.(event));
  }
  element[HANDLERS][type] = handler;
}

/** Make an element's children look like new ones, and keep what has not changed: focus, selection, what is open. */
export function render(container, ...children) {
  const fresh = container.cloneNode(false);
  fresh.append(...children.flat(Infinity).filter(isShown).map(asNode));
  updateChildren(container, fresh);
}

/** Make an element look like a new one of its kind, and keep what has not changed, as `render` does. */
export function update(live, fresh) {
  if (!isSameKind(live, fresh)) {
    live.replaceWith(fresh);
    return;
  }
  if (live.nodeType === Node.TEXT_NODE) {
    if (live.data !== fresh.data) live.data = fresh.data;
    return;
  }
  for (const name of live.getAttributeNames()) {
    if (!fresh.hasAttribute(name) && !KEPT.has(name) && name !== "style") live.removeAttribute(name);
  }
  for (const name of fresh.getAttributeNames()) {
    const value = fresh.getAttribute(name);
    if (name !== "style" && !KEPT.has(name) && live.getAttribute(name) !== value) live.setAttribute(name, value);
  }
  updateStyle(live, fresh);
  for (const [type, handler] of Object.entries(fresh[HANDLERS] ?? {})) listen(live, type, handler);
  if (!live.hasAttribute("data-own-children")) updateChildren(live, fresh);
}

function updateStyle(live, fresh) {
  if (!live.style || !fresh.style || live.style.cssText === fresh.style.cssText) return;
  for (const property of [...live.style]) {
    if (!fresh.style.getPropertyValue(property)) live.style.removeProperty(property);
  }
  for (const property of fresh.style) live.style.setProperty(property, fresh.style.getPropertyValue(property));
}

function updateChildren(live, fresh) {
  const keyed = new Map();
  for (const child of live.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = live.firstChild;
  for (const next of [...fresh.childNodes]) {
    const known = next.dataset?.key ? keyed.get(next.dataset.key) : undefined;
    if (known && known !== at) live.insertBefore(known, at);
    if (known) at = known;
    if (at === null) {
      live.append(next);
      continue;
    }
    if (!isSameKind(at, next) && at.dataset?.key) {
      live.insertBefore(next, at);
      continue;
    }
    const following = at.nextSibling;
    update(at, next);
    at = following;
  }
  while (at !== null) {
    const following = at.nextSibling;
    at.remove();
    at = following;
  }
}

function isSameKind(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && one.dataset?.key === other.dataset?.key;
}
