// For administrators: how the appliance is, users, tokens and sessions, jobs, retention, settings, the audit log.

import { ask } from './ask.js';
import { choice, confirmed, el, field, say, show } from './dom.js';
import { full, number, t } from './words.js';

const PAGES = ['status', 'users', 'tokens', 'jobs', 'retention', 'settings', 'audit'];
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
      show(body,
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
      show(body, table([t('name'), t('level'), t('e-mail'), t('created'), t('expires'), t('state'), ''], tokens.map((token) => [
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
    async settings() {
      const { settings, refused } = await ask('settings');
      show(body, refused && el('p', { class: 'card flaws' }, typeof refused === 'string' ? refused : JSON.stringify(refused)),
        table([t('setting'), t('value'), t('origin')], settings.map((one) => [one.key, el('code', {}, one.value), one.origin])));
    },
    async audit() {
      const { entries } = await ask('audit?limit=200');
      show(body, table([t('when'), t('who'), t('action'), t('outcome'), t('from-where'), 'ID', t('why')], entries.map((entry) => [
        full(entry.at), entry.name, entry.action, t('outcome.' + entry.outcome), entry.from,
        entry.recording && el('a', { href: `#/recording/${entry.recording}` }, entry.recording.slice(0, 8)),
        Object.entries(entry.details ?? {}).map(([name, value]) => `${name}: ${value}`).join(', ')])));
    },
  };

  show(main, el('h1', {}, t('admin')),
    el('nav', { class: 'tabs', 'aria-label': t('admin') }, PAGES.map((one) => el('a', { href: `#/admin/${one}`, 'aria-current': one === at ? 'page' : null }, t('admin.' + one)))), body);
  again();
}
