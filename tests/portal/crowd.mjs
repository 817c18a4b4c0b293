// Many people at once: each opens the page, searches, opens a recording and hears it from somewhere, again and again. Started by
// tests/portal.rs with a plan; prints one line of figures as JSON. Each speaks from an address of his own, as people do.

import { Agent, request } from 'node:https';

const plan = JSON.parse(process.argv[2]);
const taken = { page: [], search: [], show: [], sound: [] };
const odd = {};

/** Asks; answers the body. What is measured is the time to the first byte of the body. */
function ask(person, what, path) {
  const began = performance.now();
  return new Promise((answer) => {
    const failed = (why) => { odd[`${what} ${why}`] = (odd[`${what} ${why}`] ?? 0) + 1; answer(''); };
    const asked = request(`${plan.url}${path}`, { agent: person.agent, headers: { cookie: `__Host-callvault=${person.session}`, 'sec-fetch-site': 'same-origin' } }, (got) => {
      let [text, first] = ['', true];
      got.setEncoding('latin1');
      got.on('data', (part) => {
        if (first) taken[what].push(performance.now() - began);
        first = false;
        text += part;
      });
      got.on('end', () => (got.statusCode === 200 ? answer(text) : failed(got.statusCode)));
      got.on('error', (error) => failed(error.code));
    });
    asked.on('error', (error) => failed(error.code));
    asked.end();
  });
}

const rest = (ms) => new Promise((go) => { setTimeout(go, ms); });

async function visit(person, until) {
  await rest(Math.random() * plan.rest_ms);
  while (performance.now() < until) {
    await ask(person, 'page', '/');
    await ask(person, 'search', '/api/recordings?number=00&number_match=part&limit=50');
    const found = await ask(person, 'search', '/api/recordings?number=000&number_match=part&limit=50');
    const rows = found ? JSON.parse(found).recordings : [];
    if (rows.length) {
      const { id, duration_ms } = rows[Math.floor(Math.random() * rows.length)];
      await ask(person, 'show', `/api/recordings/${id}`);
      await ask(person, 'sound', `/api/recordings/${id}/audio?format=mp3&for=play&start_ms=${Math.floor(Math.random() * duration_ms / 2)}`);
    }
    await rest(plan.rest_ms * (0.5 + Math.random()));
  }
}

const people = plan.sessions.map((session, n) => ({
  session,
  agent: new Agent({ keepAlive: true, maxSockets: 2, rejectUnauthorized: false, localAddress: `127.88.0.${1 + n % 250}` }),
}));
const until = performance.now() + plan.seconds * 1000;
await Promise.all(people.map((person) => visit(person, until)));
const of = (times) => {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (part) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0);
  return { count: sorted.length, p50_ms: at(0.5), p99_ms: at(0.99) };
};
console.log(JSON.stringify({ odd, ...Object.fromEntries(Object.entries(taken).map(([what, times]) => [what, of(times)])) }));
for (const person of people) person.agent.destroy();
