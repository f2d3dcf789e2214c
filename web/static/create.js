// The page of /create: its form, its price, its jobs, and what their buttons do.
import { call } from "./csrf.js";
import { Code } from "./create_code.js";
import { Form } from "./create_form.js";
import { Jobs } from "./create_jobs.js";
import { Quote } from "./create_quote.js";
import { opened, Reference } from "./create_reference.js";
import { Vocabulary } from "./create_vocabulary.js";
import { isOfStandIn } from "./create_words.js";
import { on } from "./events.js";

const state = JSON.parse(document.getElementById("state").textContent);
const button = document.getElementById("generate");
const prompt = document.getElementById("prompt");
const code = new Code(state.base);
const choose = (words) => { prompt.value = words; form.keep(); ask(); toForm(prompt); };
const vocabulary = new Vocabulary(choose);
// That another model answers is said below the choice of it.
const ofPrompt = (notes) => notes.filter((note) => !isOfStandIn(note));
const quote = new Quote(state, state.is_owner, (notes) => vocabulary.tell(prompt.value.trim() ? ofPrompt(notes) : []));
const ask = () => quote.ask(() => form.body());
const form = new Form(document.getElementById("ask"), state, ask);
form.reference = new Reference(() => { form.show(); form.keep(); ask(); }, () => {
  const has = form.makeRoomForReference();
  if (!has) quote.refuse("no_reference", "No model that is installed takes a reference image.");
  return has;
});

form.vocabulary = vocabulary;
form.show();

// A key for each thing that is asked for: what is pressed again after a lost answer is made once.
const fresh = () => [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(16).padStart(8, "0")).join("");
const keys = new Map();

async function once(path, body) {
  const asked = `${path} ${JSON.stringify(body ?? null)}`;
  const key = keys.get(asked) ?? fresh();
  keys.set(asked, key);
  const answer = await call("POST", path, body, { "Idempotency-Key": key }).catch((error) => {
    throw Object.assign(error, { isMade: true });
  });
  keys.delete(asked);
  return answer;
}

// `asked` is what was asked for: a body, or the job that was to be made again.
function refuse(error, asked) {
  if (error.status) quote.refuse(error.code, error.message, asked);
  else if (error.isMade) quote.refuse("offline", "The box does not answer. Press again in a moment: it is made only once.");
  else quote.refuse("offline", "The box does not answer. Press again in a moment.");
  document.getElementById("refused").scrollIntoView({ block: "nearest" });
}

async function generate() {
  if (button.disabled) return;
  const body = form.body();
  if (!body.prompt) return prompt.reportValidity();
  if (form.reference.isBusy) return quote.refuse("busy", "The reference image is still being sent; press again when it is there.");
  button.disabled = true;
  try {
    const accepted = await once("/v1/generate", body);
    form.lastSeed = accepted.seed;
    jobs.begin(accepted, body.prompt);
  } catch (error) {
    refuse(error, body);
  } finally {
    button.disabled = false;
  }
}

async function guarded(card, work) {
  card.element.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    refuse(error, card.job);
  } finally {
    card.element.removeAttribute("aria-busy");
  }
}

const toForm = (element) => {
  element.scrollIntoView({ block: "nearest", behavior: "smooth" });
  element.focus({ preventScroll: true });
};

const takesPictures = state.models.some((model) => model.installed && model.reference_image);
const acts = {
  cancel: (card) => guarded(card, async () => jobs.put(await call("POST", `/v1/jobs/${card.job.job_id}/cancel`))),
  rerun: (card) => guarded(card, async () => {
    jobs.begin(await once(`/v1/jobs/${card.job.job_id}/rerun`), card.job.prompt);
  }),
  vary: (card) => guarded(card, async () => {
    const { seed: _, ...asked } = await call("GET", `/create/jobs/${card.job.job_id}`);
    fill(asked);
    toForm(prompt);
  }),
  use: takesPictures && ((card) => guarded(card, async () => {
    await form.reference.useResult(card.job, card.chosen + 1, card.job.type === "video" ? await shown(card.media) : null);
    toForm(document.getElementById("chosen-remove"));
  })),
  code: (card) => guarded(card, async () => code.show(await call("GET", `/create/jobs/${card.job.job_id}`))),
};

// A clip that has not been played on the page yet has nothing to show: then its first picture is fetched.
const shown = (clip) => (clip.videoWidth ? clip : opened(clip.src));

function fill(asked) {
  form.fill(asked);
  form.reference.set(asked.image ?? "", asked.image ? "As it was" : "");
  form.keep();
}

const jobs = new Jobs(state, acts, () => {
  clearTimeout(jobs.timerOfMoney);
  jobs.timerOfMoney = setTimeout(async () => { await quote.refreshMoney(); ask(); }, 500);
});

// What is pressed twice by haste, or held down, is asked for once: it costs.
button.addEventListener("click", (event) => { if (event.detail > 1) event.preventDefault(); });
document.getElementById("ask").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    if (!event.repeat) generate();
  }
});
window.addEventListener("online", ask);
// Once the box answers again, the price is asked for anew, and what was said of its absence goes.
on("snapshot", () => { if (quote.isStale) ask(); });

for (const idea of ["A neon night market in the rain, slow dolly in, ambient crowd sound", "An espresso bar at golden hour, steam in the light", "A paper boat on a puddle, macro, soft reflections of the sky"]) {
  const choice = Object.assign(document.createElement("button"), { type: "button", className: "button small", textContent: idea });
  choice.addEventListener("click", () => choose(idea));
  document.getElementById("ideas").append(choice);
}

if (state.asked) fill(state.asked);
else form.restore();
// A refresh keeps what has been changed since, and does not begin with that job again.
if (location.search) history.replaceState(null, "", "/create");
ask();
if (state.from) {
  const clip = state.from.type === "video" ? await opened(state.from.url) : null;
  form.reference.useResult(state.from, state.from.number, clip);
}
