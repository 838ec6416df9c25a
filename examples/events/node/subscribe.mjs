// Subscribes to the ends of operations with Node, nats.js 3.4 and nothing of opstream's. Copy it.
//
//   npm install && node subscribe.mjs nats://127.0.0.1:4222 'book:*' mailer
//
// Prints a line for each operation of the action that ended. It survives restarts of the broker and of itself: the
// durable consumer keeps its position, and unacknowledged events are redelivered. Several processes share the events.
import { AckPolicy, DeliverPolicy, JetStreamApiError, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";

const STREAM = "OPERATIONS";
const ENDS = ["succeeded", "failed", "canceled"];
const ACK_WAIT = 30_000;
const MAX_DELIVERIES = 20;
const LONGEST = 300_000;
const NOT_FOUND = 10014;

class Unreadable extends Error {}

// Your work. It may get an event twice, with the same event.id. If it throws, it is retried.
export async function handle(event) {
  const name = event.type.replace(/^opstream\.action\./, "").replace(/\.v1$/, "");
  console.log(name, event.subject, JSON.stringify(event.data));
}

// An existing durable continues at its position; one with other filters belongs to another program.
async function makeDurable(connection, kind, durable) {
  const [resource, action] = kind.split(":");
  const filters = ENDS.map((event) => `operations.*.${resource}.${action}.${event}`);
  const manager = await jetstreamManager(connection);
  try {
    const { config } = await manager.consumers.info(STREAM, durable);
    const found = config.filter_subjects ?? [config.filter_subject];
    if ([...found].sort().join() !== [...filters].sort().join()) {
      throw new Error(`durable ${durable} is there with other filters (${found}): take another name`);
    }
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === NOT_FOUND)) throw error;
    await manager.consumers.add(STREAM, {
      durable_name: durable,
      filter_subjects: filters,
      ack_policy: AckPolicy.Explicit,
      deliver_policy: DeliverPolicy.New,
      ack_wait: nanos(ACK_WAIT),
      max_ack_pending: 1000,
    });
  }
}

function decode(message) {
  try {
    const event = message.json();
    if (event.specversion === "1.0" && event.type.endsWith(".v1")) return event;
  } catch {
    // as below
  }
  throw new Unreadable(`message ${message.seq} is no event that this program knows`);
}

// Handle one message, and acknowledge it, or have it redelivered.
async function processMessage(message, work) {
  const tries = message.info.deliveryCount;
  const heartbeats = setInterval(() => message.working(), ACK_WAIT / 3); // or the broker gives it to another process
  try {
    await work(decode(message));
    message.ack();
  } catch (error) {
    // A poison message must not be retried for ever. The event stays in the stream: nats stream get OPERATIONS SEQUENCE
    if (error instanceof Unreadable || tries >= MAX_DELIVERIES) {
      console.error(`given up: message ${message.seq} of ${STREAM}: ${error.message}`);
      message.term();
    } else {
      const pause = Math.min(2 ** (tries - 1) * 1000, LONGEST) * (0.5 + Math.random() / 2);
      console.error(`failed: message ${message.seq}, again in ${(pause / 1000).toFixed(1)} s: ${error.message}`);
      message.nak(Math.round(pause));
    }
  } finally {
    clearInterval(heartbeats);
  }
}

export async function main(work = handle) {
  const [server, kind, durable] = process.argv.slice(2);
  if (!durable || !/^[^:]+:[^:]+$/.test(kind)) {
    throw new Error("usage: node subscribe.mjs NATS_URL RESOURCE:ACTION DURABLE (e.g. nats://127.0.0.1:4222 'book:*' mailer)");
  }
  const connection = await connect({ servers: server, maxReconnectAttempts: -1, reconnectTimeWait: 500 });
  await makeDurable(connection, kind, durable);
  const consumer = await jetstream(connection).consumers.get(STREAM, durable);
  // One at a time. A deleted durable throws: a person must decide where to continue. nats.js would ask again without a
  // pause, and never notice, if it found the durable missing while one request counts as too few (a threshold of 1).
  const messages = await consumer.consume({
    max_messages: 1,
    threshold_messages: 0.5,
    expires: 5_000, // it looks for the durable after as long without an answer
    abort_on_missing_resource: true,
  });
  let isStopping = false;
  for (const signal of ["SIGTERM", "SIGINT"]) {
    process.once(signal, () => {
      isStopping = true;
      messages.stop(); // the running handler finishes first
    });
  }
  try {
    for await (const message of messages) {
      if (isStopping) message.nak();
      else await processMessage(message, work);
    }
  } catch (error) {
    throw new Error(`durable ${durable} was deleted: what happened since then is only in the stream`, { cause: error });
  }
  await connection.drain();
}

if (import.meta.url === `file://${process.argv[1]}`) {
  main().catch((error) => {
    console.error(`subscribe: ${error.message}`);
    process.exit(1);
  });
}
