// For administrators: how the appliance is, users, tokens and sessions, jobs, retention, settings, the audit log.

import { ask, query } from './ask.js';
import { choice, confirmed, el, field, say, show } from './dom.js';
import { full, language, number, t } from './words.js';
import { audit } from './audit.js';
import { capacity } from './capacity.js';
import { settings } from './settings.js';
import { webex } from './webex.js';

const PAGES = ['status', 'capacity', 'users', 'tokens', 'jobs', 'retention', 'webex', 'settings', 'audit'];
const LEVELS = ['record-only', 'base', 'group-supervisor', 'administrator'];

function table(heads, rows) {
  return rows.length
    ? el('div', { class: 'scroll', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, heads.map((head) => head ? el('th', { scope: 'col' }, head) : el('td', {})))),
      el('tbody', {}, rows.map((row) => el('tr', {}, row.map((cell) => el('td', {}, cell ?? '')))))))
    : el('p', { class: 'quiet' }, t('nothing-found'));
}

const act = (text, does, danger) => el('button', { type: 'button', class: danger ? 'danger' : '', onclick: does }, text);

/** Shows the page; answers what ends it. */
export function admin(main, page) {
  const at = PAGES.includes(page) ? page : 'status';
  const body = el('div', {}, el('p', { class: 'state' }, t('searching')));
  const again = () => views[at]().catch((error) => show(body, el('p', { class: 'state', role: 'alert' }, error.message || t('no-answer'))));
  const then = (promise) => promise.then(() => { say(t('saved')); again(); }).catch((error) => say(error.message || t('no-answer')));

  /** Users out of a file: what would change is shown first. */
  function importing() {
    const file = el('input', { type: 'file', accept: '.csv,.toml,text/csv', required: true });
    const missing = el('input', { type: 'checkbox' });
    const place = el('div', {});
    const send = async (dry_run) => {
      const [one] = file.files;
      return ask('users/import', { method: 'POST', body: { name: one.name, content: await one.text(), dry_run, remove_missing: missing.checked, confirm: !dry_run } });
    };
    const failed = (error) => show(place, el('p', { class: 'wrong', role: 'alert' }, error.message || t('no-answer')));
    const anew = () => show(place);
    file.addEventListener('change', anew);
    missing.addEventListener('change', anew);
    const plan = async (event) => {
      event.preventDefault();
      try {
        const found = await send(true);
        const text = t('import-plan', { added: number(found.added), changed: number(found.changed), removed: number(found.removed), unchanged: number(found.unchanged) });
        const apply = async () => {
          if (found.removed && !await confirmed(t('import'), text, t('apply'), t('cancel'))) return;
          await send(false).then(() => { say(t('saved')); again(); }, failed);
        };
        show(place, el('p', {}, text), table([t('e-mail'), t('action'), t('why')], found.changes.slice(0, 500).map((one) => [one.webex_email, one.change, (one.fields ?? []).join(', ')])),
          found.added + found.changed + found.removed > 0 && el('button', { type: 'button', class: 'main', onclick: apply }, t('apply')));
      } catch (error) {
        failed(error);
      }
    };
    return el('details', { class: 'card' }, el('summary', {}, t('import')),
      el('form', { onsubmit: plan }, field(t('import-file'), file), el('label', { class: 'check' }, missing, t('remove-missing')), el('button', {}, t('show-plan'))), place);
  }

  /** A token for a program; it is shown this once. */
  function creating() {
    const name = el('input', { type: 'text', required: true, maxlength: 100, autocomplete: 'off' });
    const user = el('input', { type: 'email', autocomplete: 'off' });
    const days = el('input', { type: 'number', min: 1, max: 3660, value: '365' });
    const level = choice(LEVELS.map((one) => [one, t('level.' + one)]), 'base');
    const place = el('div', { role: 'status' });
    return el('section', { class: 'card' }, el('h2', {}, t('create-token')), el('form', { class: 'grid', onsubmit: async (event) => {
      event.preventDefault();
      const body = { name: name.value, level: level.value, ...(user.value && { user: user.value }), ...(days.value && { expires_days: Number(days.value) }) };
      try {
        const made = await ask('tokens', { method: 'POST', body });
        show(place, el('p', {}, t('token-once')), el('p', {}, el('code', {}, made.token)), act(t('show-list'), again));
      } catch (error) {
        say(error.message || t('no-answer'));
      }
    } }, field(t('name'), name), field(t('level'), level), field(t('e-mail'), user), field(t('expires-days'), days), el('button', {}, t('create-token'))), place);
  }

  /** Patterns of the filters, tried with a number as one types. */
  function trying(value) {
    const patterns = el('textarea', { rows: 4, value: (value ?? []).join('\n') });
    const tried = el('input', { type: 'text', inputmode: 'tel', maxlength: 64 });
    const place = el('div', { role: 'status' });
    let timer = null;
    const run = async () => {
      const all = patterns.value.split('\n').map((one) => one.trim()).filter(Boolean);
      if (!all.length || !tried.value.trim()) return show(place);
      try {
        const found = await ask('patterns/try', { method: 'POST', body: { number: tried.value, patterns: all } });
        return show(place, table([t('pattern'), ''], found.patterns.map((one) => [el('code', {}, one.pattern), one.error ?? (one.matches ? t('matches') : t('matches-not'))])));
      } catch (error) {
        return show(place, el('p', { class: 'wrong' }, error.message || t('no-answer')));
      }
    };
    const soon = () => { clearTimeout(timer); timer = setTimeout(run, 200); };
    patterns.addEventListener('input', soon);
    tried.addEventListener('input', soon);
    return el('section', { class: 'card' }, el('h2', {}, t('try-patterns')), field(t('patterns'), patterns, t('pattern-hint')), field(t('number'), tried), place);
  }

  /** A mail as people would get it, and what the server said. */
  function mailing() {
    const address = el('input', { type: 'email', required: true });
    const place = el('p', { role: 'status' });
    const button = el('button', {}, t('send'));
    return el('section', { class: 'card' }, el('h2', {}, t('mail-test')), el('form', { onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      place.textContent = t('sending');
      try {
        place.textContent = t('mail-sent', { reply: (await ask(`mail/test?${query({ address: address.value, language })}`, { method: 'POST' })).reply });
      } catch (error) {
        place.textContent = error.message || t('no-answer');
      } finally {
        button.disabled = false;
      }
    } }, field(t('e-mail'), address), button), place);
  }

  const views = {
    async status() {
      const status = await ask('status');
      const components = Object.entries(status.health.components ?? {});
      const reason = el('input', { type: 'text', required: true, maxlength: 500 });
      const stopped = status.recording.stopped;
      show(body,
        el('div', { class: 'tiles' },
          [['health', status.health.status], ['calls', number(status.calls)], ['version', status.version],
            ['store', status.store_state], ['free-hours', status.spool.headroom_hours === null ? '–' : number(Math.round(status.spool.headroom_hours))]]
            .map(([key, value]) => el('div', { class: 'card tile' }, el('small', {}, { health: t('health'), calls: t('calls'), version: t('version'), store: t('store'), 'free-hours': t('free-hours') }[key]), el('strong', {}, String(value))))),
        table([t('part'), t('state'), t('why')], components.map(([name, one]) => [name, one.status, one.reason])),
        el('form', { class: 'card row', onsubmit: (event) => {
          event.preventDefault();
          then(ask(stopped ? 'recording/start' : 'recording/stop', { method: 'POST', body: stopped ? undefined : { reason: reason.value } }));
        } }, stopped ? el('p', {}, t('stopped-because', { why: status.recording.reason })) : field(t('stop-why'), reason),
        el('button', { class: stopped ? 'main' : 'danger' }, stopped ? t('start-recording') : t('stop-recording'))));
    },
    async users() {
      const { users } = await ask('users');
      const mail = el('input', { type: 'email', required: true });
      const first = el('input', { type: 'text', autocomplete: 'off', minlength: 12 });
      const group = el('input', { type: 'text' });
      const level = choice(LEVELS.map((one) => [one, t('level.' + one)]), 'base');
      show(body, importing(),
        el('form', { class: 'card grid', onsubmit: (event) => {
          event.preventDefault();
          const fields = { level: level.value, ...(group.value && { group: group.value }), ...(first.value && { initial_password: first.value }) };
          then(ask(`users/${encodeURIComponent(mail.value)}`, { method: 'PUT', body: fields }));
        } }, field(t('e-mail'), mail), field(t('level'), level), field(t('group'), group), field(t('first-password'), first, t('first-password-hint')), el('button', { class: 'main' }, t('save'))),
        table([t('e-mail'), t('name'), t('level'), t('group'), t('number'), ''], users.filter((user) => !user.removed_at).map((user) => [
          user.webex_email, user.name, t('level.' + user.level), user.group, user.first_extension,
          act(t('remove'), async () => {
            if (await confirmed(t('remove'), t('remove-user', { who: user.webex_email }), t('remove'), t('cancel'))) then(ask(`users/${encodeURIComponent(user.webex_email)}`, { method: 'DELETE' }));
          }, true)])));
    },
    async tokens() {
      const { tokens } = await ask('tokens');
      show(body, creating(), table([t('name'), t('level'), t('e-mail'), t('created'), t('expires'), t('state'), ''], tokens.map((token) => [
        token.name, t('level.' + token.level), token.email, full(token.created_at), full(token.expires_at), t('token.' + token.state),
        token.state === 'good' && act(t('revoke'), () => then(ask(`tokens/${token.id}`, { method: 'DELETE' })), true)])));
    },
    async jobs() {
      const { jobs } = await ask('jobs');
      show(body, table([t('kind'), 'ID', t('state'), t('attempts'), t('why'), ''], jobs.map((job) => [
        job.kind, job.recording, job.state, number(job.attempts), job.last_error,
        ['parked', 'ready'].includes(job.state) && act(t('retry'), () => then(ask(`jobs/${encodeURIComponent(job.id)}/retry`, { method: 'POST' })))])));
    },
    async retention() {
      const found = await ask('retention');
      show(body, el('section', { class: 'card' }, el('h2', {}, t('rule')), el('p', {}, found.rule.text),
        found.plan && el('p', {}, t('retention-plan', { all: number(found.plan.recordings), due: number(found.plan.due), now: number(found.plan.goes_now) }))),
      found.question && el('section', { class: 'card flaws' }, el('p', {}, found.question.text),
        act(t('confirm'), async () => {
          const text = t('retention-ask', { count: number(found.question.recordings) });
          if (await confirmed(t('confirm'), text, t('delete-yes'), t('cancel'))) then(ask('retention/confirm', { method: 'POST', body: { token: found.question.token } }));
        }, true)));
    },
    capacity: () => capacity(body),
    settings: () => settings(body, (all) => el('div', { class: 'columns' }, trying(all.find((one) => one.key === 'filters.blacklist')?.set), mailing())),
    webex: () => webex(body),
    audit: () => audit(body),
  };

  show(main, el('h1', {}, t('admin')),
    el('nav', { class: 'tabs', 'aria-label': t('admin') }, PAGES.map((one) => el('a', { href: `#/admin/${one}`, 'aria-current': one === at ? 'page' : null }, t('admin.' + one)))), body);
  again();
}
