// The audit log, for administrators: who did what, found by who, what, when and how it went, older ones as one asks.

import { ask, query } from './ask.js';
import { choice, el, field, show } from './dom.js';
import { full, t } from './words.js';

/** Entries that are read at once. */
const PAGE = 100;

const ACTIONS = ['search', 'show', 'play', 'download', 'export', 'delete', 'preserve', 'unpreserve', 'note-add', 'note-edit', 'note-delete', 'tag', 'pause', 'resume', 'stop',
  'start', 'keep', 'retry-job', 'rotate-keys', 'verify', 'drain', 'stop-recording', 'start-recording', 'users', 'change-users', 'discards', 'settings', 'change-store',
  'tokens', 'create-token', 'revoke-token', 'audit', 'sign-in', 'calls', 'status', 'jobs', 'keys', 'retention'];

function line(entry) {
  const details = Object.entries(entry.details ?? {}).map(([name, value]) => `${name}: ${value}`).join(', ');
  const cells = [full(entry.at), entry.name, entry.action, t('outcome.' + entry.outcome), entry.from,
    entry.recording && el('a', { href: `#/recording/${entry.recording}` }, entry.recording.slice(0, 8)), details];
  return el('tr', {}, cells.map((cell) => el('td', {}, cell ?? '')));
}

/** Shows the page in `place`. */
export async function audit(place) {
  const name = el('input', { type: 'text', autocomplete: 'off' });
  const action = choice([['', t('all')], ...ACTIONS.map((one) => [one, one])], '');
  const outcome = choice([['', t('all')], ['allowed', t('outcome.allowed')], ['refused', t('outcome.refused')], ['failed', t('outcome.failed')]], '');
  const from = el('input', { type: 'date' });
  const to = el('input', { type: 'date' });
  const body = el('tbody', {});
  const state = el('p', { class: 'quiet', role: 'status' });
  const older = el('button', { type: 'button', hidden: true }, t('older'));
  let next = null;
  let asked = 0;

  // A day is one of the reader's zone, and the last one counts.
  const since = (text, days) => {
    const at = new Date(`${text}T00:00:00`);
    at.setDate(at.getDate() + days);
    return at.toISOString();
  };
  const read = async (cursor) => {
    const mine = ++asked;
    const found = await ask(`audit?${query({ limit: PAGE, cursor, name: name.value.trim(), action: action.value, outcome: outcome.value,
      from: from.value && since(from.value, 0), to: to.value && since(to.value, 1) })}`);
    if (mine !== asked) return;
    const lines = found.entries.map(line);
    if (cursor) body.append(...lines);
    else body.replaceChildren(...lines);
    next = found.next;
    older.hidden = !next;
    state.textContent = body.children.length ? '' : t('nothing-found');
  };
  const told = (error) => { state.textContent = error.message || t('no-answer'); };
  older.addEventListener('click', () => read(next).catch(told));
  const anew = (event) => { event.preventDefault(); read().catch(told); };
  await read();
  show(place,
    el('form', { class: 'card grid', onsubmit: anew, onchange: anew }, field(t('who'), name), field(t('action'), action), field(t('outcome'), outcome), field(t('from'), from), field(t('to'), to)),
    el('div', { class: 'scroll', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, [t('when'), t('who'), t('action'), t('outcome'), t('from-where'), 'ID', t('why')].map((head) => el('th', { scope: 'col' }, head)))), body)),
    state, older);
}
