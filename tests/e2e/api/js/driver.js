// Drives one operation with @azure/core-lro, and tells of it in JSON, one object a line. Started by
// tests/e2e/api/test_azure_javascript.py:
//
//     node driver.js '{"url": "http://…/azure:say", "body": {"text": "hello"}, "headers": {"Operation-Id": "1"}}'
//
// `restoreFrom` instead of a `url` goes on with what another process has serialized. `until` says what to do once the
// operation runs: "end" polls on, "cancel" cancels it and polls on, "handover" tells the serialized poller and stops.

import { createHttpPoller } from "@azure/core-lro";

import { pipeline } from "./pipeline.js";

const { url, body, headers, restoreFrom, until = "end" } = JSON.parse(process.argv[2]);

function tell(event, told) {
  console.log(JSON.stringify({ event, ...told }));
}

let seen;
const send = pipeline((exchange) => {
  seen = exchange.monitor;
  tell("exchange", exchange);
});
const poller = createHttpPoller(
  {
    sendInitialRequest: () => send("POST", url, { body, headers }),
    sendPollRequest: (location, { abortSignal } = {}) => send("GET", location, { abortSignal }),
  },
  { restoreFrom, processResult: async (monitor) => monitor.result },
);
poller.onProgress((state) => tell("progress", { status: state.status }));

async function drive() {
  await poller.submitted();
  while (until !== "end" && seen !== "Running") {
    await poller.poll();
  }
  if (until === "cancel") {
    await send("POST", `${poller.operationState.config.operationLocation}:cancel`, { body: { reason: "enough" } });
  }
  if (until === "handover") {
    tell("handover", { serialized: await poller.serialize() });
    return;
  }
  const result = await poller.pollUntilDone();
  tell("result", { result });
}

try {
  await drive();
} catch (error) {
  const { name, message, code, statusCode } = error;
  tell("error", { name, message, code, statusCode });
}
const state = poller.operationState;
tell("state", { status: state?.status, isDone: poller.isDone, error: state?.error?.message, result: state?.result });
