// Asking the portal, which hands it on. The session is in a cookie that no script can read.

/** Which of our pages asks: the gadget has a session of its own. */
const OURS = location.pathname.startsWith('/gadgets/') ? 'gadget' : '1';

/** What went wrong, for people. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Asks `/api/…`; answers the JSON. */
export async function ask(path, { method = 'GET', body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, {
      method, signal, credentials: 'same-origin',
      headers: { 'x-callvault': OURS, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused(0, '');
  }
  const json = await answer.json().catch(() => ({}));
  if (answer.ok) return json;
  if (answer.status === 401 && path !== 'sign-in') dispatchEvent(new Event('signed-out'));
  throw new Refused(answer.status, json.error?.message ?? String(answer.status));
}

/** A query out of what is set. */
export function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== '' && value !== null && value !== undefined && value !== false);
  return new URLSearchParams(set).toString();
}
