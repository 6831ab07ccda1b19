// What the uploader of the client expects of a browser, as far as Node does not have it.

import XMLHttpRequest from "xhr2";

/** The stand-in from npm, which knows buffers but no blobs. */
class BlobRequest extends XMLHttpRequest {
  send(body) {
    if (!(body instanceof Blob)) {
      super.send(body);
      return;
    }
    body.arrayBuffer().then((content) => super.send(content));
  }
}

const events = new EventTarget();

globalThis.XMLHttpRequest = BlobRequest;
globalThis.window = {
  navigator: { onLine: true },
  addEventListener: events.addEventListener.bind(events),
  removeEventListener: events.removeEventListener.bind(events),
};
