// Finding a call by what is said of it: all of the words must be there.
const finder = document.getElementById("finder");
const field = document.getElementById("find");
const contents = document.getElementById("contents");
const found = document.getElementById("found");
const nothing = document.getElementById("nothing");
const entries = [...document.querySelectorAll("[data-entry]")].map((element) => ({
  element,
  link: document.querySelector(`[data-for="${CSS.escape(element.id)}"]`),
  text: (element.querySelector(".op-text") ?? element).textContent.toLowerCase(),
}));
const rest = document.querySelectorAll("[data-rest]");
const groups = [...document.querySelectorAll("[data-group]")];

function find() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let calls = 0;
  const open = new Set();
  for (const { element, link, text } of entries) {
    const fits = words.every((word) => text.includes(word));
    element.hidden = !fits;
    if (link) link.hidden = !fits;
    if (link && fits) calls += 1;
    if (fits) open.add(element.closest("[data-group]").dataset.group);
  }
  for (const group of groups) group.hidden = !open.has(group.dataset.group);
  // What is found stands at the top, in sight.
  for (const element of rest) element.hidden = words.length > 0;
  nothing.hidden = open.size > 0;
  found.textContent = words.length ? `${calls} of ${entries.filter((entry) => entry.link).length} calls` : "";
}

finder.hidden = false;
field.addEventListener("input", find);
field.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  field.value = "";
  find();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
  event.preventDefault();
  if (!field.checkVisibility()) contents.showPopover(); // where it is narrow
  field.focus();
});
// Where the contents lie over the page, they go when one is chosen, or is searched for.
const closeContents = () => { if (contents.matches(":popover-open")) contents.hidePopover(); };
contents.addEventListener("click", (event) => { if (event.target.closest("a")) closeContents(); });
field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // the button that opened them has the focus next
  closeContents();
  entries.find(({ element }) => !element.hidden)?.element.scrollIntoView();
});
// A link to what the filter hides, such as an answer's object, shows all again.
window.addEventListener("hashchange", () => {
  const target = document.getElementById(location.hash.slice(1));
  if (!target?.closest("[hidden]")) return;
  field.value = "";
  find();
  target.scrollIntoView();
});
find();
