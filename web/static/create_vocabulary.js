// What a model of a small world knows: prompts to try, all its words, and what it makes nothing of in this prompt.
import { mark } from "./marked.js";

const EXAMPLES = / It knows a small world; try “.*”\.$/; // they stand below, as buttons

const part = (name, properties) => Object.assign(document.createElement(name), properties);

export class Vocabulary {
  // `choose` is called with an example that is to be the prompt.
  constructor(choose) {
    this.choose = choose;
    this.element = document.getElementById("words");
    this.notes = document.getElementById("words-notes");
    this.ideas = document.getElementById("ideas");
    this.prompt = document.getElementById("prompt");
    this.placeholder = this.prompt.placeholder;
  }

  // Of a model; hidden where that reads any words.
  show(model) {
    if (this.model === model?.id) return;
    this.model = model?.id;
    const known = model?.vocabulary;
    this.element.hidden = !known;
    this.prompt.placeholder = known?.examples[0] ?? this.placeholder;
    this.ideas.hidden = Boolean(known); // its own examples stand in the form
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
    const told = notes.map((note) => note.replace(EXAMPLES, "")).join(" ");
    if (this.told !== told) mark(this.notes, told); // what has not changed is not read out again
    this.told = told;
    this.notes.hidden = told === "";
  }
}
