// Two clients on the event hub: events, replies, and another connection after the first is lost.

import assert from "node:assert/strict";
import { Event } from "@ftrack/api";
import { open, report } from "./peer.mjs";

/** Return a promise of the next event for *subscription* at *hub*. */
function next(hub, subscription) {
  return new Promise((resolve) => {
    const id = hub.subscribe(subscription, (event) => {
      hub.unsubscribe(id);
      resolve(event);
    });
  });
}

await report(async () => {
  const one = open({ autoConnectEventHub: true }).eventHub;
  // One client has one socket for each set of credentials; the second hub shares it.
  await new Promise((resolve) => one._socketIo.on("connect", resolve));

  one.subscribe("topic=question", (event) => ({ answer: event.data.number + 1 }));
  const reply = await one.publishAndWaitForReply(new Event("question", { number: 41 }), {
    timeout: 10,
  });
  assert.deepEqual(reply.data, { answer: 42 });

  const noted = next(one, "topic=ftrack.test.*");
  await one.publish(new Event("ftrack.test.note", { text: "fertig ✓" }));
  assert.equal((await noted).data.text, "fertig ✓");

  // The test drops the connection, or kills the server, when it sees this event.
  const again = new Promise((resolve) => one._socketIo.on("connect", resolve));
  one.subscribe("topic=lose", () => {});
  await one.publish(new Event("lose", {}));
  await again;
  const found = next(one, "topic=found");
  await one.publish(new Event("found", { second: true }));
  assert.deepEqual((await found).data, { second: true });
  const after = await one.publishAndWaitForReply(new Event("question", { number: 1 }), {
    timeout: 10,
  });
  return after.data;
});
