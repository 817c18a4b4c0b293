// Signing in, and the first password that has to be changed.

import { ask } from './ask.js';
import { el, field, show } from './dom.js';
import { t } from './words.js';

/** Shows the form; calls `then` when somebody is signed in. */
export function signIn(main, then) {
  const user = el('input', { type: 'email', autocomplete: 'username', required: true });
  const password = el('input', { type: 'password', autocomplete: 'current-password', required: true });
  const fresh = el('input', { type: 'password', autocomplete: 'new-password', minlength: 12 });
  const again = el('input', { type: 'password', autocomplete: 'new-password' });
  const change = el('div', { class: 'change', hidden: true }, el('p', {}, t('change-first')), field(t('new-password'), fresh, t('password-rule')), field(t('again'), again));
  const wrong = el('p', { class: 'wrong', role: 'alert' });
  const button = el('button', { class: 'main' }, t('sign-in'));
  const other = el('button', { type: 'button', class: 'plain', onclick: () => ask_for_new() }, t('change-password'));

  function ask_for_new() {
    change.hidden = false;
    other.hidden = true;
    fresh.required = again.required = true;
    (password.value ? fresh : user.value ? password : user).focus();
  }

  async function send(event) {
    event.preventDefault();
    wrong.textContent = '';
    if (!change.hidden && fresh.value !== again.value) {
      wrong.textContent = t('not-same');
      again.focus();
      return;
    }
    button.disabled = true;
    try {
      const body = { user: user.value, password: password.value, ...(change.hidden ? {} : { new_password: fresh.value }) };
      const answer = await ask('sign-in', { method: 'POST', body });
      if (answer.change) ask_for_new();
      else then();
    } catch (error) {
      const said = { 401: t('wrong-password'), 0: t('no-answer'), 422: t('weak-password') }[error.status];
      const wait = error.status === 503 && /(\d+) s$/.exec(error.message);
      wrong.textContent = wait ? t('wait', { seconds: wait[1] }) : said ?? error.message;
    } finally {
      button.disabled = false;
    }
  }

  const elsewhere = el('p', { hidden: true });
  ask('sign-in').then(({ provider }) => {
    if (!provider) return;
    elsewhere.append(el('a', { href: '/sign-in/provider' }, t('sign-in-with', { provider })));
    elsewhere.hidden = false;
  }).catch(() => {});

  show(main, el('form', { class: 'card sign-in', onsubmit: send },
    el('h1', {}, t('sign-in')), field(t('e-mail'), user), field(t('password'), password), change, wrong, button, other, elsewhere));
  user.focus();
}
