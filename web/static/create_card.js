// One job on the page of /create: how far it is, how it looks by now, what it became, and what can be done with it.
import { about, charged, facts, isOfStandIn, percent, short, standing, stopped } from "./create_words.js";
import { clip, local, still } from "./create_media.js";
import { mark } from "./marked.js";

const template = document.getElementById("card");
const ENDS = ["completed", "failed"];
export const hasEnded = (job) => ENDS.includes(job.status);

export class Card {
  // `acts`: what the buttons do, each given the card: cancel, rerun, vary, use, code. `titleOf` a model's id.
  constructor(job, acts, titleOf) {
    this.acts = acts;
    this.titleOf = titleOf;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.job = job.job_id;
    this.chosen = 0;
    this.part("cancel").addEventListener("click", () => acts.cancel(this));
    this.update(job);
  }

  part(name) { return this.element.querySelector(`.${name}`); }

  update(job) {
    this.job = job;
    const isOpen = !hasEnded(job);
    this.element.classList.toggle("open", isOpen);
    this.element.classList.toggle("running", job.status === "running");
    this.element.classList.toggle("finished", job.status === "completed");
    this.element.classList.toggle("failed", job.status === "failed");
    this.element.setAttribute("aria-label", `${job.type}: ${short(job.prompt)}`);
    this.part("prompt").textContent = job.prompt;
    this.part("facts").textContent = facts(job, this.titleOf);
    this.part("screen").style.setProperty("--ratio", job.width / job.height);
    this.part("progress").hidden = !isOpen;
    this.showNotes();
    if (isOpen) this.showProgress();
    else if (!this.isEnded) this.showEnd();
  }

  // What a person should know of it: unknown words, a stand-in, an upscaled output.
  showNotes() {
    const told = this.job.notes ?? [];
    const notes = this.part("notes");
    notes.hidden = told.length === 0;
    if (notes.children.length === told.length) return;
    notes.replaceChildren(...told.map((note) => {
      const line = mark(document.createElement("li"), note);
      line.classList.toggle("stands-in", isOfStandIn(note));
      return line;
    }));
  }

  showProgress() {
    const { job } = this;
    const bar = this.part("progress").querySelector("progress");
    this.part("phase").textContent = job.status === "running" ? `${standing(job)} · ${percent(job)}` : standing(job);
    this.part("eta").textContent = job.eta_seconds ? about(job.eta_seconds) : "";
    bar.value = job.progress;
    if (job.status !== "queued") this.tellWhy(null);
    this.part("cancel").disabled = Boolean(job.cancel_requested);
  }

  // Why it waits, where the box can say.
  tellWhy(reason) {
    this.part("why").textContent = reason ? `${reason[0].toUpperCase()}${reason.slice(1)}.` : "";
    this.part("why").hidden = !reason;
  }

  // How it looks by now, as a small picture.
  preview(address) {
    if (hasEnded(this.job)) return;
    let image = this.part("media").querySelector("img.preview");
    if (!image) {
      image = Object.assign(document.createElement("img"), { className: "preview", alt: "How it looks by now" });
      this.part("media").replaceChildren(image);
    }
    image.src = address;
    this.part("veil").hidden = true;
  }

  showEnd() {
    this.isEnded = true;
    this.part("veil").remove();
    this.part("media").replaceChildren();
    if (this.job.status === "completed") {
      this.showResult();
      if (this.job.results.length > 1) this.showStrip();
    } else {
      this.showFailure();
    }
    this.showActions();
  }

  showResult() {
    const result = this.job.results[this.chosen];
    this.media = this.job.type === "video" ? clip(result, this.job) : still(result, this.job);
    this.part("media").replaceChildren(this.media);
  }

  showStrip() {
    const strip = this.part("strip");
    strip.hidden = false;
    strip.replaceChildren(...this.job.results.map((result, place) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      const image = Object.assign(document.createElement("img"), { alt: `Image ${place + 1}, seed ${result.seed}`, loading: "lazy" });
      image.src = local(result.thumbnail_url ?? result.url);
      button.setAttribute("aria-pressed", String(place === 0));
      button.append(image);
      button.addEventListener("click", () => this.choose(place));
      return button;
    }));
  }

  choose(place) {
    this.chosen = place;
    [...this.part("strip").children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === place)));
    this.showResult();
    this.showActions();
  }

  showFailure() {
    const { job } = this;
    const ended = this.part("ended");
    const isStopped = job.error_code === "cancelled";
    const reason = mark(document.createElement("p"), isStopped ? stopped(job.error) : job.error);
    this.element.classList.toggle("stopped", isStopped);
    const money = Object.assign(document.createElement("p"), { className: "hint", textContent: charged(job) });
    ended.replaceChildren(reason, money);
    ended.hidden = false;
    this.part("screen").hidden = true;
  }

  showActions() {
    const { job, acts } = this;
    const does = (name, act) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "button quiet small", textContent: name });
      button.addEventListener("click", () => act(this, button));
      return button;
    };
    const leads = (name, href, download = false) => {
      const link = Object.assign(document.createElement("a"), { className: "button quiet small", textContent: name, href });
      if (download) {
        link.download = "";
        link.classList.remove("quiet");
      }
      return link;
    };
    const buttons = job.status === "completed"
      ? [
        leads("Download", local(job.results[this.chosen].url), true),
        does("Vary", acts.vary),
        does("Rerun", acts.rerun),
        ...(acts.use ? [does("Use as reference", acts.use)] : []),
        does("Copy as code", acts.code),
        leads("Open in library", `/library/${job.job_id}`),
      ]
      : [does("Try again", acts.rerun), does("Change and retry", acts.vary), does("Copy as code", acts.code)];
    this.part("actions").replaceChildren(...buttons);
    this.part("actions").hidden = false;
  }
}
