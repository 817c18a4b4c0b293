// Calls in progress, pushed as they change.

import { ask } from './ask.js';
import { el, say, show } from './dom.js';
import { length, t } from './words.js';

/** What can be done about a call in that state. */
export const BUTTONS = { recording: ['pause', 'stop'], paused: ['resume', 'stop'], stopped: ['start'], 'on-demand': ['keep', 'pause', 'stop'] };

/** Shows the page; answers what ends it. */
export function calls(main) {
  const list = el('ul', { class: 'calls' });
  const state = el('p', { class: 'state', role: 'status' }, t('searching'));
  let known = [];

  async function act(call, action) {
    try {
      await ask(`calls/${call.id}/${action}`, { method: 'POST' });
      say(t('done.' + action));
    } catch (error) {
      say(error.message || t('no-answer'));
    }
  }

  function draw() {
    state.textContent = known.length ? '' : t('no-calls');
    show(list, known.map((call) => el('li', { class: `card call ${call.state}` },
      el('span', { class: 'dot', 'aria-hidden': 'true' }),
      el('div', { class: 'grow' },
        el('strong', {}, call.remote_name || call.remote_number || t('unknown')),
        el('div', {}, call.local_number ?? '', ' · ', t('direction.' + (call.direction ?? 'unknown'))),
        el('div', { class: 'quiet' }, t('state.' + call.state), call.kept === false ? ` · ${t('not-kept')}` : '')),
      el('span', { class: 'length', 'data-since': call.started_at }, length(Date.now() - new Date(call.started_at))),
      el('div', { class: 'row' }, (BUTTONS[call.state] ?? []).map((action) =>
        el('button', { type: 'button', class: action === 'stop' ? 'danger' : '', onclick: () => act(call, action) }, t('action.' + action)))))));
  }

  show(main, el('h1', {}, t('calls')), state, list);
  const source = new EventSource('/api/live');
  source.onmessage = (event) => { known = JSON.parse(event.data).calls ?? []; draw(); };
  source.onerror = () => { state.textContent = t('no-answer'); };
  const clock = setInterval(() => {
    for (const place of list.querySelectorAll('[data-since]')) place.textContent = length(Date.now() - new Date(place.dataset.since));
  }, 1000);
  return () => { source.close(); clearInterval(clock); };
}
