// The frame: who is signed in, which page is shown. The page and its filters are the address.

import { ask } from './ask.js';
import { el, say, show } from './dom.js';
import { learn, t, language, NAMES, speak } from './words.js';
import { signIn } from './sign-in.js';
import { library } from './library.js';
import { recording } from './recording.js';
import { calls } from './calls.js';
import { admin } from './admin.js';
import { own } from './me.js';

const main = document.getElementById('main');
const top = document.getElementById('top');
let me = null;
let leave = () => {};

function languages() {
  return el('select', { 'aria-label': t('language'), onchange: (event) => speak(event.target.value) },
    NAMES.map(([tag, name]) => el('option', { value: tag, selected: tag === language, lang: tag }, name)));
}

function head(page) {
  const link = (to, text) => el('a', { href: `#/${to}`, 'aria-current': page === to ? 'page' : null }, text);
  const pages = me && [
    me.level !== 'record-only' && link('recordings', t('recordings')),
    link('calls', t('calls')),
    me.may.administer && link('admin', t('admin')),
  ];
  show(top,
    el('a', { class: 'brand', href: '#/' }, el('img', { src: '/icon.svg', alt: '', width: 28, height: 28 }), 'callvault'),
    pages && el('nav', { 'aria-label': t('pages') }, pages.filter(Boolean)),
    el('div', { class: 'who' }, me && el('a', { class: 'me', href: '#/me', 'aria-current': page === 'me' ? 'page' : null }, me.name), languages(),
      me && el('button', { type: 'button', onclick: signOut }, t('sign-out'))));
}

async function signOut() {
  await ask('sign-out', { method: 'POST' }).catch(() => {});
  me = null;
  location.hash = '#/';
  route();
}

async function route() {
  leave();
  leave = () => {};
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [page, id] = path.split('/');
  if (!me) {
    me = await ask('me').catch((error) => { if (error.status !== 401) say(error.message || t('no-answer')); return null; });
  }
  if (!me) {
    head('');
    signIn(main, route);
    return;
  }
  const at = page || (me.level === 'record-only' ? 'calls' : 'recordings');
  head(at);
  const shown = { recordings: () => library(main, new URLSearchParams(query), me), recording: () => recording(main, id, me),
    calls: () => calls(main, me), admin: () => admin(main, id), me: () => own(main, me) }[at];
  leave = shown?.() ?? (() => {});
}

addEventListener('hashchange', () => { route(); main.focus(); });
addEventListener('signed-out', () => { if (me) { me = null; say(t('session-over')); route(); } });
document.getElementById('skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });
await learn();
document.getElementById('skip').textContent = t('skip');
route();
