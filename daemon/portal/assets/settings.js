// Settings, for administrators: made of what the recorder says of each, so that one that is new needs nothing here. Nothing is changed before a
// plan was shown, and what opens a door or destroys is typed.

import { ask } from './ask.js';
import { choice, el, field, say, show } from './dom.js';
import { bytes, day, number, t } from './words.js';

const when = (one) => one.takes_effect === 'restart' ? t('with-restart') : t('at-once');
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const english = (text) => el('span', { lang: 'en' }, text);

/** What a field shows by itself. */
const PLAIN = ['text in quotes', 'true or false', 'a whole number'];

/** The field of a setting, and how what is in it is read. */
function input(one) {
  const props = { disabled: Boolean(one.fixed), autocomplete: 'off', spellcheck: 'false' };
  if (one.kind === 'flag') {
    const box = el('input', { ...props, type: 'checkbox', checked: one.set });
    return [box, () => box.checked, (value) => { box.checked = value; }];
  }
  let place;
  if (one.choices?.length) place = choice(one.choices.map((word) => [word, word]), one.set, props);
  else if (one.kind === 'list') place = el('textarea', { ...props, rows: Math.min(8, Math.max(2, (one.set ?? []).length + 1)), value: (one.set ?? []).join('\n') });
  else if (one.kind === 'number') place = el('input', { ...props, type: 'number', step: 1, min: one.range?.[0], max: one.range?.[1], value: String(one.set) });
  else place = el('input', { ...props, type: 'text', value: one.set ?? '', placeholder: one.set === null ? t('not-shown') : null });
  const read = () => {
    if (one.kind === 'list') return place.value.split('\n').map((line) => line.trim()).filter(Boolean);
    const digits = /^\d{1,15}$/.test(place.value);
    if (digits && (one.kind === 'number' || typeof one.set === 'number')) return Number(place.value);
    return one.set === null && place.value === '' ? null : place.value;
  };
  return [place, read, (value) => { place.value = Array.isArray(value) ? value.join('\n') : String(value ?? ''); }];
}

/** One setting: its field, what it means, where it comes from, what it may be. */
function setting(one, wanted, changed) {
  const [place, read, put] = input(one);
  place.id = `setting-${one.key}`;
  const wrong = el('p', { class: 'wrong', id: `${place.id}-wrong`, role: 'alert' });
  const about = el('small', { id: `${place.id}-about` }, english(one.doc), ' ',
    one.range && one.kind !== 'number' && `${t('range', { least: one.range[0], greatest: one.range[1] })} `,
    PLAIN.includes(one.shape) || one.choices?.length ? null : english(`(${one.shape})`));
  const value = one.set === null ? one.value : (one.waiting?.value ?? one.value);
  const facts = el('small', {}, when(one), ' · ', t('default-is'), ' ', el('code', {}, one.default ?? ''), ' · ', t('origin'), ' ',
    el('code', {}, one.waiting?.origin ?? one.origin), one.waiting && el('strong', {}, ' ', t('waits', { value: one.value })));
  place.setAttribute('aria-describedby', `${about.id} ${wrong.id}`);
  const row = el('div', { class: 'setting' }, el('label', { for: place.id }, one.key), place, wrong, about, facts);
  const mark = () => {
    const now = read();
    if (same(now, one.set)) wanted.delete(one.key);
    else wanted.set(one.key, now);
    row.classList.toggle('changed', wanted.has(one.key));
    wrong.textContent = '';
    place.removeAttribute('aria-invalid');
    changed();
  };
  place.addEventListener('input', mark);
  place.addEventListener('change', mark);
  if (one.fixed) row.append(el('p', { class: 'quiet' }, t('fixed.' + one.fixed.by), ' ', el('code', {}, one.fixed.by === 'machine' ? '' : one.origin)));
  if (one.in_portal) {
    row.append(el('button', { type: 'button', onclick: () => { wanted.set(one.key, null); row.classList.add('changed'); changed(); } }, t('take-out'), el('span', { class: 'hidden' }, ` ${one.key}`)));
  }
  const text = `${one.key} ${one.doc} ${value}`.toLowerCase();
  const isOther = value !== one.default;
  return {
    key: one.key, row, text, isOther,
    complain(message) { wrong.textContent = message; place.setAttribute('aria-invalid', 'true'); },
    again() {
      if (!wanted.has(one.key) || one.fixed) return wanted.delete(one.key);
      if (wanted.get(one.key) !== null) put(wanted.get(one.key));
      return row.classList.add('changed');
    },
    focus() { place.focus(); },
  };
}

/** What a shorter retention would delete. */
function preview(found) {
  if (!found) return null;
  if (!found.due) return el('p', {}, t('deletes-none'));
  const values = { due: number(found.due), all: number(found.recordings), size: bytes(found.bytes), oldest: day(found.oldest), newest: day(found.newest) };
  return el('p', { class: 'card flaws' }, t('deletes-some', values), found.question && ` ${t('asks-again')}`);
}

/** The plan, and the question whether it is meant; answers what was typed, or null. */
function asked(plan) {
  return new Promise((answer) => {
    const typed = el('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', required: Boolean(plan.confirm) });
    const apply = el('button', { class: plan.confirm ? 'danger' : 'main', disabled: Boolean(plan.confirm) }, t('apply'));
    typed.addEventListener('input', () => { apply.disabled = typed.value.trim() !== plan.confirm; });
    const dialog = el('dialog', { class: 'plan', 'aria-labelledby': 'plan-title' },
      el('h2', { id: 'plan-title' }, t('plan')),
      el('div', { class: 'scroll', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, ['setting', 'before', 'after', 'when'].map((key) => el('th', { scope: 'col' }, heads()[key])))),
        el('tbody', {}, plan.changes.map((one) => el('tr', {}, el('td', {}, one.key), el('td', {}, el('code', {}, one.from)), el('td', {}, el('code', {}, one.to)),
          el('td', {}, when(one))))))),
      preview(plan.retention),
      plan.risks.length > 0 && el('ul', { class: 'card flaws' }, plan.risks.map((one) => el('li', {}, el('code', {}, one.key), ' ', t('risk.' + one.risk)))),
      el('form', { class: 'change', onsubmit: (event) => { event.preventDefault(); dialog.close('apply'); } },
        plan.confirm && field(t('type-this', { word: plan.confirm }), typed),
        el('div', { class: 'row end' }, el('button', { type: 'button', autofocus: true, onclick: () => dialog.close('') }, t('cancel')), apply)));
    dialog.addEventListener('close', () => { answer(dialog.returnValue === 'apply' ? typed.value.trim() : null); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const heads = () => ({ setting: t('setting'), before: t('before'), after: t('after'), when: t('when') });

/** Shows the settings in `place`; `beside` is what stands above them, made of the settings. */
export async function settings(place, beside) {
  const wanted = new Map();
  // What is looked for and which sections are open stays when the settings are read again.
  const look = { text: '', others: false, open: new Set() };

  async function load() {
    const found = await ask('settings');
    const count = el('p', { role: 'status' });
    const failed = el('p', { class: 'wrong', role: 'alert' });
    const bar = el('div', { class: 'card bar', hidden: true }, count, failed, el('div', { class: 'row end' },
      el('button', { type: 'button', onclick: () => { wanted.clear(); load(); } }, t('discard')), el('button', { type: 'submit', class: 'main' }, t('show-plan'))));
    const changed = () => {
      bar.hidden = wanted.size === 0;
      count.textContent = wanted.size ? t('changes-count', { count: number(wanted.size) }) : '';
      failed.textContent = '';
    };
    const rows = found.settings.map((one) => setting(one, wanted, changed));
    const find = el('input', { type: 'search', autocomplete: 'off', value: look.text });
    const others = el('input', { type: 'checkbox', checked: look.others });
    const nothing = el('p', { class: 'state', role: 'status' });
    const groups = found.sections.map(({ name, about }) => {
      const own = rows.filter((one) => (one.key.includes('.') ? one.key.split('.')[0] : '') === name);
      const details = el('details', { class: 'card section' }, el('summary', {}, name || t('section-first'), ` (${own.length})`), el('p', { class: 'quiet' }, english(about)), own.map((one) => one.row));
      details.addEventListener('toggle', () => (details.open ? look.open.add(name) : look.open.delete(name)));
      return { name, details, own };
    });
    const sift = () => {
      Object.assign(look, { text: find.value, others: others.checked });
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      let seen = 0;
      for (const { details, own } of groups) {
        const fits = own.filter((one) => words.every((word) => one.text.includes(word)) && (!others.checked || one.isOther || wanted.has(one.key)));
        for (const one of own) one.row.hidden = !fits.includes(one);
        details.hidden = fits.length === 0;
        if (words.length || others.checked) details.open = fits.length > 0;
        seen += fits.length;
      }
      nothing.textContent = seen ? '' : t('nothing-found');
    };
    find.addEventListener('input', sift);
    others.addEventListener('change', sift);

    const put = (body) => ask('settings', { method: 'PUT', body: { version: found.version, changes: Object.fromEntries(wanted), ...body } });
    const save = async (event) => {
      event.preventDefault();
      failed.textContent = '';
      if (!wanted.size) return;
      try {
        const plan = await put({ dry_run: true });
        if (plan.mistakes.length) {
          for (const { key, message } of plan.mistakes) {
            const row = rows.find((one) => one.key === key);
            if (row) row.complain(message);
            else failed.textContent += `${key} ${message} `;
          }
          const first = rows.find((one) => plan.mistakes.some(({ key }) => key === one.key));
          if (first) {
            first.row.hidden = false;
            first.row.closest('details').hidden = false;
            first.row.closest('details').open = true;
            first.focus();
          }
          return;
        }
        const typed = await asked(plan);
        if (typed === null) return;
        const done = await put(plan.confirm ? { confirm: typed } : {});
        wanted.clear();
        const waits = done.changes.some((one) => one.takes_effect === 'restart');
        await load();
        say(waits ? t('saved-restart') : t('saved'));
      } catch (error) {
        if (error.status !== 409) {
          failed.textContent = error.message || t('no-answer');
          return;
        }
        // Somebody else was faster: what they set is shown, and what was typed here is kept.
        await load();
        place.querySelector('.bar .wrong').textContent = error.message;
      }
    };
    show(place,
      found.refused && el('p', { class: 'card flaws' }, english(found.refused)),
      beside(found.settings),
      el('form', { class: 'settings', onsubmit: save, novalidate: true },
        el('div', { class: 'card row' }, el('div', { class: 'grow' }, field(t('search-settings'), find)), el('label', { class: 'check' }, others, t('changed-only'))),
        nothing, groups.map((one) => one.details), bar));
    for (const one of rows) one.again();
    for (const { name, details, own } of groups) details.open = look.open.has(name) || own.some((one) => wanted.has(one.key));
    sift();
    changed();
  }

  await load();
}
