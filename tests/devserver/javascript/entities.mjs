// Creates, queries, updates, ensures, searches and deletes, as the client's documentation has it.

import assert from "node:assert/strict";
import { open, report } from "./peer.mjs";
import { operation } from "@ftrack/api";

await report(async () => {
  const session = open();
  await session.initializing;
  assert.ok(session.schemas.length > 20);
  const query = async (text, options) => (await session.query(text, options)).data;

  const [user] = await query(`select username from User where username is "${session.apiUser}"`);
  const created = await session.create("Job", {
    user_id: user.id,
    status: "running",
    data: JSON.stringify({ description: "From JavaScript" }),
  });
  assert.equal(created.action, "create");
  const job = created.data;
  assert.match(job.id, /^[0-9a-f-]{36}$/);
  assert.ok(job.created_at.isValid());

  const updated = await session.update("Job", job.id, { status: "done" });
  assert.equal(updated.data.status, "done");
  await session.update("Job", [job.id], { finished_at: new Date("2026-01-02T03:04:05Z") });
  const [found] = await query(
    `select status, finished_at, user.username from Job where id is "${job.id}"`,
    { decodeDatesAsIso: true },
  );
  assert.equal(found.status, "done");
  assert.equal(found.finished_at, "2026-01-02T03:04:05.000Z");
  assert.equal(found.user.username, session.apiUser);

  const first = await session.ensure("User", { username: "bo", first_name: "Bo" }, ["username"]);
  const again = await session.ensure("User", { username: "bo", first_name: "Bob" }, ["username"]);
  assert.equal(first.id, again.id);
  assert.equal(again.first_name, "Bob");

  const searched = await session.search({
    expression: "select username from User",
    entityType: "User",
    terms: ["bob"],
  });
  assert.deepEqual(searched.data.map((each) => each.username), ["bo"]);

  const answers = await session.call([
    operation.create("Job", { user_id: user.id }),
    operation.query("select id from Job"),
  ]);
  assert.equal(answers.length, 2);
  assert.equal(answers[1].data.length, 2);

  const deleted = await session.delete("Job", [job.id]);
  assert.equal(deleted.data, true);
  assert.equal((await query("select id from Job")).length, 1);

  const pages = await session.query("select id from User limit 2");
  assert.equal(pages.metadata.next.offset, 2);
});
