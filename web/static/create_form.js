// The form of /create: it shows what the chosen model can do, says what it asks for, and outlives a refresh of its tab.
const KEPT = "create";
const DRAWN_SEEDS = 2 ** 32;

const field = (id) => document.getElementById(id);

export class Form {
  // `changed` is called whenever it asks for something else.
  constructor(element, state, changed) {
    this.element = element;
    this.state = state;
    this.changed = changed;
    this.reference = null; // set by whoever makes them all
    this.vocabulary = null;
    field("lock-label").hidden = false;
    field("lock").addEventListener("change", () => this.lock(field("lock").checked));
    element.addEventListener("input", (event) => this.onInput(event));
    this.limit();
  }

  get type() { return this.element.elements.type.value; }

  // The limits of the chosen model, or of the type's default; undefined where there is none.
  get model() {
    const able = this.able();
    return able.find((model) => model.id === field("model").value) ?? able.find((model) => model.default_for.includes(this.type));
  }

  able() {
    return this.state.models.filter((model) => model.installed && model.makes.includes(this.type));
  }

  // Choose a model that takes a reference image, of this type where there is one; whether there is any.
  makeRoomForReference() {
    if (this.model?.reference_image) return true;
    const takes = this.state.models.filter((model) => model.installed && model.reference_image);
    const model = takes.find((each) => each.makes.includes(this.type)) ?? takes[0];
    if (!model) return false;
    if (!model.makes.includes(this.type)) for (const radio of this.element.elements.type) radio.checked = radio.value === model.makes[0];
    this.limit();
    field("model").value = model.id;
    this.limit();
    return true;
  }

  // The body of a `generate`; what the model has none of is not in it.
  body() {
    const { model, type } = this;
    const body = { type, prompt: field("prompt").value.trim() };
    if (field("model").value) body.model = field("model").value;
    const ratio = this.element.elements.aspect_ratio.value;
    if (ratio) body.aspect_ratio = ratio;
    if (field("resolution").value) body.resolution = field("resolution").value;
    if (type === "video") {
      body.duration = Number(field("duration").value);
      if (field("fps").value) body.fps = Number(field("fps").value);
    } else if (Number(field("n").value) > 1) {
      body.n = Number(field("n").value);
    }
    if (/^\d+$/.test(field("seed").value.trim())) body.seed = Number(field("seed").value);
    if (model?.negative_prompt && field("negative_prompt").value.trim()) body.negative_prompt = field("negative_prompt").value.trim();
    if (model?.reference_image && this.reference?.value) {
      body.image = this.reference.value;
      if (model.strength) body.strength = Number(field("strength").value);
    }
    if (field("priority").checked) body.priority = "batch";
    return body;
  }

  // Fill it in as a body of a `generate` says; what that leaves out gets the model's own.
  fill(asked) {
    const set = (id, value) => { if (value !== undefined && value !== null) field(id).value = value; };
    for (const radio of this.element.elements.type) radio.checked = radio.value === (asked.type ?? this.type);
    this.limit();
    field("model").value = this.able().some((model) => model.id === asked.model) ? asked.model : "";
    this.limit();
    set("prompt", asked.prompt);
    for (const radio of this.element.elements.aspect_ratio) if (radio.value === asked.aspect_ratio && !radio.disabled) radio.checked = true;
    for (const id of ["resolution", "duration", "fps", "strength"]) set(id, asked[id]);
    field("n").value = asked.n ?? 1;
    field("negative_prompt").value = asked.negative_prompt ?? "";
    field("priority").checked = asked.priority === "batch";
    this.lock(asked.seed !== undefined && asked.seed !== "", asked.seed);
    if (asked.negative_prompt || asked.priority === "batch" || field("seed").value) field("more").open = true;
    this.show();
  }

  // A locked seed is one's own; without the lock each job draws another.
  lock(isLocked, seed) {
    field("lock").checked = isLocked;
    if (isLocked) field("seed").value = seed ?? (field("seed").value || this.lastSeed || crypto.getRandomValues(new Uint32Array(1))[0] % DRAWN_SEEDS);
    else field("seed").value = "";
    this.keep();
  }

  onInput(event) {
    if (event.target.name === "type" || event.target.id === "model") {
      if (event.target.name === "type") field("model").value = "";
      this.limit();
    }
    if (event.target.id === "seed") field("lock").checked = field("seed").value !== "";
    this.show();
    this.keep();
    this.changed();
  }

  // Show what the type and the model have, within their limits, and nothing else.
  limit() {
    this.offerModels();
    const { model, type } = this;
    for (const part of this.element.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== type;
    for (const part of this.element.querySelectorAll("[data-limit]")) part.hidden = !model?.[part.dataset.limit];
    field("strength").disabled = !model?.strength;
    if (!model) return this.show();
    offer(field("resolution"), model.resolutions, model.resolutions.includes("1080p") ? "1080p" : model.resolutions.at(-1));
    offerShapes(this.element.elements.aspect_ratio, model.aspect_ratios);
    if (type === "video") {
      offer(field("fps"), model.fps.map(String), String(model.default_fps));
      const duration = field("duration");
      Object.assign(duration, { min: model.min_duration || 0.5, max: model.max_duration });
      if (this.limited !== model.id) duration.value = model.default_duration;
    } else {
      field("n").max = model.max_images;
      if (Number(field("n").value) > model.max_images) field("n").value = model.max_images;
    }
    this.limited = model.id;
    this.show();
  }

  offerModels() {
    const select = field("model");
    const standard = this.able().find((model) => model.default_for.includes(this.type));
    const chosen = select.value;
    select.replaceChildren(
      new Option(standard ? `Default · ${standard.title}` : "None is installed", ""),
      ...this.able().map((model) => new Option(model.title, model.id)),
    );
    if (this.able().some((model) => model.id === chosen)) select.value = chosen;
  }

  show() {
    field("duration-says").textContent = `${Number(field("duration").value)} s`;
    field("strength-says").textContent = Number(field("strength").value).toFixed(2);
    field("strength-field").hidden = !(this.model?.strength && this.reference?.value);
    const model = this.model;
    const words = [];
    if (model && this.state.stand_ins.includes(model.id)) {
      words.push(`No ${this.type} model is installed: ${model.title} answers.`);
    } else if (model) {
      words.push({ yes: "Commercial use allowed", no: "No commercial use", conditional: "Commercial use under conditions" }[model.commercial_use]);
      words.push(model.licence.name);
    }
    if (model?.experimental) words.push("Experimental: what it makes may be wrong");
    this.vocabulary?.show(model);
    field("model-says").textContent = words.join(" · ");
  }

  // For a refresh of this tab, and for nobody else who signs in in it.
  keep() {
    const kept = { account: this.state.account, body: { ...this.body(), prompt: field("prompt").value } };
    if (this.reference) kept.reference = { id: this.reference.value, words: this.reference.words.textContent };
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(kept));
    } catch { /* a browser without room or right to keep: then a refresh begins anew */ }
  }

  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
      if (kept?.account !== this.state.account) return sessionStorage.removeItem(KEPT);
      this.fill(kept.body);
      if (kept.reference?.id) this.reference?.set(kept.reference.id, kept.reference.words);
    } catch { /* what cannot be read is not restored */ }
  }
}

function offer(select, values, standard) {
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  select.value = values.includes(chosen) ? chosen : standard;
}

function offerShapes(radios, ratios) {
  for (const radio of radios) {
    const can = ratios.includes(radio.value);
    radio.disabled = !can;
    radio.closest("label").hidden = !can;
    if (!can) radio.checked = false;
  }
  if (![...radios].some((radio) => radio.checked)) {
    for (const radio of radios) radio.checked = radio.value === (ratios.includes("16:9") ? "16:9" : ratios[0]);
  }
}
