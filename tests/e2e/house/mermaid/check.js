// Parse diagrams with mermaid itself. Arguments are files with one diagram each; prints a line of JSON for each.
import { readFileSync } from "node:fs";

import DOMPurify from "dompurify";

// Without a browser there is nothing to clean labels for, and mermaid's sanitizer has no methods.
DOMPurify.addHook = () => {};
DOMPurify.sanitize = (text) => text;

const { default: mermaid } = await import("mermaid");

for (const file of process.argv.slice(2)) {
  try {
    const { diagramType } = await mermaid.parse(readFileSync(file, "utf8"));
    console.log(JSON.stringify({ type: diagramType, error: "" }));
  } catch (error) {
    console.log(JSON.stringify({ type: "", error: String(error.message) }));
  }
}
