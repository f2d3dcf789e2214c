import { tellOffline } from "./frame.js";

const WAIT_MS = 20_000;

// The token that proves to the box that a request comes from its own page.
export const token = () => document.querySelector('meta[name="csrf"]')?.content ?? "";

// A call of the API as the person who is signed in; resolves to the parsed answer, throws an Error with the box's own
// sentence (`code`, `status` and `field` beside it). A FormData or URLSearchParams is sent as the form it is, any other body
// as JSON; `more` are further headers.
export async function call(method, path, body, more = {}) {
  const isForm = body === undefined || body instanceof FormData || body instanceof URLSearchParams;
  const headers = { "X-CSRF-Token": token(), ...(isForm ? {} : { "Content-Type": "application/json" }), ...more };
  const answer = await answered(path, {
    method,
    headers,
    body: isForm ? body : JSON.stringify(body),
    // What changes nothing is not waited for for ever: a network that was lost says nothing at all.
    signal: method === "GET" ? AbortSignal.timeout(WAIT_MS) : undefined,
  });
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch { /* not JSON: told by its status below */ }
  if (!answer.ok) {
    if (answer.status === 401) location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
    const error = new Error(value?.detail ?? `The box answered ${answer.status}.`);
    throw Object.assign(error, { code: value?.code, status: answer.status, field: value?.field, errors: value?.errors });
  }
  return value;
}

// Whether the box answers is said on the page, whatever was asked.
async function answered(path, asked) {
  try {
    const answer = await fetch(path, asked);
    tellOffline(false);
    return answer;
  } catch (error) {
    tellOffline(true);
    throw error;
  }
}
