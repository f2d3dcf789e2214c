// The price before pressing: what the job would take, when it would be ready, and what stands against it.
import { call } from "./csrf.js";
import { ready, remedy, sentence, units } from "./create_words.js";
import { mark } from "./marked.js";

const WAIT_MS = 250;

export class Quote {
  // `noted` is called with what the job would have said of it.
  constructor(state, isOwner, noted) {
    this.noted = noted;
    this.money = state.money;
    this.isOwner = isOwner;
    this.cost = document.getElementById("cost");
    this.when = document.getElementById("when");
    this.refused = document.getElementById("refused");
    this.planLeft = document.getElementById("plan-left");
    this.number = 0;
    this.isStale = false; // what is shown is of a box that did not answer
  }

  // Ask, once nothing has changed for a moment; only the newest answer is shown.
  ask(bodyOf) {
    clearTimeout(this.timer);
    const number = ++this.number;
    this.timer = setTimeout(async () => {
      const body = bodyOf();
      try {
        const quote = await call("POST", "/v1/quote", { ...body, prompt: body.prompt || "…" });
        if (number === this.number) this.show(quote, body);
      } catch (error) {
        if (number === this.number) this.fail(error, body);
      }
    }, WAIT_MS);
  }

  async refreshMoney() {
    try {
      this.money = await call("GET", "/v1/me/overage");
      const { video, image } = this.money.included;
      if (this.planLeft) this.planLeft.textContent = `${units(video.left, "video")} and ${units(image.left, "image")} left this month.`;
    } catch { /* the price that is shown stays; the stream says that the box does not answer */ }
  }

  show(quote, body) {
    this.noted(quote.notes);
    const price = this.price(quote, body);
    if (this.cost.textContent !== price) this.cost.textContent = price; // what has not changed is not read out again
    this.when.textContent = quote.would_accept ? ready(quote.eta_seconds) : "";
    this.refuse(quote.refusal, quote.refusal_detail, body);
  }

  price(quote, body) {
    const included = quote.included_units > 1 ? `${quote.included_units} included` : "Included";
    if (!quote.wallet_units) return `${included} · ${units(this.money.included[body.type].left, body.type)} left this month`;
    const paid = `$${quote.amount_usd} ${this.money.enabled ? "from the wallet" : "beyond the plan"}`;
    return quote.included_units ? `${quote.included_units} included + ${paid}` : paid;
  }

  fail(error, body) {
    this.when.textContent = "";
    if (error.status) return this.refuse(error.code, error.message, body);
    this.isStale = true;
    this.cost.textContent = "The box does not answer; the price comes when it does.";
  }

  // Say what stands against it and where to go; nothing where there is no code.
  refuse(code, detail, body = {}) {
    this.isStale = ["offline", "draining"].includes(code);
    this.refused.hidden = !code;
    if (!code) return this.refused.replaceChildren();
    const told = sentence(code, detail, this.money, body);
    if (this.told === told && this.refused.childNodes.length) return; // an alert is not read out twice
    this.told = told;
    this.refused.replaceChildren(mark(document.createElement("p"), told));
    const to = remedy(code, this.money, this.isOwner);
    if (!to) return;
    const where = document.createElement("p");
    where.append(to.before);
    if (to.href) {
      const link = document.createElement("a");
      link.href = to.href;
      link.textContent = to.text;
      where.append(" ", link);
    }
    this.refused.append(where);
  }
}
