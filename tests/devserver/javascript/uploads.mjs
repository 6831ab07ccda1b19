// Uploads in one part and in many; the sizes come as arguments: file and chunk.

import assert from "node:assert/strict";
import { open, report } from "./peer.mjs";

const [size, chunk] = process.argv.slice(2).map(Number);

await report(async () => {
  globalThis.window.FTRACK_UPLOAD_CHUNK_SIZE = chunk;
  const session = open();
  const content = new Uint8Array(size).map((_, index) => (index * 31) % 251);
  const progress = [];
  const [component, location, metadata] = await session.createComponent(new Blob([content]), {
    name: "Grüße frame.png",
    data: { size },
    onProgress: (percent) => progress.push(percent),
  });
  assert.equal(Boolean(metadata.urls), Math.ceil(size / chunk) > 2);
  assert.equal(location.data.component_id, component.data.id);

  const response = await fetch(session.getComponentUrl(component.data.id));
  assert.equal(response.status, 200);
  assert.deepEqual(new Uint8Array(await response.arrayBuffer()), content);

  const { data } = await session.query(
    "select name, file_type, size, component_locations.location.name from FileComponent",
  );
  assert.equal(data[0].file_type, ".png");
  assert.equal(data[0].size, size);
  assert.equal(data[0].component_locations[0].location.name, "ftrack.server");
  return { inParts: Boolean(metadata.urls) };
});
