// Where somebody was on the wall, and what they had chosen: for the way back from a result.
const KEPT = "library-place";
const RETURNS = "library-returns";
const TILES_MAX = 960; // so many the box adds at once
const CHOSEN_MAX = 500;
const JOBS_MAX = 5_000; // so many neighbours are remembered

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  } catch {
    return null;
  }
}

// The address of the wall that this tab was on last.
export const wallBefore = () => read()?.address ?? null;

// The results beside one on the wall that this tab came from, narrowed as that was: `newer` and `older`, each undefined where
// there is none. Null where it did not come from a wall, or that has not shown what comes next.
export function besideOnWall(job) {
  const place = read();
  const from = document.referrer && new URL(document.referrer);
  if (!place || !from || from.origin !== location.origin || !from.pathname.startsWith("/library")) return null;
  const at = place.jobs.indexOf(job);
  if (at < 0 || (at === place.jobs.length - 1 && !place.isWhole)) return null;
  return { newer: place.jobs[at - 1], older: place.jobs[at + 1] };
}

// The next wall of this address begins where it was left, as it does for the browser's own way back and for a refresh.
export function returning() {
  try {
    sessionStorage.setItem(RETURNS, "1");
  } catch { /* then it begins at its top */ }
}

function isReturn() {
  const asked = sessionStorage.getItem(RETURNS) !== null;
  sessionStorage.removeItem(RETURNS);
  return asked || ["back_forward", "reload"].includes(performance.getEntriesByType("navigation")[0]?.type);
}

// `more` adds so many older tiles to the wall and says whether it did.
export function keepPlace(wall, more) {
  const tileOf = (job) => wall.querySelector(`.tile[data-job="${CSS.escape(job)}"]`);

  function keep() {
    const tiles = [...wall.querySelectorAll(".tile")];
    const first = tiles.find((tile) => tile.getBoundingClientRect().bottom > 0);
    const place = {
      address: location.pathname + location.search,
      tiles: tiles.length,
      jobs: tiles.map((tile) => tile.dataset.job).slice(0, JOBS_MAX),
      isWhole: tiles.length <= JOBS_MAX && !wall.querySelector(".more"),
      job: scrollY > 0 ? first?.dataset.job : undefined,
      top: first?.getBoundingClientRect().top,
      focused: document.activeElement.closest?.(".tile")?.dataset.job,
      chosen: tiles.filter((tile) => tile.querySelector(".pick")?.checked).map((tile) => tile.dataset.job).slice(0, CHOSEN_MAX),
    };
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(place));
    } catch { /* then it begins at its top */ }
  }

  async function restore() {
    const place = read();
    if (!isReturn() || place?.address !== location.pathname + location.search) return;
    let missing = place.tiles - wall.querySelectorAll(".tile").length;
    while (missing > 0 && await more(Math.min(missing, TILES_MAX))) missing = place.tiles - wall.querySelectorAll(".tile").length;
    for (const job of place.chosen) {
      const pick = tileOf(job)?.querySelector(".pick");
      if (pick) pick.checked = true;
    }
    wall.dispatchEvent(new Event("tiles"));
    // What was at the top may have been deleted: then what came after it.
    const tile = place.job && place.jobs.slice(place.jobs.indexOf(place.job)).map(tileOf).find(Boolean);
    if (tile) scrollBy(0, tile.getBoundingClientRect().top - place.top);
    if (place.focused) tileOf(place.focused)?.querySelector(".look").focus({ preventScroll: true });
  }

  window.addEventListener("pagehide", keep);
  restore();
}
