// What the page of /create says: durations, money, phases and ends of jobs, in plain words. Pure functions.
const PHASES = {
  waiting: "Waiting",
  loading: "Loading the model",
  denoising: "Making it",
  decoding: "Developing the picture",
  encoding: "Writing the file",
};

// "about 40 s", "about 3 min"; empty where it is not known.
export function about(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return "any moment";
  if (seconds < 90) return `about ${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${(seconds / 3600).toFixed(1)} h`;
}

// "ready in about 40 s", "ready at any moment"; empty where it is not known.
export function ready(seconds) {
  const when = about(seconds);
  return when && (seconds < 1 ? `ready at ${when}` : `ready in ${when}`);
}

export const units = (count, type) => `${count.toLocaleString()} ${type}${count === 1 ? "" : "s"}`;

// How an open job stands: its phase, with its place in the queue or how far it is.
export function standing(job) {
  if (job.cancel_requested) return "Stopping";
  if (job.status === "queued") {
    if (!job.queue_position) return "Waiting for its turn";
    return job.queue_position === 1 ? "Waiting · next in line" : `Waiting · number ${job.queue_position} in line`;
  }
  return PHASES[job.phase] ?? "Working";
}

// A note that another model stands in for what is not installed: the form says it of the model that is chosen.
export const isOfStandIn = (note) => /^No \w+ model is installed: [^:]+ answered\./.test(note);

// How a job that was stopped ended: by oneself in a word, by the box's owner with the reason.
export function stopped(error) {
  const isTold = error && !/^The job was cancelled( before it began)?\.$/.test(error);
  return isTold ? error : "Cancelled.";
}

export const percent = (job) => `${Math.floor(job.progress * 100)} %`;

// What a job has cost, or that it has cost nothing.
export function charged(job) {
  const charge = job.charge;
  if (!charge || charge.state === "voided") return "Nothing was charged.";
  if (charge.state === "reserved") return "";
  if (charge.state === "refunded") return "The charge was refunded.";
  const parts = [];
  if (charge.included_units) parts.push(`${units(charge.included_units, `included ${job.type}`)}`);
  if (charge.wallet_units) parts.push(`$${charge.amount_usd}`);
  return parts.length ? `Charged: ${parts.join(" and ")}.` : "Nothing was charged.";
}

// The line below a prompt: model, size, length, seed.
export function facts(job, titleOf) {
  const parts = [titleOf(job.model), `${job.width}×${job.height}`];
  if (job.type === "video" && job.duration) parts.push(`${Number(job.duration.toFixed(2))} s, ${job.fps} fps`);
  if (job.type === "image" && job.n > 1) parts.push(units(job.n, "image"));
  parts.push(`seed ${job.seed}`);
  if (job.priority === "batch") parts.push("batch");
  return parts.join(" · ");
}

export function short(text, most = 60) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

const day = (time) => new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long" }).format(new Date(time));

// A refusal in a kind sentence: the box's own, with its days as a person writes them, or one that counts what is left.
export function sentence(code, detail, money, body) {
  if (code === "allowance_exhausted" && !money.enabled) {
    const { granted, left } = money.included[body.type];
    const renewed = `New ones come on ${day(money.period.end)}.`;
    if (granted === 0) return `Your plan includes no ${body.type}s.`;
    if (left > 0) return `You have ${units(left, body.type)} left this month, and this asks for ${body.n ?? 1}. ${renewed}`;
    return `This month's ${units(granted, body.type)} are used up, or held by jobs that are open. ${renewed}`;
  }
  return plain(detail ?? code).replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, day);
}

// The box's own sentence without the name of the field it is about.
export function plain(detail) {
  const text = detail.replace(/^[a-z_]+: /, "");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// Where to go about a refusal: words before a link, and the link. `money` is the overage object.
export function remedy(code, money, isOwner) {
  const overage = { text: "API & Overage", href: "/settings#overage" };
  const people = { text: "people and wallets", href: "/admin/people" };
  switch (code) {
    case "allowance_exhausted":
      // The section is there for the plan max, and for whoever has a wallet.
      if (money.plan === "max" || Number(money.wallet_usd) > 0) return { before: "To go on now, turn overage on:", ...overage };
      return isOwner ? { before: "Choose another plan:", ...people } : { before: "The box's owner can give you a larger plan." };
    case "cap_reached":
      return { before: "You can raise your cap:", ...overage };
    case "wallet_empty":
      return isOwner ? { before: "Fill the wallet:", ...people } : { before: "The box's owner can fill it. What is in it:", ...overage };
    case "no_model":
    case "model_not_installed":
      return isOwner ? { before: "Install one:", text: "models", href: "/admin/models" } : { before: "The box's owner can install one." };
    case "storage_full":
      return { before: "Make room:", text: "delete results in the library", href: "/library" };
    default:
      return null;
  }
}
