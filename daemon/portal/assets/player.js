// The player: a waveform that is also the slider, and sound from where one points. Seeking asks for the sound from there on; what is not
// asked for is never decrypted.

import { ask } from './ask.js';
import { choice, el, say } from './dom.js';
import { length, t } from './words.js';

/** Below this, in hundredths, nobody speaks. */
const QUIET = 4;
/** Silence shorter than this is not skipped, in milliseconds. */
const PAUSE_MS = 2000;
const STEP_MS = 5000;

/** A player; `marks` are the moments of notes. Answers the element, and what others need of it. */
export function player(row, marks) {
  const audio = new Audio();
  audio.preload = 'none';
  const whole = row.duration_ms;
  let [base, at, peaks, graph, skips] = [0, 0, [], null, false];

  const play = el('button', { type: 'button', class: 'play', 'aria-label': t('play') });
  const clock = el('span', { class: 'clock' }, `${length(0)} / ${length(whole)}`);
  const canvas = el('canvas', { width: 1200, height: 160 });
  const slider = el('div', { class: 'wave', role: 'slider', tabindex: 0, 'aria-label': t('position'), 'aria-valuemin': 0,
    'aria-valuemax': Math.round(whole / 1000), 'aria-valuenow': 0 }, canvas);
  const speed = choice([['0.75', '0.75×'], ['1', '1×'], ['1.25', '1.25×'], ['1.5', '1.5×'], ['2', '2×']], '1',
    { 'aria-label': t('speed'), onchange: () => { audio.playbackRate = Number(speed.value); } });
  const toggle = (text, pressed, act) => {
    const button = el('button', { type: 'button', 'aria-pressed': String(pressed), onclick: () => {
      const now = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(now));
      act(now);
    } }, text);
    return button;
  };

  function draw() {
    const style = getComputedStyle(canvas);
    const context = canvas.getContext('2d');
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    const rows = Math.max(1, peaks.length);
    const each = height / rows;
    const played = style.getPropertyValue('--accent');
    const ahead = style.getPropertyValue('--wave');
    for (const [channel, values] of peaks.entries()) {
      const step = width / values.length;
      const middle = each * (channel + 0.5);
      for (const [n, peak] of values.entries()) {
        context.fillStyle = n / values.length < at / whole ? played : ahead;
        const tall = Math.max(1, peak / 100 * each * 0.9);
        context.fillRect(n * step, middle - tall / 2, Math.max(1, step - 0.5), tall);
      }
    }
    context.fillStyle = style.getPropertyValue('--mark');
    for (const ms of marks()) context.fillRect(ms / whole * width - 1, 0, 3, height);
    context.fillStyle = played;
    context.fillRect(at / whole * width, 0, 2, height);
  }

  function moved(ms) {
    at = Math.min(Math.max(0, ms), whole);
    clock.textContent = `${length(at)} / ${length(whole)}`;
    slider.setAttribute('aria-valuenow', Math.round(at / 1000));
    slider.setAttribute('aria-valuetext', clock.textContent);
    draw();
  }

  function load(ms) {
    base = Math.min(Math.max(0, Math.round(ms)), Math.max(0, whole - 1));
    audio.src = `/api/recordings/${row.id}/audio?format=mp3&for=play&start_ms=${base}`;
    audio.playbackRate = Number(speed.value);
  }

  function seek(ms) {
    const playing = !audio.paused;
    load(ms);
    moved(base);
    if (playing) audio.play().catch(() => {});
  }

  function start() {
    if (!audio.src || audio.ended) load(at >= whole - 50 ? 0 : at);
    audio.play().catch(() => {});
  }

  /** Where the silence that one is in ends; the same moment where there is none worth it. */
  function after_silence(ms) {
    const count = peaks[0]?.length ?? 0;
    if (!count) return ms;
    let part = Math.floor(ms / whole * count);
    while (part < count && peaks.every((values) => values[part] <= QUIET)) part += 1;
    const end = part / count * whole;
    return end - ms >= PAUSE_MS ? Math.min(end, whole - 1) : ms;
  }

  /** Each side by itself: the browser's sound graph, made when first needed. */
  function gains() {
    if (graph) return graph;
    const context = new AudioContext();
    const [source, split, merge] = [context.createMediaElementSource(audio), context.createChannelSplitter(2), context.createChannelMerger(2)];
    graph = [context.createGain(), context.createGain()];
    source.connect(split);
    for (const [n, gain] of graph.entries()) { split.connect(gain, n); gain.connect(merge, 0, n); }
    merge.connect(context.destination);
    return graph;
  }

  audio.addEventListener('timeupdate', () => {
    moved(base + audio.currentTime * 1000);
    if (skips && !audio.paused) {
      const next = after_silence(at);
      if (next > at) seek(next);
    }
  });
  const state = () => {
    const playing = !audio.paused && !audio.ended;
    play.classList.toggle('playing', playing);
    play.setAttribute('aria-label', playing ? t('pause') : t('play'));
  };
  for (const event of ['play', 'pause', 'ended']) audio.addEventListener(event, state);
  audio.addEventListener('ended', () => moved(whole));
  audio.addEventListener('error', () => { if (audio.src) say(t('no-sound')); });
  play.addEventListener('click', () => (audio.paused || audio.ended ? start() : audio.pause()));
  slider.addEventListener('pointerdown', (event) => {
    const box = slider.getBoundingClientRect();
    seek((event.clientX - box.left) / box.width * whole);
  });
  slider.addEventListener('keydown', (event) => {
    const to = { ArrowLeft: at - STEP_MS, ArrowRight: at + STEP_MS, ArrowDown: at - STEP_MS, ArrowUp: at + STEP_MS,
      PageUp: at + 30000, PageDown: at - 30000, Home: 0, End: whole - 1 }[event.key];
    if (to !== undefined) { event.preventDefault(); seek(to); }
    if (event.key === ' ') { event.preventDefault(); play.click(); }
  });
  const resized = new ResizeObserver(draw);
  resized.observe(slider);

  ask(`recordings/${row.id}/waveform?duration_ms=${Math.max(1, whole)}`)
    .then((answer) => { peaks = answer.channels; draw(); }).catch(() => {});

  const sides = row.tracks?.length > 1 && [['own-side', 0], ['other-side', 1]].map(([key, n]) =>
    toggle({ 'own-side': t('own-side'), 'other-side': t('other-side') }[key], true, (on) => { gains()[n].gain.value = on ? 1 : 0; }));
  const element = el('section', { class: 'card player', 'aria-label': t('player') }, slider,
    el('div', { class: 'row' }, play, clock, speed, sides || null, toggle(t('skip-silence'), false, (on) => { skips = on; })));
  return { element, seek, draw, now: () => Math.round(at), audio,
    end: () => { audio.pause(); audio.removeAttribute('src'); audio.load(); resized.disconnect(); } };
}
