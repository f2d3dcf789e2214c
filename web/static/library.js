// The wall: more tiles as it is scrolled, clips that play under the pointer, and choosing with mouse and keys.
import { showTimes } from "./times.js";
import { askFirst } from "./sure.js";

const wall = document.getElementById("wall");
const filters = document.querySelector(".filters");

// Filters apply as they are chosen, in a phone's sheet all at once; what is empty does not stand in the address.
filters.addEventListener("change", (event) => {
  if (event.target.type !== "search" && !event.target.closest(".fold:popover-open")) filters.requestSubmit();
});
filters.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});

if (wall) {
  readOn();
  playUnderPointer();
  choose();
}

function readOn() {
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) more();
  }, { rootMargin: "600px" });

  function watch() {
    const row = wall.querySelector(".more");
    if (row) watcher.observe(row);
  }

  async function more() {
    const row = wall.querySelector(".more");
    watcher.disconnect();
    if (!row) return;
    try {
      const answer = await fetch(`${row.querySelector("a").href}&part=1`);
      if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
      const tiles = document.createElement("template");
      tiles.innerHTML = await answer.text();
      showTimes(tiles.content);
      row.replaceWith(tiles.content);
      watch();
    } catch {
      row.querySelector("a").textContent = "The box did not answer; try again"; // the link itself still leads on
    }
  }

  watch();
}

function playUnderPointer() {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let playing = null;

  function stop() {
    playing?.remove();
    playing = null;
  }

  function play(look) {
    if (playing?.parentElement?.parentElement === look) return;
    stop();
    if (!look?.dataset.media || still.matches) return;
    const clip = document.createElement("video");
    Object.assign(clip, { src: look.dataset.media, muted: true, loop: true, playsInline: true, preload: "auto" });
    clip.setAttribute("aria-hidden", "true");
    clip.tabIndex = -1;
    look.querySelector(".box").insertBefore(clip, look.querySelector(".marks"));
    playing = clip;
    clip.play().catch(() => { if (playing === clip) stop(); });
  }

  wall.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse") play(event.target.closest(".look"));
  });
  wall.addEventListener("pointerleave", stop);
  wall.addEventListener("focusin", (event) => { if (event.target.matches(".look:focus-visible")) play(event.target); });
  wall.addEventListener("focusout", stop);
}

function choose() {
  const form = document.getElementById("chosen");
  const bar = document.getElementById("bar");
  const most = Number(form.dataset.most);
  const [count, save, remove, clear] = ["bar-count", "save", "delete", "clear"].map((id) => document.getElementById(id));
  let anchor = null;

  wall.classList.add("choosable");
  clear.hidden = false;

  const picks = () => [...wall.querySelectorAll(".pick")];
  const chosen = () => picks().filter((pick) => pick.checked);
  const many = (number) => (number === 1 ? "1 result" : `${number} results`);

  function show() {
    const all = chosen();
    const mine = all.filter((pick) => !pick.closest("[data-others]"));
    wall.classList.toggle("choosing", all.length > 0);
    bar.hidden = all.length === 0;
    count.textContent = all.length > most ? `${many(all.length)} chosen: at most ${most} at once` : `${many(all.length)} chosen`;
    if (save) save.disabled = all.length > most;
    remove.hidden = mine.length === 0;
    remove.disabled = all.length > most;
  }

  // From the one chosen or unchosen last to this one, all become as this one.
  function upTo(pick, checked) {
    const all = picks();
    const [from, to] = [all.indexOf(anchor), all.indexOf(pick)].sort((a, b) => a - b);
    if (from >= 0) for (const between of all.slice(from, to + 1)) between.checked = checked;
    pick.checked = checked;
    anchor = pick;
    show();
  }

  wall.addEventListener("click", (event) => {
    const pick = event.target.closest(".pick");
    if (pick) {
      if (event.shiftKey) upTo(pick, pick.checked);
      anchor = pick;
      show();
      return;
    }
    // On a tile itself, Shift or Ctrl chooses rather than opens.
    const look = event.target.closest(".look");
    const own = look?.parentElement.querySelector(".pick");
    if (!own || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (event.shiftKey) upTo(own, true);
    else { own.checked = !own.checked; anchor = own; show(); }
  });

  function none() {
    for (const pick of chosen()) pick.checked = false;
    anchor = null;
    show();
  }
  clear.addEventListener("click", none);

  function beside(look, key) {
    const looks = [...wall.querySelectorAll(".look")];
    const at = looks.indexOf(look);
    if (key === "ArrowRight") return looks[at + 1];
    if (key === "ArrowLeft") return looks[at - 1];
    const here = look.getBoundingClientRect();
    const middle = here.left + here.width / 2;
    const further = (other) => (key === "ArrowDown" ? other.top - here.top : here.top - other.top);
    const candidates = looks.map((other) => [other, other.getBoundingClientRect()]).filter(([, place]) => further(place) > 4);
    const row = Math.min(...candidates.map(([, place]) => further(place)));
    const off = (place) => Math.abs(place.left + place.width / 2 - middle);
    return candidates.filter(([, place]) => further(place) < row + 4).sort(([, a], [, b]) => off(a) - off(b))[0]?.[0];
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      document.getElementById("q").focus();
      return;
    }
    if (event.key === "Escape" && !typing) none();
    const tile = event.target.closest(".tile");
    if (!tile || typing) return;
    const look = tile.querySelector(".look");
    const pick = tile.querySelector(".pick");
    if (event.key.toLowerCase() === "x" && pick) {
      if (event.shiftKey) upTo(pick, true);
      else { pick.checked = !pick.checked; anchor = pick; show(); }
    } else if (event.key.startsWith("Arrow")) {
      const to = beside(look, event.key);
      if (!to) return;
      event.preventDefault();
      if (event.shiftKey && pick) {
        anchor ??= pick;
        upTo(pick, true);
        const next = to.parentElement.querySelector(".pick");
        if (next) upTo(next, true);
      }
      to.focus({ preventScroll: false });
    }
  });

  askFirst(remove, () => many(chosen().filter((pick) => !pick.closest("[data-others]")).length));
  show(); // a browser that comes back keeps what was checked
  window.addEventListener("pageshow", show);
}
