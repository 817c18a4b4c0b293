// Words in the reader's language, times in the reader's zone.

const LANGUAGES = ['en', 'it', 'de', 'fr', 'es'];
let table = {};

/** What was chosen here before; a browser that keeps nothing for frames throws. */
function chosen() {
  try {
    return localStorage.getItem('language');
  } catch {
    return null;
  }
}

const wanted = [chosen(), ...navigator.languages].filter(Boolean).map((tag) => tag.slice(0, 2));
export const language = wanted.find((tag) => LANGUAGES.includes(tag)) ?? 'en';

export const NAMES = [['en', 'English'], ['it', 'Italiano'], ['de', 'Deutsch'], ['fr', 'Français'], ['es', 'Español']];

/** Reads the table of messages. */
export async function learn() {
  table = await (await fetch('/messages.json')).json();
  document.documentElement.lang = language;
}

/** The message of that key, with its places filled. */
export function t(key, values = {}) {
  const text = table[key]?.[language] ?? table[key]?.en ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

/** Chooses another language. */
export function speak(tag) {
  localStorage.setItem('language', tag);
  location.reload();
}

// Of several kinds of one language, times are written as in the browser's.
const place = navigator.languages.find((tag) => tag.slice(0, 2) === language) ?? language;
const format = (options) => new Intl.DateTimeFormat(place, options);
const DAY = format({ weekday: 'long', year: 'numeric', month: 'long', day: 'numeric' });
const TIME = format({ hour: '2-digit', minute: '2-digit' });
const FULL = format({ dateStyle: 'medium', timeStyle: 'medium' });

export const day = (at) => DAY.format(new Date(at));
export const time = (at) => TIME.format(new Date(at));
export const full = (at) => at ? FULL.format(new Date(at)) : '';
export const number = (value) => new Intl.NumberFormat(place).format(value);

const SIZES = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];

/** Bytes in the unit that makes them short. */
export function bytes(value) {
  const at = value > 0 ? Math.min(SIZES.length - 1, Math.floor(Math.log10(value) / 3)) : 0;
  return new Intl.NumberFormat(place, { style: 'unit', unit: SIZES[at], maximumFractionDigits: at ? 1 : 0 }).format(value / 1000 ** at);
}

/** 1:05, 1:02:03. */
export function length(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  const two = (n) => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}
