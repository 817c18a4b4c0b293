// The gadget beside Webex: the live call with its buttons, and the last recordings. It stands in a frame of another site, so it has a session
// of its own; what it cannot show, it opens in a window of its own.

import { ask, query } from './ask.js';
import { BUTTONS } from './calls.js';
import { el, say, show } from './dom.js';
import { parties } from './library.js';
import { signIn } from './sign-in.js';
import { full, learn, length, t } from './words.js';

/** How often is asked for live calls: a frame that only looks need not hold a connection. */
const EVERY_MS = 3000;
/** The last recordings: what fits beside a call. */
const LAST = 8;

const main = document.getElementById('main');
let timer = null;

/** What Webex would not open. Who sees this has opened the page elsewhere, which is how it is tried. */
async function warning() {
  const about = await (await fetch('/gadgets/certificate')).json().catch(() => ({}));
  return about.remark ? el('p', { class: 'card flaws', role: 'alert' }, t('certificate.' + about.remark)) : null;
}

function row(one) {
  const { other } = parties(one);
  return el('li', {}, el('a', { class: 'last', href: `/#/recording/${one.id}`, target: '_blank', rel: 'noopener' },
    el('strong', {}, other), el('span', { class: 'length' }, length(one.duration_ms)), el('small', {}, full(one.started_at))));
}

async function gadget() {
  clearTimeout(timer);
  let me;
  try {
    me = await ask('me');
  } catch (error) {
    show(main, await warning(), el('div', {}));
    if (error.status === 401) signIn(main.lastElementChild, gadget);
    else say(error.message || t('no-answer'));
    return;
  }
  const live = el('ul', { class: 'calls' });
  const state = el('p', { class: 'state', role: 'status' });
  const last = el('ul', { class: 'lasts' });
  let shown = '';

  async function act(call, action) {
    await ask(`calls/${call.id}/${action}`, { method: 'POST' }).then(() => say(t('done.' + action)), (error) => say(error.message || t('no-answer')));
    look();
  }

  function draw(calls) {
    state.textContent = calls.length ? '' : t('no-calls');
    const now = JSON.stringify(calls.map((call) => [call.id, call.state, call.kept, call.remote_name, call.remote_number]));
    if (now === shown) return;
    const ended = shown !== '';
    shown = now;
    show(live, calls.map((call) => el('li', { class: `card call ${call.state}` },
      el('span', { class: 'dot', 'aria-hidden': 'true' }),
      el('div', { class: 'grow' }, el('strong', {}, call.remote_name || call.remote_number || t('unknown')),
        el('div', { class: 'quiet' }, t('state.' + call.state))),
      el('div', { class: 'row' }, (BUTTONS[call.state] ?? []).map((action) =>
        el('button', { type: 'button', class: action === 'stop' ? 'danger' : '', onclick: () => act(call, action) }, t('action.' + action)))))));
    if (ended) recent();
  }

  async function recent() {
    if (me.level === 'record-only') return;
    const { recordings } = await ask(`recordings?${query({ limit: LAST })}`).catch(() => ({ recordings: [] }));
    show(last, recordings.map(row));
  }

  async function look() {
    clearTimeout(timer);
    try {
      draw((await ask('calls')).calls);
    } catch (error) {
      if (error.status === 401) return;
      state.textContent = error.message || t('no-answer');
    }
    timer = setTimeout(look, EVERY_MS);
  }

  show(main, await warning(), el('h1', { class: 'hidden' }, 'callvault'), el('h2', {}, t('calls')), state, live,
    me.level !== 'record-only' && [el('h2', {}, t('recordings')), last]);
  recent();
  look();
}

addEventListener('signed-out', () => { clearTimeout(timer); if (!main.querySelector('form')) gadget(); });
await learn();
gadget();
