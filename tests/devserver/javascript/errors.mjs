// Refusals become the client's error classes, with and without real statuses.

import assert from "node:assert/strict";
import { error } from "@ftrack/api";
import { open, report } from "./peer.mjs";

const { ServerError, ServerValidationError } = error;

await report(async () => {
  for (const strictApi of [false, true]) {
    const session = open({ strictApi });
    await assert.rejects(session.query("select from"), ServerError);
    await assert.rejects(session.create("Job", { status: "paused" }), (refusal) => {
      assert.ok(refusal instanceof ServerValidationError);
      assert.match(refusal.message, /'paused' is not a value of Job.status/);
      return true;
    });
    await assert.rejects(session.call([{ action: "dance" }]), /Invalid action u'dance'/);
    const { data } = await session.query("select id from Job");
    assert.equal(data.length, 0);
  }
});
