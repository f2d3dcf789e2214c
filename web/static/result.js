// One result: keys to its neighbours, the question before it is deleted, and an open job's progress.
import { Code } from "./create_code.js";
import { call } from "./csrf.js";
import { besideOnWall, returning, wallBefore } from "./library_place.js";
import "./sure.js";

// The way back leads to the wall that one came from, at the place where one was.
const wall = wallBefore();
if (wall) {
  const back = document.getElementById("back");
  back.href = wall;
  back.addEventListener("click", returning);
  const remove = document.querySelector('form[action="/library/delete"]');
  if (remove) {
    remove.elements.back.value = wall;
    remove.addEventListener("submit", returning);
  }
}

const here = decodeURIComponent(location.pathname.split("/").pop());
const beside = besideOnWall(here);
if (beside) {
  for (const [id, job] of Object.entries(beside)) {
    const link = document.getElementById(id);
    link.hidden = !job;
    if (job) link.href = `/library/${job}`;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, select, textarea, video, summary")) return;
  const to = { ArrowLeft: "newer", ArrowRight: "older" }[event.key];
  if (to && !document.getElementById(to).hidden) document.getElementById(to).click();
});

const asCode = document.getElementById("as-code");
if (asCode) {
  let code = null;
  asCode.hidden = false;
  asCode.addEventListener("click", async () => {
    code ??= new Code(asCode.dataset.base);
    code.show(await call("GET", `/create/jobs/${asCode.dataset.job}`));
  });
}

const open = document.getElementById("open");
if (open) await follow(open.dataset.job);

async function follow(jobId) {
  const { on } = await import("./events.js");
  const phase = document.getElementById("phase");
  const bar = document.getElementById("progress");
  const preview = document.getElementById("preview");

  function show(job) {
    if (job.job_id !== jobId) return;
    if (job.status === "completed" || job.status === "failed") location.reload();
    if (job.phase) phase.textContent = job.phase === "waiting" ? "Waiting" : job.phase[0].toUpperCase() + job.phase.slice(1);
    if (job.progress !== undefined) bar.value = job.progress;
  }

  on("snapshot", ({ data }) => {
    // A snapshot has the newest hundred: a job that a shorter one lacks has ended while nobody listened.
    if (data.length < 100 && !data.some((job) => job.job_id === jobId)) location.reload();
    data.forEach(show);
  });
  on("status", show);
  on("progress", show);
  on("preview", (told) => {
    if (told.job_id !== jobId) return;
    preview.src = told.image;
    preview.hidden = false;
  });
}
