// A sentence of the box in an element: what stands between backticks is code, all else is text.
export function mark(element, text) {
  element.replaceChildren(...text.split(/`([^`]+)`/).map((part, place) => (
    place % 2 ? Object.assign(document.createElement("code"), { textContent: part }) : part
  )));
  return element;
}
