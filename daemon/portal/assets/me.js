// One's own sessions: where one is signed in, each to be ended.

import { ask } from './ask.js';
import { el, say, show } from './dom.js';
import { full, t } from './words.js';

/** Shows the page. */
export function own(main, me) {
  const list = el('ul', { class: 'calls' });
  show(main, el('h1', {}, me.name), el('p', { class: 'quiet' }, t('level.' + me.level), me.groups.length ? ` · ${me.groups.join(', ')}` : ''),
    el('h2', {}, t('sessions')), list);

  async function load() {
    try {
      const { sessions } = await ask('sessions');
      show(list, sessions.map((one) => el('li', { class: 'card call' },
        el('div', { class: 'grow' }, full(one.created_at), el('div', { class: 'quiet' }, `${t('expires')}: ${full(one.expires_at)}`)),
        one.current ? el('span', { class: 'badge kept' }, t('this-session')) : el('button', { type: 'button', class: 'danger', onclick: () => end(one.id) }, t('end-session')))));
    } catch (error) {
      say(error.message || t('no-answer'));
    }
  }

  async function end(id) {
    await ask(`sessions/${id}`, { method: 'DELETE' }).then(() => say(t('saved')), (error) => say(error.message || t('no-answer')));
    load();
  }

  load();
}
