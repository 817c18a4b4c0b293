// The recordings: found as one types, without end, the filters in the address.

import { ask, query } from './ask.js';
import { choice, el, field, show } from './dom.js';
import { day, length, t, time } from './words.js';

const PAGE = 50;
const WORDS = ['number', 'from', 'to', 'direction', 'traffic', 'verdict', 'owner', 'group', 'tag', 'note', 'longer', 'preserved'];

/** Midnight here, of a day as a date field gives it, so many days later. */
function midnight(text, later) {
  const [y, m, d] = text.split('-').map(Number);
  return new Date(y, m - 1, d + later).toISOString();
}

function asked(filters, cursor) {
  const { from, to, longer, number, ...rest } = filters;
  return query({
    ...rest, number, number_match: number ? 'part' : '', from: from && midnight(from, 0), to: to && midnight(to, 1),
    duration_min_ms: longer && Number(longer) * 1000, limit: PAGE, cursor,
  });
}

/** What is recorded of whom, for one line. */
export function parties(row) {
  const other = row.remote_name || row.remote_number || t('unknown');
  const own = row.owner_name || row.local_name || row.local_number || row.owner || t('nobody');
  return { other, own };
}

function line(row) {
  const { other, own } = parties(row);
  const arrow = { incoming: '↙', outgoing: '↗' }[row.direction] ?? '↔';
  return el('li', {}, el('a', { href: `#/recording/${row.id}`, class: 'line' },
    el('span', { class: 'arrow', role: 'img', 'aria-label': t('direction.' + row.direction), title: t('direction.' + row.direction) }, arrow),
    el('span', { class: 'other' }, other, row.remote_name && row.remote_number ? el('small', {}, row.remote_number) : null),
    el('span', { class: 'own' }, own),
    el('span', { class: 'badges' },
      row.verdict !== 'ok' && el('span', { class: `badge ${row.verdict}` }, t('verdict.' + row.verdict)),
      row.preserved && el('span', { class: 'badge kept' }, t('preserved')),
      row.notes?.length ? el('span', { class: 'badge' }, t('notes-count', { count: row.notes.length })) : null,
      (row.tags ?? []).map((tag) => el('span', { class: 'badge tag' }, tag))),
    el('time', { datetime: row.started_at }, time(row.started_at)),
    el('span', { class: 'length' }, length(row.duration_ms))));
}

/** Shows the page; answers what ends it. */
export function library(main, from, me) {
  const filters = Object.fromEntries(WORDS.map((word) => [word, from.get(word) ?? '']));
  const list = el('div', { class: 'list' });
  const state = el('p', { class: 'state', role: 'status' });
  const end = el('div', { class: 'end-of-list' });
  let [cursor, running, shown, last, timer] = [null, null, 0, '', null];

  async function more(anew) {
    if (running && !anew) return;
    running?.abort();
    const control = running = new AbortController();
    if (anew) [cursor, shown, last] = [null, 0, ''];
    state.textContent = t('searching');
    try {
      const answer = await ask(`recordings?${asked(filters, cursor ?? '')}`, { signal: control.signal });
      if (anew) show(list);
      for (const row of answer.recordings) {
        const of = day(row.started_at);
        if (of !== last) list.append(el('h2', { class: 'day' }, of), el('ul', {}));
        last = of;
        list.lastElementChild.append(line(row));
      }
      shown += answer.recordings.length;
      cursor = answer.next;
      state.textContent = cursor ? '' : shown ? t('that-is-all', { count: shown }) : t('nothing-found');
      running = null;
      if (cursor && end.getBoundingClientRect().top < innerHeight + 400) more();
    } catch (error) {
      if (error.name === 'AbortError') return;
      running = null;
      cursor = null;
      state.textContent = error.message || t('no-answer');
    }
  }

  function changed() {
    history.replaceState(null, '', `#/recordings?${query(filters)}`);
    clearTimeout(timer);
    timer = setTimeout(() => more(true), 250);
  }

  const watch = (word, input) => {
    const set = () => { filters[word] = input.type === 'checkbox' ? (input.checked ? 'true' : '') : input.value.trim(); changed(); };
    input.addEventListener('input', set);
    return input;
  };
  const text = (word, props) => watch(word, el('input', { type: 'text', value: filters[word], autocomplete: 'off', ...props }));
  const pick = (word, values, label) =>
    watch(word, choice([['', t('all')], ...values.map((value) => [value, label(value)])], filters[word]));
  const others = me.level === 'administrator' || me.level === 'group-supervisor';
  const isOpen = WORDS.slice(3).some((word) => filters[word]);
  const count = el('span', {});

  show(main, el('h1', { class: 'hidden' }, t('recordings')),
    el('form', { class: 'filters', role: 'search', onsubmit: (event) => event.preventDefault() },
      el('div', { class: 'first' },
        field(t('number'), text('number', { type: 'search', inputmode: 'tel', placeholder: '+39 02 …' })),
        field(t('from'), text('from', { type: 'date' })), field(t('to'), text('to', { type: 'date' }))),
      el('details', { open: isOpen }, el('summary', {}, t('more-filters'), count),
        el('div', { class: 'grid' },
          field(t('direction'), pick('direction', ['incoming', 'outgoing', 'unknown'], (value) => t('direction.' + value))),
          field(t('traffic'), pick('traffic', ['internal', 'external', 'unknown'], (value) => t('traffic.' + value))),
          field(t('verdict'), pick('verdict', ['ok', 'degraded', 'failed', 'no-media'], (value) => t('verdict.' + value))),
          others && field(t('owner'), text('owner', { type: 'email' })),
          others && field(t('group'), text('group')),
          field(t('tag'), text('tag')), field(t('note'), text('note')),
          field(t('longer'), text('longer', { type: 'number', min: 0 })),
          el('label', { class: 'check' }, watch('preserved', el('input', { type: 'checkbox', checked: filters.preserved === 'true' })), t('preserved-only')),
          el('button', { type: 'button', onclick: () => { location.hash = '#/'; } }, t('clear'))))),
    list, state, end);
  const observer = new IntersectionObserver((seen) => { if (seen[0].isIntersecting && cursor) more(); }, { rootMargin: '400px' });
  observer.observe(end);
  more(true);
  return () => { observer.disconnect(); running?.abort(); clearTimeout(timer); };
}
