// A pipeline of fetch alone, in the shape that @azure/core-lro asks for: it tells of each request, and throws what
// clients generated for Azure throw for an answer that is an error. Used by driver.js.

/** What `@azure/core-lro` takes for the service's own error, by its name. */
class RestError extends Error {
  constructor(statusCode, { code, message }) {
    super(message);
    this.name = "RestError";
    this.statusCode = statusCode;
    this.code = code;
  }
}

/**
 * Makes the function that sends requests.
 * @param tell gets `{method, url, status, monitor, begun, ended}` of each: the HTTP status, the operation's, and
 *   milliseconds of this process.
 */
export function pipeline(tell) {
  return async function send(method, url, { body, headers, abortSignal } = {}) {
    const begun = performance.now();
    const answer = await fetch(url, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      signal: abortSignal,
    });
    const decoded = await answer.json();
    tell({ method, url, status: answer.status, monitor: decoded.status, begun, ended: performance.now() });
    if (!answer.ok) {
      throw new RestError(answer.status, decoded.error);
    }
    return {
      flatResponse: decoded,
      rawResponse: {
        statusCode: answer.status,
        headers: Object.fromEntries(answer.headers),
        body: decoded,
        request: { method, url, body },
      },
    };
  };
}
