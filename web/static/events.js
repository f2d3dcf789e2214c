// The one event stream of a tab: browsers allow six connections to a host.
import { call } from "./csrf.js";
import { tellOffline } from "./frame.js";

const AGAIN_MS = 5_000;

const KINDS = ["snapshot", "status", "progress", "preview", "alert"];
const listeners = new Map(KINDS.map((kind) => [kind, new Set()]));
let source = null;

function open() {
  source = new EventSource("/v1/events");
  source.addEventListener("open", () => tellOffline(false));
  source.addEventListener("error", () => {
    tellOffline(true);
    // Closed for good: refused (signed out, too many streams). Look again later rather than never; `call` leads whoever is
    // signed out to the sign-in.
    if (source.readyState === EventSource.CLOSED) call("GET", "/v1/me").catch(() => {}).then(() => setTimeout(open, AGAIN_MS));
  });
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => {
      tellOffline(false);
      const data = JSON.parse(event.data);
      for (const listener of listeners.get(kind)) listener(data);
    });
  }
}

// Calls `listener` with each event of a kind: snapshot, status, progress, preview or alert.
export function on(kind, listener) {
  listeners.get(kind).add(listener);
  if (source === null) open();
}

// The stream ends with the session: whoever signs out needs not be told so.
document.querySelector('form[action="/sign-out"]')?.addEventListener("submit", () => { source?.close(); });
window.addEventListener("pagehide", () => { source?.close(); });
window.addEventListener("pageshow", (event) => { if (event.persisted && source) open(); });
