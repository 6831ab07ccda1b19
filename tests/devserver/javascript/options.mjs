// Options of a session: values of the server information, answers without shared objects.

import assert from "node:assert/strict";
import { open, report } from "./peer.mjs";

await report(async () => {
  const session = open({
    serverInformationValues: ["user_information", "schema_hash"],
    ensureSerializableResponse: true,
    clientToken: "token",
    additionalHeaders: { "x-studio": "north" },
  });
  await session.initializing;
  const told = session.serverInformation;
  assert.deepEqual(
    Object.keys(told).sort(),
    ["is_timezone_support_enabled", "schema_hash", "user_information"],
  );
  assert.equal(told.user_information.username, session.apiUser);

  const [user] = (await session.query("select id from User limit 1")).data;
  for (let count = 0; count < 2; count += 1) {
    await session.create("Job", { user_id: user.id }, { pushToken: "push" });
  }
  const { data } = await session.query("select user.username from Job");
  assert.equal(data[0].user.username, data[1].user.username);
  assert.ok(data[0].user.username);
  JSON.stringify(data);
});
