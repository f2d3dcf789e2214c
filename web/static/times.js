// Times are sent in UTC; here they become the reader's own.
const sameDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const otherDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

export function showTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    element.title = element.dateTime;
    const isToday = at.toDateString() === new Date().toDateString();
    element.textContent = (isToday ? sameDay : otherDay).format(at);
    element.dataset.shown = "";
  }
}
