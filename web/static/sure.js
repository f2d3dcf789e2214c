// A button with data-sure opens the dialog of that id instead of sending its form; without this script the box asks.
// `asks`: whether it does; where not, the box asks.
export function askFirst(button, told = () => "", asks = () => true) {
  const dialog = document.getElementById(button.dataset.sure);
  button.addEventListener("click", (event) => {
    if (!asks()) return;
    event.preventDefault();
    const text = told();
    if (text) dialog.querySelector("#sure-count").textContent = text;
    dialog.showModal();
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}

for (const button of document.querySelectorAll("button[data-sure]:not([data-own])")) askFirst(button);
