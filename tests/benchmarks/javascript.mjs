// The workloads with the official JavaScript client, unmodified: javascript.mjs WORKLOAD [ARGUMENT ...]
//
// Run by farm.py, in a folder where the client is installed.

import { readFileSync, writeFileSync } from "node:fs";
import { Session } from "@ftrack/api";

const UPDATES = 10;
const PAGE = 500;
const READING = "select id, status, user.username from Job";

async function open() {
  const { FTRACK_SERVER, FTRACK_API_USER, FTRACK_API_KEY } = process.env;
  const session = new Session(FTRACK_SERVER, FTRACK_API_USER, FTRACK_API_KEY, {
    autoConnectEventHub: false,
  });
  await session.initializing;
  const { data } = await session.query(
    `select id from User where username is "${FTRACK_API_USER}" limit 1`,
  );
  return { session, user: data[0] };
}

/** Return a size of this process, in MiB, as the system reports it (Linux). */
function memory(name) {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(status.match(new RegExp(`^${name}:\\s+(\\d+)`, "m"))[1]) / 1024;
}

/** Run *work*; print its wall and processor time in seconds, and the memory it took in MiB. */
async function measure(work) {
  const idle = memory("VmRSS");
  writeFileSync("/proc/self/clear_refs", "5"); // reset the peak
  const usage = process.cpuUsage();
  const started = performance.now();
  const facts = await work();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(usage);
  const above_idle = memory("VmHWM") - idle;
  console.log(JSON.stringify({ seconds, cpu: (user + system) / 1e6, above_idle, idle, ...facts }));
}

async function farm(tasks, cycles) {
  const { session, user } = await open();
  const work = async () => {
    for (let cycle = 0; cycle < Number(cycles); cycle += 1) {
      const { data: job } = await session.create("Job", { user_id: user.id, status: "running" });
      for (let step = 0; step < UPDATES; step += 1) {
        await session.update("Job", [job.id], { data: `{"description": "step ${step}"}` });
      }
      await session.update("Job", [job.id], { status: "done" });
    }
  };
  await measure(async () => {
    await Promise.all(Array.from({ length: Number(tasks) }, work));
  });
}

async function read() {
  const { session } = await open();
  await measure(async () => {
    const names = new Set();
    let offset = 0;
    const jobs = [];
    while (offset !== null) {
      const { data, metadata } = await session.query(`${READING} offset ${offset} limit ${PAGE}`);
      jobs.push(...data);
      offset = metadata.next.offset;
    }
    for (const job of jobs) {
      names.add(`${job.status} ${job.user.username}`);
    }
    return { found: names.size };
  });
}

const [name, ...parameters] = process.argv.slice(2);
await { farm, read }[name](...parameters);
process.exit(0);
