// Times are sent in UTC; here they become the reader's own.
const clock = { hour: "2-digit", minute: "2-digit" };
const sameDay = new Intl.DateTimeFormat(undefined, clock);
const sameYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", ...clock });
const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", ...clock });
const today = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }).format(0, "day");

export function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    element.title = element.dateTime;
    element.textContent = inWords(at, element.closest("table") !== null);
    element.dataset.shown = "";
  }
}

// In a sentence the day is named; in a column of times the hour says that it is today's.
function inWords(at, isInTable) {
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return isInTable ? sameDay.format(at) : `${today}, ${sameDay.format(at)}`;
  return (at.getFullYear() === now.getFullYear() ? sameYear : otherYear).format(at);
}
