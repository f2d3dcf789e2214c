// A finished picture or clip, and playing it: with its sound where the browser lets it, one at a time.
let speaking = null; // the one clip that plays with sound

export function still(result, job) {
  const image = Object.assign(document.createElement("img"), { alt: job.prompt, decoding: "async" });
  Object.assign(image, { src: local(result.url), width: result.width, height: result.height });
  image.addEventListener("error", () => tellWhy(image, "This picture cannot be shown here; download it to see it."));
  return image;
}

export function clip(result, job) {
  const video = document.createElement("video");
  Object.assign(video, { controls: true, preload: "none", playsInline: true, src: local(result.url) });
  if (result.thumbnail_url) video.poster = local(result.thumbnail_url);
  video.setAttribute("aria-label", `Video: ${job.prompt}`);
  video.addEventListener("play", () => {
    if (video.muted) return;
    if (speaking && speaking !== video) speaking.pause();
    speaking = video;
  });
  // Some systems lack the decoder, or the file is gone: say so over its poster instead of a dead player.
  video.addEventListener("error", () => tellWhy(video, "This browser cannot play it here; download it to watch it."));
  return video;
}

// Over what cannot be shown: that its files are gone, deleted in another tab say, else `otherwise`.
async function tellWhy(media, otherwise) {
  const status = await fetch(media.src, { method: "HEAD" }).then((answer) => answer.status, () => 0);
  const words = Object.assign(document.createElement("p"), { className: "cannot", textContent: status === 410 ? "Its files were deleted." : otherwise });
  if (media.isConnected && !media.nextSibling) media.after(words);
}

// Once the page is looked at: nobody wants to search for the tab that speaks.
export async function playWhenSeen(video) {
  if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
  return play(video);
}

// Play at once. Where another clip is being heard, or the browser wants a click before sound, it plays without; where it
// may not play at all, the poster and the controls stay. Resolves to "sound", "muted" or "waits".
async function play(video) {
  const isHeard = speaking !== null && !speaking.paused && !speaking.ended;
  video.muted = isHeard;
  try {
    await video.play();
    return isHeard ? "muted" : "sound";
  } catch (error) {
    if (error.name !== "NotAllowedError" || video.muted) return "waits";
  }
  video.muted = true;
  try {
    await video.play();
    return "muted";
  } catch {
    return "waits";
  }
}

// A result's address on the host that this page came from: the signature is over the path, and names no host.
export function local(address) {
  const url = new URL(address, location.origin);
  return url.pathname + url.search;
}
