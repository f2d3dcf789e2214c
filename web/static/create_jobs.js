// The jobs of the page: what the box tells of them, by its events and by looking again, in cards from new to old.
import { call } from "./csrf.js";
import { on } from "./events.js";
import { Card, hasEnded } from "./create_card.js";
import { playWhenSeen } from "./create_media.js";
import { percent, short, standing } from "./create_words.js";

const LOOK_MS = 4_000; // positions and times left are told by no event
const SOON_MS = 300;
const OPEN_MAX = 100;
const SHOWN_MAX = 60;
const MINE = "create-mine"; // the jobs that were asked for in this tab: they play when they are done

export class Jobs {
  // `acts` are the cards' buttons; `moved` is called when a job begins or ends, as prices and times change then.
  constructor(state, acts, moved) {
    this.titles = new Map(state.models.map((model) => [model.id, model.title]));
    this.acts = acts;
    this.moved = moved;
    this.cards = new Map();
    this.list = document.getElementById("jobs");
    this.spoken = document.getElementById("spoken");
    this.title = document.title;
    this.mine = kept();
    for (const job of [...state.jobs].reverse()) this.put(job);
    this.list.setAttribute("aria-busy", "false");
    this.showNothing();
    on("snapshot", (told) => this.reconcile(told.data));
    on("status", (told) => this.onStatus(told));
    on("progress", (told) => this.onProgress(told));
    on("preview", (told) => this.cards.get(told.job_id)?.preview(told.image));
    setInterval(() => { if (!document.hidden) this.look(); }, LOOK_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.look(); });
  }

  get open() { return [...this.cards.values()].filter((card) => !hasEnded(card.job)); }

  // A job of this tab that has just been taken by the box.
  begin(accepted, prompt) {
    this.mine.add(accepted.job_id);
    this.keepMine();
    if (!this.cards.has(accepted.job_id)) {
      const unknown = { progress: 0, phase: "waiting", queue_position: null, eta_seconds: null, priority: "interactive" };
      this.put({ ...unknown, ...accepted, prompt });
    }
    const card = this.cards.get(accepted.job_id);
    if (hasEnded(card.job)) { // the event of its end was quicker than the answer
      this.say(card.job);
      this.finish(card);
    }
    card.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    this.soon();
    return card;
  }

  // A job as it stands now: a card is made, or brought up to date, and never set back.
  put(job) {
    let card = this.cards.get(job.job_id);
    if (!card) {
      card = new Card(job, this.acts, (model) => this.titles.get(model) ?? model);
      this.cards.set(job.job_id, card);
      this.place(card);
      this.showNothing();
      if (hasEnded(job)) this.finish(card);
      return this.showTitle();
    }
    const before = card.job;
    if (hasEnded(before)) return;
    const progress = hasEnded(job) || job.status === "queued" ? job.progress : Math.max(job.progress, before.progress);
    card.update({ ...before, ...job, progress });
    if (this.mine.has(job.job_id) && (before.status !== job.status || before.phase !== job.phase)) this.say(card.job);
    if (hasEnded(job)) this.finish(card);
    this.showTitle();
  }

  place(card) {
    const at = card.job.created_at;
    const after = [...this.list.children].find((element) => this.cards.get(element.dataset.job).job.created_at <= at);
    this.list.insertBefore(card.element, after ?? null);
    // Of a long day's work the oldest ends leave the page: they are in the library.
    const ended = [...this.cards.values()].filter((each) => hasEnded(each.job));
    if (this.cards.size <= SHOWN_MAX || ended.length === 0) return;
    const oldest = ended.reduce((one, other) => (one.job.created_at < other.job.created_at ? one : other));
    oldest.element.remove();
    this.cards.delete(oldest.job.job_id);
  }

  finish(card) {
    if (!this.mine.delete(card.job.job_id)) return;
    this.keepMine();
    if (card.job.status !== "completed" || card.job.type !== "video") return;
    playWhenSeen(card.media).then((how) => { card.element.dataset.plays = how; });
  }

  onStatus(told) {
    const card = this.cards.get(told.job_id);
    if (told.prompt !== undefined) this.put(told); // an end is told with the whole job
    else if (card) this.put({ ...card.job, ...told });
    else this.fetch(told.job_id);
    this.soon();
    this.moved();
  }

  onProgress(told) {
    const card = this.cards.get(told.job_id);
    if (card) this.put({ ...card.job, ...told });
    else this.fetch(told.job_id);
  }

  // All open jobs as the box has them: what is open here and not there has ended meanwhile.
  reconcile(jobs) {
    const before = this.open;
    const known = new Set(jobs.map((job) => job.job_id));
    for (const job of [...jobs].reverse()) this.put(job);
    if (jobs.length < OPEN_MAX) for (const card of before) if (!known.has(card.job.job_id)) this.fetch(card.job.job_id);
  }

  async fetch(id) {
    try {
      this.put(await call("GET", `/v1/jobs/${id}`));
    } catch { /* gone, or the box does not answer: the next look tells */ }
  }

  async look() {
    if (this.open.length === 0) return;
    if (this.isLooking) { // one at a time: a box that is slow to answer is not asked ever more
      this.looksAgain = true;
      return;
    }
    this.isLooking = true;
    try {
      const ask = (status) => call("GET", `/v1/jobs?limit=${OPEN_MAX}&status=${status}`);
      // Queued first: a job that begins in between is then in both, and in neither never.
      const queued = await ask("queued");
      const running = await ask("running");
      const latest = new Map([...queued.data, ...running.data].map((job) => [job.job_id, job]));
      this.reconcile([...latest.values()]);
      await this.askWhy();
    } catch { /* the page says that the box does not answer */ } finally {
      this.isLooking = false;
      if (this.looksAgain) this.soon();
      this.looksAgain = false;
    }
  }

  // What holds up the first of them: the artist has paused the box, or the model has no room yet.
  async askWhy() {
    const waiting = this.open.filter((card) => card.job.status === "queued" && card.job.queue_position !== null);
    if (waiting.length === 0) return;
    const first = waiting.reduce((one, other) => (one.job.queue_position <= other.job.queue_position ? one : other));
    const { waits } = await call("GET", `/v1/jobs/${first.job.job_id}/decisions`);
    for (const card of waiting) card.tellWhy(card === first ? waits : null);
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), SOON_MS);
  }

  // For who cannot see it: where a job of this tab stands now, each phase once.
  say(job) {
    const words = { completed: "done", failed: `failed. ${job.error}` }[job.status] ?? standing(job);
    this.spoken.textContent = `${short(job.prompt, 40)}: ${words}`;
  }

  showNothing() {
    document.getElementById("nothing").hidden = this.cards.size > 0;
    document.getElementById("onward").hidden = this.cards.size === 0;
  }

  // In the tab's name, for who works elsewhere meanwhile.
  showTitle() {
    const running = this.open.find((card) => card.job.status === "running");
    const how = running ? percent(running.job) : this.open.length ? "Waiting" : "";
    document.title = how ? `${how} · ${this.title}` : this.title;
  }

  keepMine() {
    try {
      sessionStorage.setItem(MINE, JSON.stringify([...this.mine].slice(-OPEN_MAX)));
    } catch { /* then a refresh forgets which to play */ }
  }
}

function kept() {
  try {
    return new Set(JSON.parse(sessionStorage.getItem(MINE) ?? "[]"));
  } catch {
    return new Set();
  }
}
