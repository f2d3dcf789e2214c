// The owner's pages: a part that refreshes itself tells when what it showed has ended, and the page is read anew.
document.addEventListener("htmx:after:swap", () => {
  if (document.querySelector("[data-ended]")) location.reload();
});
