// How much of what is limited is used, and for how long the disks last.

import { ask } from './ask.js';
import { el, show } from './dom.js';
import { bytes, length, number, t } from './words.js';

/** Between two looks while the page is open. */
const AGAIN_MS = 5000;

const some = (value, say = number) => value === null || value === undefined ? '–' : say(value);

/** A figure with how full that is. */
function tile(name, value, used, all) {
  const share = all > 0 ? Math.min(1, used / all) : null;
  return el('div', { class: 'card tile' }, el('small', {}, name), el('strong', {}, value),
    share !== null && el('meter', { 'aria-label': name, min: 0, max: 1, low: 0.7, high: 0.9, optimum: 0, value: share }));
}

function tiles(found) {
  const { calls, ports, recorder, journal, store, archiving, recordings } = found;
  const most = calls.licensed === null ? calls.max : Math.min(calls.max, calls.licensed);
  const of = (used, all) => t('used-of', { used: number(used), all: number(all) });
  return [
    tile(t('calls'), of(calls.now, most), calls.now, most),
    tile(t('media-ports'), of(ports.used, ports.all), ports.used, ports.all),
    tile(t('packets-dropped'), number(recorder.dropped)),
    tile(t('recorder-restarts'), number(recorder.restarts)),
    tile(t('journal'), bytes(journal.bytes)),
    tile(t('journal-room'), some(journal.room_bytes, bytes)),
    tile(t('free-hours'), some(journal.headroom_hours)),
    tile(t('store-free'), some(store.free_bytes, bytes)),
    tile(t('store-a-day'), some(store.bytes_a_day, bytes)),
    tile(t('store-days'), some(store.days_left)),
    tile(t('archives-waiting'), some(archiving.recordings)),
    tile(t('caught-up'), some(archiving.caught_up_in_s, (s) => length(s * 1000))),
    tile(t('workers'), number(archiving.workers)),
    tile(t('recordings'), number(recordings)),
  ];
}

/** Shows the figures in `place`, anew every few seconds while they are shown. */
export async function capacity(place) {
  const grid = el('div', { class: 'tiles' });
  const queue = el('div', {});
  const look = async () => {
    const found = await ask('capacity');
    show(grid, tiles(found));
    const jobs = Object.entries(found.jobs);
    show(queue, jobs.length > 0 && el('div', { class: 'scroll', tabindex: 0 }, el('table', {}, el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, t('kind')), el('th', { scope: 'col' }, t('count')))),
      el('tbody', {}, jobs.map(([kind, count]) => el('tr', {}, el('td', {}, kind), el('td', {}, number(count))))))));
  };
  await look();
  show(place, grid, el('h2', {}, t('admin.jobs')), queue);
  const timer = setInterval(() => {
    if (!grid.isConnected) clearInterval(timer);
    else look().catch(() => {});
  }, AGAIN_MS);
}
