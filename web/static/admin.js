// The owner's pages refresh themselves in parts. One tells when what it showed has ended, and the page is read anew; when
// the box does not answer, what is shown stays, and a banner says that it may be old.
import { tellOffline } from "./frame.js";

document.addEventListener("htmx:after:swap", () => {
  if (document.querySelector("[data-ended]")) location.reload();
});
document.addEventListener("htmx:error", () => tellOffline(true));
document.addEventListener("htmx:after:request", (event) => tellOffline(event.detail.ctx.response.status >= 500));
