// Reads AsyncAPI documents with the official parser, and tells what it says of each in JSON, one object a line.
// Started by tests/e2e/api/test_asyncapi.py:
//
//     node check.js static.json served.json

import { readFile } from "node:fs/promises";

import { Parser } from "@asyncapi/parser";

const parser = new Parser();

for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(path, "utf8"), { source: path });
  console.log(
    JSON.stringify({
      diagnostics: diagnostics.map(({ severity, code, message, path: at }) => ({
        severity,
        code: String(code),
        message,
        at: at.join("/"),
      })),
      channels: document?.channels().map((channel) => ({ id: channel.id(), address: channel.address() })),
      operations: document?.operations().map((operation) => ({
        id: operation.id(),
        action: operation.action(),
        bindings: operation.bindings().map((binding) => [binding.protocol(), binding.version()]),
        messages: operation.messages().map((message) => ({
          name: message.name(),
          contentType: message.contentType(),
          correlationId: message.correlationId()?.location(),
          headers: message.headers()?.json(),
          payload: message.payload()?.title(),
        })),
      })),
    }),
  );
}
