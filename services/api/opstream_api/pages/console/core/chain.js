// Checks the hash chain of an operation in this browser (docs/audit.md, ADR 0024): each event carries the SHA-256 of the
// stored bytes of the event before it.

const ENCODER = new TextEncoder();

/** True if the browser lets this page compute hashes: it does so over https and on this machine only. */
export const CAN_HASH = Boolean(globalThis.crypto?.subtle);

/** Return the SHA-256 of a text's UTF-8 bytes as 64 hexadecimal digits. */
export async function sha256(text) {
  const digest = await crypto.subtle.digest("SHA-256", ENCODER.encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return an event's text as it is stored, from the one that the API shows: with authentication, its subject differs. */
export function storedText(text, ownId, storedId) {
  if (!storedId || storedId === ownId) return text;
  return text.replace(`"subject":${JSON.stringify(ownId)}`, () => `"subject":${JSON.stringify(storedId)}`);
}

/**
 * Return what the chain of an operation says.
 *
 * @param {{position: number, previoushash: string, hash: string, isForced: boolean}[]} events oldest first.
 * @returns {{verdict: "whole" | "broken" | "passed-over", findings: {position: number, text: string}[], begin: number}}
 */
export function checkChain(events) {
  const findings = [];
  let forced = false;
  events.forEach((event, index) => {
    const before = events[index - 1];
    if (event.isForced) {
      forced = true;
      if (before && event.previoushash !== before.hash) findings.push(changed(before, event));
    } else if (!before) {
      if (event.position === 1 && event.previoushash !== "") {
        findings.push({ position: 1, text: "The first event carries the hash of an event before it." });
      }
    } else if (event.position !== before.position + 1) {
      const text = `Event ${event.position} follows event ${before.position}: an event is missing, or was inserted.`;
      findings.push({ position: event.position, text });
    } else if (event.previoushash !== before.hash) findings.push(changed(before, event));
  });
  const begin = events[0]?.position ?? 1;
  const verdict = findings.length ? (forced ? "passed-over" : "broken") : "whole";
  return { verdict, findings, begin };
}

function changed(before, event) {
  return {
    position: before.position,
    text:
      `Event ${event.position} carries another SHA-256 than event ${before.position} has: ` +
      `event ${before.position} was changed after it had been stored, or event ${event.position} was.`,
  };
}
