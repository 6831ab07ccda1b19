// Events to a handler of the official JavaScript client, unmodified: hub.mjs URL COUNT
//
// Run by hub.py, in a folder where the client is installed.

import { Event, EventHub } from "@ftrack/api";

const [url, count] = process.argv.slice(2);
const hub = new EventHub(url, "developer", "key");
hub.connect();
await new Promise((resolve) => hub._socketIo.on("connect", resolve));

let handled = 0;
let started = 0;
let cpu;
hub.subscribe("topic=ftrack.update", () => {
  if (handled++ === 0) {
    started = performance.now();
    cpu = process.cpuUsage();
  }
});
hub.subscribe("topic=benchmark.end", () => {
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ handled, seconds, cpu: (user + system) / 1e6 }));
  process.exit(handled === Number(count) ? 0 : 1);
});
hub.publish(new Event("benchmark.play", {})).catch(() => {});
