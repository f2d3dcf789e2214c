// The usage page's charts, drawn from the tables beside them, which are there without them too.
const root = document.documentElement;
const named = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const money = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const count = new Intl.NumberFormat("en-US");
const KEYS_MAX = 8;
const LABEL_MAX = 18;
const DAYS_HEIGHT = 180;
const KEY_HEIGHT = 30;

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}

// The rows of a table: what each is called, its place on the axis, and the two columns that are stacked.
function read(figure) {
  const table = document.getElementById(figure.dataset.table);
  const [first, second] = figure.dataset.columns.split(" ").map(Number);
  const rows = [...table.tBodies[0].rows].map(({ cells }) => ({
    label: cells[0].textContent.trim(),
    at: Number(cells[0].dataset.value ?? 0),
    videos: Number(cells[first].dataset.value),
    images: Number(cells[second].dataset.value),
  }));
  return figure.dataset.by === "day" ? everyDay(rows, Number(table.dataset.days)) : busiest(rows);
}

function everyDay(rows, days) {
  const month = rows[0].label.replace(/^\d+ /, "");
  return Array.from({ length: days }, (_, index) => rows.find((row) => row.at === index + 1)
    ?? { label: `${index + 1} ${month}`, at: index + 1, videos: 0, images: 0 });
}

function busiest(rows) {
  const shown = rows.slice(0, rows.length > KEYS_MAX ? KEYS_MAX - 1 : KEYS_MAX);
  const rest = rows.slice(shown.length);
  if (rest.length) {
    const sum = (name) => rest.reduce((total, row) => total + row[name], 0);
    shown.push({ label: `${rest.length} others`, videos: sum("videos"), images: sum("images") });
  }
  return shown.map((row, index) => ({ ...row, at: index + 1 }));
}

function options(figure, rows, width, tell) {
  const byKey = figure.dataset.by === "key";
  const isMoney = "money" in figure.dataset;
  const cut = (text) => (text.length > LABEL_MAX ? `${text.slice(0, LABEL_MAX - 1)}…` : text);
  const figures = (_, values) => values.map((value) => (isMoney ? money.format(value) : Number.isInteger(value) ? count.format(value) : ""));
  const bars = uPlot.paths.bars({ size: [0.72, 26, 2], radius: 0 });
  const series = (name) => ({ label: name, paths: bars, points: { show: false }, width: 1, stroke: () => named("--sheet"), fill: () => named(`--${name}`) });
  const axis = { stroke: () => named("--soft"), font: "12px system-ui, sans-serif", grid: { stroke: () => named("--grid"), width: 1 }, ticks: { show: false } };
  return {
    width,
    height: byKey ? 34 + KEY_HEIGHT * rows.length : DAYS_HEIGHT,
    legend: { show: false },
    padding: byKey ? [0, 16, 0, 0] : [8, 8, 0, 0],
    cursor: { x: !byKey, y: false, drag: { x: false, y: false }, points: { show: false } },
    hooks: { setCursor: [(plot) => tell(plot.cursor.idx)] },
    scales: {
      x: { time: false, ori: byKey ? 1 : 0, dir: byKey ? -1 : 1, range: [0.4, rows.length + 0.6] },
      y: { ori: byKey ? 0 : 1, range: (_, least, most) => [0, Math.max(most * 1.05, isMoney ? 0.1 : 1)] },
    },
    axes: [
      byKey
        ? { ...axis, scale: "x", side: 3, size: 128, grid: { show: false }, splits: rows.map((row) => row.at), values: (_, splits) => splits.map((at) => cut(rows[at - 1]?.label ?? "")) }
        : { ...axis, scale: "x", grid: { show: false }, incrs: [1, 2, 5, 10], space: 26, size: 28 },
      { ...axis, scale: "y", side: byKey ? 2 : 3, size: byKey ? 30 : 56, space: byKey ? 70 : 36, values: figures },
    ],
    series: [{}, series("videos"), series("images")],
  };
}

function draw(figure) {
  const rows = read(figure);
  const isMoney = "money" in figure.dataset;
  const shown = (value) => (isMoney ? money.format(value) : count.format(value));
  const say = (row) => `${row.label}: ${shown(row.videos)} videos, ${shown(row.images)} images`;
  const caption = figure.querySelector("figcaption");
  const readout = Object.assign(document.createElement("output"), { textContent: "" });
  caption.append(readout);
  const holder = document.createElement("div");
  holder.className = "plot";
  holder.tabIndex = 0;
  holder.setAttribute("role", "group");
  const sum = rows.reduce((total, row) => total + row.videos + row.images, 0);
  holder.setAttribute("aria-label", `Chart: ${caption.firstChild.textContent.trim()} by ${figure.dataset.by}, ${shown(sum)} in all. The arrow keys read it; the table below has the same figures.`);
  figure.append(holder);
  figure.hidden = false;

  const tell = (index) => { readout.textContent = index == null ? "" : say(rows[index]); };
  // The upper part of a stack is drawn whole and first, the lower part over it.
  const data = [rows.map((row) => row.at), rows.map((row) => row.videos + row.images), rows.map((row) => row.images)];
  const plot = new uPlot(options(figure, rows, holder.clientWidth, tell), data, holder);
  new ResizeObserver(() => {
    if (holder.clientWidth && holder.clientWidth !== plot.width) plot.setSize({ width: holder.clientWidth, height: plot.height });
  }).observe(holder);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => plot.redraw(false));

  let at = -1;
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -rows.length, End: rows.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    at = Math.min(rows.length - 1, Math.max(0, (at < 0 ? (step > 0 ? -1 : rows.length) : at) + step));
    const place = plot.valToPos(rows[at].at, "x");
    plot.setCursor(figure.dataset.by === "key" ? { left: 1, top: place } : { left: place, top: 1 });
    tell(at);
  });
  holder.addEventListener("blur", () => { at = -1; plot.setCursor({ left: -10, top: -10 }); });
}

if (typeof uPlot !== "undefined") {
  for (const figure of document.querySelectorAll(".chart")) draw(figure);
  for (const legend of document.querySelectorAll(".legend")) legend.hidden = false;
  for (const details of document.querySelectorAll("details[data-closes]")) details.open = false;
}
