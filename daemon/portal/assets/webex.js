// Webex, for administrators: how the authorisation stands, users synchronised after a plan, and whether a call is missing.

import { ask } from './ask.js';
import { confirmed, el, field, say, show } from './dom.js';
import { full, number, t } from './words.js';

/** Between two looks at a synchronisation that runs. */
const AGAIN_MS = 1000;

/** Calls that are shown of those that are not as they should be. */
const FINDINGS_MAX = 200;

const heads = (texts) => el('thead', {}, el('tr', {}, texts.map((text) => el('th', { scope: 'col' }, text))));
const rows = (all) => el('tbody', {}, all.map((cells) => el('tr', {}, cells.map((cell) => el('td', {}, cell ?? '')))));
const table = (texts, all) => el('div', { class: 'scroll', tabindex: 0 }, el('table', {}, heads(texts), rows(all)));
const wrong = (error) => el('p', { class: 'wrong', role: 'alert' }, error.message || t('no-answer'));

/** How it stands. */
function standing(found, again) {
  return el('section', { class: 'card' }, el('h2', {}, t('webex-authorisation')),
    el('p', {}, t('webex-state.' + found.state), found.reason && el('span', { class: 'quiet', lang: 'en' }, ` ${found.reason}`)),
    found.synced_at && el('p', { class: 'quiet' }, `${t('webex-synced')} ${full(found.synced_at)}`),
    found.problems.length > 0 && el('ul', { class: 'flaws' }, found.problems.map((text) => el('li', { lang: 'en' }, text))),
    authorising(again));
}

/** An administrator of Webex agrees in a page of theirs, and brings back where the browser ended. */
function authorising(again) {
  const place = el('div', {});
  const begin = async () => {
    try {
      const { url } = await ask('webex/authorisation', { method: 'POST' });
      const answer = el('input', { type: 'text', required: true, autocomplete: 'off' });
      show(place, el('p', {}, el('a', { href: url, target: '_blank', rel: 'noopener noreferrer' }, t('webex-open'))),
        el('form', { onsubmit: (event) => {
          event.preventDefault();
          ask('webex/authorisation/answer', { method: 'POST', body: { answer: answer.value } }).then(() => { say(t('saved')); again(); }, (error) => show(place, wrong(error)));
        } }, field(t('webex-answer'), answer), el('button', { class: 'main' }, t('confirm'))));
    } catch (error) {
      show(place, wrong(error));
    }
  };
  return el('div', {}, el('button', { type: 'button', onclick: begin }, t('webex-authorise')), place);
}

/** Has users synchronised, and waits for the report. */
async function synchronised(body) {
  const { id } = await ask('users/sync', { method: 'POST', body });
  for (;;) {
    const { runs } = await ask('users/sync');
    if (runs.some((one) => one.id === id)) return ask(`users/sync/${id}`);
    await new Promise((go) => setTimeout(go, AGAIN_MS));
  }
}

const sums = (run) => t('import-plan', { added: number(run.added ?? 0), changed: number(run.changed ?? 0), removed: number(run.removed ?? 0), unchanged: number(run.unchanged ?? 0) });

function synchronising(again) {
  const place = el('div', { role: 'status' });
  const button = el('button', { type: 'button' }, t('show-plan'));
  const working = async (work) => {
    button.disabled = true;
    show(place, el('p', {}, t('searching')));
    try {
      await work();
    } catch (error) {
      show(place, wrong(error));
    } finally {
      button.disabled = false;
    }
  };
  const apply = async (plan) => {
    if ((plan.removed || plan.would_be_refused) && !await confirmed(t('webex-sync'), sums(plan), t('apply'), t('cancel'))) return;
    await working(async () => {
      const run = await synchronised({ dry_run: false, confirm: Boolean(plan.would_be_refused) });
      if (run.outcome !== 'done') throw new Error(run.error);
      say(t('saved'));
      again();
    });
  };
  button.addEventListener('click', () => working(async () => {
    const plan = await synchronised({ dry_run: true });
    if (plan.outcome !== 'done') throw new Error(plan.error);
    show(place, el('p', {}, sums(plan)), plan.would_be_refused && el('p', { class: 'card flaws', lang: 'en' }, String(plan.would_be_refused)),
      plan.changes?.length > 0 && table([t('e-mail'), t('action'), t('why')], plan.changes.slice(0, 500).map((one) => [one.webex_email, one.change, (one.fields ?? []).join(', ')])),
      el('button', { type: 'button', class: 'main', onclick: () => apply(plan) }, t('apply')));
  }));
  return el('section', { class: 'card' }, el('h2', {}, t('webex-sync')), button, place);
}

/** Calls of which Webex has a record, compared with what is held. */
async function completeness() {
  const found = await ask('completeness');
  const findings = found.findings.filter((one) => one.verdict !== 'recorded').slice(0, FINDINGS_MAX);
  return el('section', { class: 'card' }, el('h2', {}, t('completeness')),
    el('div', { class: 'tiles' }, Object.entries(found.sums).filter(([, count]) => typeof count === 'number')
      .map(([verdict, count]) => el('div', { class: 'tile' }, el('small', {}, verdict), el('strong', {}, number(count))))),
    findings.length > 0 && table([t('when'), t('outcome'), t('why'), t('e-mail'), 'ID'], findings.map((one) => [full(one.begun_at), one.verdict, one.rule, one.user,
      (one.recordings ?? []).map((id) => el('a', { href: `#/recording/${id}` }, id.slice(0, 8)))])));
}

/** Who is on one side alone. */
async function unmatched() {
  const found = await ask('users/unmatched');
  const listed = (title, texts, all) => all.length > 0 && [el('h3', {}, `${title} (${number(all.length)})`), table(texts, all.slice(0, FINDINGS_MAX))];
  const english = (text) => el('span', { lang: 'en' }, text);
  const lists = [
    listed(t('unknown-users'), [t('e-mail'), t('name'), t('why')], found.unknown.map((one) => [one.address, one.name, english(one.reason)])),
    listed(t('unrecorded-users'), [t('e-mail'), t('why')], found.unrecorded.map((one) => [one.webex_email, english(one.reason)])),
    listed(t('calls-of-nobody'), [t('number'), t('name'), t('kept'), t('discarded'), t('when')],
      found.sessions.map((one) => [one.number, one.name, number(one.kept), number(one.discarded), full(one.last_at)])),
  ].filter(Boolean);
  return el('section', { class: 'card' }, el('h2', {}, t('unmatched')), lists.length > 0 ? lists : el('p', {}, t('all-matched')));
}

/** Shows the page in `place`. */
export async function webex(place) {
  const again = () => webex(place);
  const found = await ask('webex');
  if (!found.enabled) {
    show(place, el('p', { class: 'card' }, t('webex-off')));
    return;
  }
  const { runs } = await ask('users/sync');
  const [sides, calls] = [el('div', {}), el('div', {})];
  show(place, standing(found, again), found.usable && synchronising(again),
    runs.length > 0 && el('section', {}, el('h2', {}, t('webex-runs')), table([t('when'), t('outcome'), t('why'), ''],
      runs.map((run) => [full(run.began_at), run.dry_run ? t('plan') : t('run.' + run.outcome), run.error, sums(run)]))), sides, calls);
  unmatched().then((section) => show(sides, section), (error) => show(sides, wrong(error)));
  if (found.records) completeness().then((section) => show(calls, section), (error) => show(calls, wrong(error)));
}
