// What a model of a small world knows: prompts to try, all its words, and what it makes nothing of in this prompt.
const part = (name, properties) => Object.assign(document.createElement(name), properties);

export class Vocabulary {
  // `choose` is called with an example that is to be the prompt.
  constructor(choose) {
    this.choose = choose;
    this.element = document.getElementById("words");
    this.notes = document.getElementById("words-notes");
  }

  // Of a model; hidden where that reads any words.
  show(model) {
    if (this.model === model?.id) return;
    this.model = model?.id;
    const known = model?.vocabulary;
    this.element.hidden = !known;
    if (!known) return;
    document.getElementById("words-examples").replaceChildren(...known.examples.map((example) => {
      const button = part("button", { type: "button", className: "button small", textContent: example });
      button.addEventListener("click", () => this.choose(example));
      return button;
    }));
    document.getElementById("words-known").replaceChildren(...Object.entries(known.knows).flatMap(([topic, words]) => [
      part("dt", { textContent: topic }),
      part("dd", { textContent: words.join(", ") }),
    ]));
  }

  // What a quote says of the prompt; nothing for an empty one.
  tell(notes) {
    const told = notes.join(" ");
    if (this.notes.textContent !== told) this.notes.textContent = told;
    this.notes.hidden = told === "";
  }
}
