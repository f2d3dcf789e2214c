// What every page does: local times, copy buttons, and a word when the box does not answer.
import { showTimes } from "./times.js";
import { copyText } from "./copy.js";

showTimes(document);
// A part of a page that htmx has replaced.
document.addEventListener("htmx:after:swap", (event) => showTimes(event.target instanceof Element ? event.target : document));

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const before = button.textContent;
  button.textContent = (await copyText(source)) ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { button.textContent = before; }, 2000);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// A double click sends a form once. The page may stay, as with a download: then it can be sent again in a moment.
const DOUBLE_CLICK_MS = 1_000;
const sent = new WeakMap();
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (performance.now() - (sent.get(event.target) ?? -Infinity) < DOUBLE_CLICK_MS) event.preventDefault();
  else sent.set(event.target, performance.now());
});

const offline = document.getElementById("offline");
export function tellOffline(isOffline) {
  offline.hidden = !isOffline;
}
window.addEventListener("offline", () => tellOffline(true));
window.addEventListener("online", () => tellOffline(false));
