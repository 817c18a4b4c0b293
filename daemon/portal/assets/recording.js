// One recording: heard, noted, tagged, preserved, taken away, deleted.

import { ask } from './ask.js';
import { confirmed, el, field, say, show } from './dom.js';
import { full, length, t } from './words.js';
import { player } from './player.js';
import { parties } from './library.js';

/** Shows the page; answers what ends it. */
export function recording(main, id, me) {
  let [sound, gone] = [null, false];
  const path = `recordings/${encodeURIComponent(id)}`;
  show(main, el('p', { class: 'state', role: 'status' }, t('searching')));

  function failed(error) {
    say(error.message || t('no-answer'));
  }

  function page(row) {
    const { other, own } = parties(row);
    let { notes, tags, preserved } = row;
    const [notes_place, tags_place, buttons] = [el('div', {}), el('div', { class: 'tags' }), el('div', { class: 'row' })];
    const change = (method, rest, body) => ask(`${path}/${rest}`, { method, body }).then((answer) => {
      ({ notes, tags, preserved } = answer);
      draw();
      say(t('saved'));
    }).catch(failed);

    function note(one) {
      const text = el('p', {}, one.text);
      return el('li', { class: 'note' },
        one.at_ms !== null && el('button', { type: 'button', class: 'plain', onclick: () => sound?.seek(one.at_ms) }, length(one.at_ms)), text,
        el('small', {}, one.by?.name ?? '', ' · ', full(one.created_at)),
        el('button', { type: 'button', class: 'plain', 'aria-label': t('delete-note'), onclick: () => change('DELETE', `notes/${one.id}`) }, '✕'));
    }

    function draw() {
      show(notes_place, notes.length ? el('ul', { class: 'notes' }, notes.map(note)) : el('p', { class: 'quiet' }, t('no-notes')));
      show(tags_place, tags.map((tag) => el('span', { class: 'badge tag' }, tag,
        el('button', { type: 'button', class: 'plain', 'aria-label': t('remove-tag', { tag }), onclick: () => change('DELETE', `tags/${encodeURIComponent(tag)}`) }, '✕'))));
      show(buttons,
        me.may.preserve && el('button', { type: 'button', 'aria-pressed': String(!!preserved), onclick: () => change(preserved ? 'DELETE' : 'PUT', 'preserve') },
          preserved ? t('preserved') : t('preserve')),
        me.may.download && el('a', { class: 'button', href: `/api/${path}/audio?format=mp3&for=download`, download: '' }, t('download')),
        me.may.delete && el('button', { type: 'button', class: 'danger', onclick: remove }, t('delete')));
      sound?.draw();
    }

    async function remove() {
      if (!await confirmed(t('delete-title'), t('delete-text', { who: other, at: full(row.started_at) }), t('delete-yes'), t('cancel'))) return;
      try {
        await ask(path, { method: 'DELETE' });
        say(t('deleted'));
        location.hash = '#/recordings';
      } catch (error) {
        failed(error);
      }
    }

    const text = el('textarea', { rows: 2, maxlength: 2000, required: true });
    const now = el('input', { type: 'checkbox', checked: true });
    const tag = el('input', { type: 'text', maxlength: 50, required: true });
    if (row.verdict !== 'no-media' && row.duration_ms > 0) sound = player(row, () => notes.map((one) => one.at_ms).filter((ms) => ms !== null));
    draw();
    const fact = (name, value) => value && [el('dt', {}, name), el('dd', {}, value)];
    show(main,
      el('a', { class: 'back', href: '#/recordings', onclick: (event) => { if (history.length > 1) { event.preventDefault(); history.back(); } } }, t('back')),
      el('h1', {}, other), el('p', { class: 'quiet' }, own, ' · ', full(row.started_at), ' · ', length(row.duration_ms)),
      sound?.element ?? el('p', { class: 'card' }, t('no-sound')), buttons,
      row.flaws.length ? el('section', { class: 'card flaws' }, el('h2', {}, t('verdict.' + row.verdict)), el('ul', {}, row.flaws.map((flaw) => el('li', {}, flaw.text)))) : null,
      el('div', { class: 'columns' },
        el('section', { class: 'card' }, el('h2', {}, t('notes')), notes_place,
          el('form', { onsubmit: (event) => {
            event.preventDefault();
            change('POST', 'notes', { text: text.value, ...(now.checked && sound ? { at_ms: sound.now() } : {}) }).then(() => { text.value = ''; });
          } }, field(t('new-note'), text), el('label', { class: 'check' }, now, t('at-this-moment')), el('button', {}, t('add')))),
        el('section', { class: 'card' }, el('h2', {}, t('tags')), tags_place,
          el('form', { class: 'row', onsubmit: (event) => {
            event.preventDefault();
            change('PUT', `tags/${encodeURIComponent(tag.value.trim())}`).then(() => { tag.value = ''; });
          } }, field(t('new-tag'), tag), el('button', {}, t('add'))),
          el('h2', {}, t('about')),
          el('dl', {}, [
            fact(t('direction'), t('direction.' + row.direction)), fact(t('traffic'), t('traffic.' + row.traffic)),
            fact(t('number'), row.remote_number), fact(t('own-side'), row.local_number), fact(t('owner'), row.owner),
            fact(t('verdict'), t('verdict.' + row.verdict)), fact('ID', row.id),
          ].filter(Boolean)))),
      row.linked?.length ? el('section', { class: 'card' }, el('h2', {}, t('same-call')),
        el('ul', {}, row.linked.map((other_id) => el('li', {}, el('a', { href: `#/recording/${other_id}` }, other_id))))) : null);
  }

  ask(path).then((row) => { if (!gone) page(row); })
    .catch((error) => show(main, el('p', { class: 'state', role: 'alert' }, error.status === 404 || error.status === 403 ? t('not-there') : error.message || t('no-answer'))));
  return () => { gone = true; sound?.end(); };
}
