// The picture that a job begins with: dropped, pasted, picked, or taken from a result; sent to the box at once.
import { call } from "./csrf.js";
import { plain } from "./create_words.js";

const OPEN_MS = 8_000;
const FRAME_MS = 1_000;
const TYPES = ["image/png", "image/jpeg", "image/webp"];

export class Reference {
  // `changed` is called when the picture is another; `makeRoom` has a model chosen that takes one, and says whether there is.
  constructor(changed, makeRoom) {
    this.changed = changed;
    this.makeRoom = makeRoom;
    this.field = document.getElementById("image");
    this.drop = document.getElementById("drop");
    this.says = document.getElementById("drop-says");
    this.chosen = document.getElementById("chosen");
    this.picture = document.getElementById("chosen-picture");
    this.words = document.getElementById("chosen-says");
    this.problem = document.getElementById("reference-problem");
    this.sending = 0;
    document.getElementById("pick").addEventListener("change", (event) => {
      this.send(event.target.files[0]);
      event.target.value = "";
    });
    const remove = document.getElementById("chosen-remove");
    remove.hidden = false;
    remove.addEventListener("click", () => {
      this.set("");
      document.getElementById("pick").focus();
    });
    this.picture.addEventListener("error", () => this.tell("This picture is not there any more; remove it, or send it again."));
    this.listen();
    this.show();
  }

  get value() { return this.field.value; }

  get isBusy() { return this.sending > 0; }

  // An upload of this account, or "" for none.
  set(id, words = "", address = id ? `/create/pictures/${id}` : "") {
    this.field.value = id;
    this.words.textContent = words;
    if (address) this.picture.src = address;
    else this.picture.removeAttribute("src");
    this.tell("");
    this.show();
    this.changed();
  }

  listen() {
    let depth = 0;
    const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragenter", (event) => {
      if (!carries(event)) return;
      depth += 1;
      this.drop.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => {
      if (carries(event) && (depth = Math.max(0, depth - 1)) === 0) this.drop.classList.remove("over");
    });
    document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
    document.addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      depth = 0;
      this.drop.classList.remove("over");
      this.send(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((each) => TYPES.includes(each.type));
      if (!file) return;
      event.preventDefault();
      this.send(file);
    });
  }

  async send(file, words = "") {
    if (!file) return;
    if (!this.makeRoom()) return;
    if (!TYPES.includes(file.type)) return this.tell("Only PNG, JPEG and WebP pictures can be begun with.");
    await this.take(async () => {
      const form = new FormData();
      form.append("file", file, file.name || "picture.png");
      return call("POST", "/v1/uploads", form);
    }, words || file.name || "Pasted picture", URL.createObjectURL(file));
  }

  // Result `number`, from 1, of a job; of a clip that is on the page, the very picture at which it stands.
  async useResult(job, number, video) {
    if (!this.makeRoom()) return;
    const frame = video ? await frameOf(video) : null;
    if (frame) return this.send(frame, `Your video at ${video.currentTime.toFixed(1)} s`);
    const words = job.type === "video" ? "The poster of one of your videos" : "One of your images";
    await this.take(() => call("POST", "/create/reference", form({ job: job.job_id, result: number })), words);
  }

  async take(send, words, address) {
    this.sending += 1;
    this.tell("");
    this.show();
    try {
      const upload = await send();
      this.set(upload.id, `${words} · ${upload.width}×${upload.height}`, address);
    } catch (error) {
      this.tell(error.status ? plain(error.message) : "The box does not answer; try the picture again in a moment.");
    } finally {
      this.sending -= 1;
      this.show();
    }
  }

  show() {
    this.drop.hidden = this.value !== "";
    this.drop.classList.toggle("busy", this.isBusy);
    this.says.textContent = this.isBusy ? " … sending" : "";
    this.chosen.hidden = this.value === "";
  }

  tell(problem) {
    this.problem.textContent = problem;
    this.problem.hidden = problem === "";
  }
}

// The picture at which a clip stands, in full size; null where it shows none (yet).
async function frameOf(video) {
  if (!video.videoWidth) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const isDrawn = () => {
    pen.drawImage(video, 0, 0);
    return pen.getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data[3] > 0;
  };
  // A clip that has only just begun may have nothing to draw before its first picture is on the screen.
  if (!isDrawn()) {
    await Promise.race([
      new Promise((done) => video.requestVideoFrameCallback?.(done)),
      new Promise((done) => setTimeout(done, FRAME_MS)),
    ]);
    if (!isDrawn()) return null;
  }
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return blob && new File([blob], "frame.png", { type: "image/png" });
}

// A clip that is on no page, at its first picture; null where this browser cannot show it.
export async function opened(address) {
  const video = Object.assign(document.createElement("video"), { muted: true, preload: "auto", src: address });
  const isThere = await new Promise((done) => {
    video.addEventListener("loadeddata", () => done(true), { once: true });
    video.addEventListener("error", () => done(false), { once: true });
    setTimeout(() => done(false), OPEN_MS);
  });
  return isThere ? video : null;
}

const form = (fields) => new URLSearchParams(fields);
