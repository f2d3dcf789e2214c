// The wall: more tiles as it is scrolled, clips that play under the pointer, and choosing with mouse and keys.
import { showTimes } from "./times.js";
import { askFirst } from "./sure.js";
import { keepPlace, returning } from "./library_place.js";

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
  const more = readOn();
  playUnderPointer();
  choose();
  keepPlace(wall, more);
}

// Returns what adds a number of older tiles, or the usual number, and says whether it did.
function readOn() {
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) more();
  }, { rootMargin: "600px" });

  function watch() {
    const row = wall.querySelector(".more");
    if (row) watcher.observe(row);
  }

  async function more(tiles = 0) {
    const row = wall.querySelector(".more");
    watcher.disconnect();
    if (!row) return false;
    try {
      const answer = await fetch(`${row.querySelector("a").href}&part=1${tiles ? `&tiles=${tiles}` : ""}`);
      if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
      const part = document.createElement("template");
      part.innerHTML = await answer.text();
      showTimes(part.content);
      row.replaceWith(part.content);
      wall.dispatchEvent(new Event("tiles"));
      watch();
      return true;
    } catch {
      row.querySelector("a").textContent = "The box did not answer; try again"; // the link itself still leads on
      return false;
    }
  }

  watch();
  return more;
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
  const [found, counted] = [Number(form.dataset.count), Number(form.dataset.counted)];
  const [count, save, remove, clear, every, chooseAll] = ["bar-count", "save", "delete", "clear", "all", "choose-all"].map((id) => document.getElementById(id));
  let anchor = null;

  wall.classList.add("choosable");
  clear.hidden = false;

  const picks = () => [...wall.querySelectorAll(".pick")];
  const chosen = () => picks().filter((pick) => pick.checked);
  const many = (number) => (number === 1 ? "1 result" : `${number.toLocaleString("en-US")} results`);
  // All that match, also what is not on the page; whoever came to a later page has not been told how many.
  const isKnown = found > 0 && found < counted;
  const words = () => {
    if (!every?.checked) return { text: many(chosen().length), tooMany: chosen().length > most };
    const all = found < counted ? "All that match" : `All that match (${counted.toLocaleString("en-US")} or more)`;
    return { text: isKnown ? `All ${many(found)}` : all, tooMany: found > most };
  };

  function show() {
    const isEvery = Boolean(every?.checked);
    if (isEvery) for (const pick of picks()) pick.checked = true;
    const picked = chosen();
    const { text, tooMany } = words();
    wall.classList.toggle("choosing", picked.length > 0);
    bar.hidden = picked.length === 0;
    if (chooseAll) chooseAll.hidden = isEvery;
    count.textContent = !tooMany ? `${text} chosen` : `${text} chosen: at most ${most} ${isEvery ? "go into one archive" : "at once"}`;
    if (save) save.disabled = tooMany;
    remove.hidden = !isEvery && picked.every((pick) => pick.closest("[data-others]"));
    remove.disabled = tooMany && !isEvery;
  }

  // After deleting, the wall stands where it stood.
  form.addEventListener("submit", (event) => { if (event.submitter?.formAction.endsWith("/library/delete")) returning(); });

  // With all that match chosen, the box finds them by the same filters; which were on the page is of no matter.
  form.addEventListener("formdata", (event) => { if (every?.checked) event.formData.delete("job"); });
  every?.addEventListener("change", () => { if (every.checked) show(); else none(); });
  chooseAll?.addEventListener("click", allThatMatch);
  wall.addEventListener("tiles", show);

  function allThatMatch() {
    every.checked = true;
    show();
  }

  function set(pick, checked) {
    pick.checked = checked;
    if (!checked && every) every.checked = false;
  }

  // From the one chosen or unchosen last to this one, all become as this one.
  function upTo(pick, checked) {
    const tiles = picks();
    const [from, to] = [tiles.indexOf(anchor), tiles.indexOf(pick)].sort((a, b) => a - b);
    if (from >= 0) for (const between of tiles.slice(from, to + 1)) between.checked = checked;
    set(pick, checked);
    anchor = pick;
    show();
  }

  wall.addEventListener("click", (event) => {
    const pick = event.target.closest(".pick");
    if (pick) {
      if (event.shiftKey) upTo(pick, pick.checked);
      else set(pick, pick.checked);
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
    else { set(own, !own.checked); anchor = own; show(); }
  });

  function none() {
    if (every) every.checked = false;
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
    if (event.altKey || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "a" || event.shiftKey || typing || !every) return;
      event.preventDefault();
      allThatMatch();
      return;
    }
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
      else { set(pick, !pick.checked); anchor = pick; show(); }
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

  askFirst(remove, () => many(chosen().filter((pick) => !pick.closest("[data-others]")).length), () => !every?.checked);
  show(); // a browser that comes back keeps what was checked
  window.addEventListener("pageshow", show);
}
