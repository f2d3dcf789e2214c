// A button with data-sure opens the dialog of that id instead of sending its form; without this script the box asks.
export function askFirst(button, told = () => "") {
  const dialog = document.getElementById(button.dataset.sure);
  button.addEventListener("click", (event) => {
    event.preventDefault();
    const text = told();
    if (text) dialog.querySelector("#sure-count").textContent = text;
    dialog.showModal();
  });
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}

for (const button of document.querySelectorAll("button[data-sure]:not([data-own])")) askFirst(button);
