// A session of the official client with the server that the environment names, and an end.

import "./browser.mjs";
import { Session } from "@ftrack/api";

export function open(options = {}) {
  const { SERVER_URL, API_USER, API_KEY } = process.env;
  return new Session(SERVER_URL, API_USER, API_KEY, {
    autoConnectEventHub: false,
    ...options,
  });
}

/** Run *work*, print what it returns as JSON, and end with 1 if it fails. */
export async function report(work) {
  try {
    console.log(JSON.stringify((await work()) ?? null));
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
