// The token that proves to the box that a request comes from its own page.
export const token = () => document.querySelector('meta[name="csrf"]')?.content ?? "";

// A call of the API as the person who is signed in; resolves to the parsed answer, throws an Error with the box's own
// sentence (`code`, `status` and `field` beside it). A FormData or URLSearchParams is sent as the form it is, any other body
// as JSON; `more` are further headers.
export async function call(method, path, body, more = {}) {
  const isForm = body === undefined || body instanceof FormData || body instanceof URLSearchParams;
  const headers = { "X-CSRF-Token": token(), ...(isForm ? {} : { "Content-Type": "application/json" }), ...more };
  const answer = await fetch(path, {
    method,
    headers,
    body: isForm ? body : JSON.stringify(body),
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
