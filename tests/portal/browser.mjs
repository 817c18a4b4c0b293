// What people do in the portal, in a real browser. Started by tests/portal.rs with the folder of the modules and a plan: where the portal is,
// who the people are, where pictures go. Says one line for each thing that was seen; ends with the first that was not.

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [folder, text] = process.argv.slice(2);
const plan = JSON.parse(text);
const require = createRequire(`${folder}/`);
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const LANGUAGES = [['en', 'en-GB'], ['it', 'it-IT']];
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };
const PASSWORD = 'another-password-of-all';
/** What each level may do with recordings that it sees, by the settings of the test; and how many it sees: all, its group's, its own. */
const MAY = {
  administrator: { preserve: true, download: true, delete: true, administer: true, sees: 8 },
  'group-supervisor': { preserve: true, download: true, delete: false, administer: false, sees: 8 },
  base: { preserve: true, download: false, delete: false, administer: false, sees: 2 },
  'record-only': null,
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-features=LocalNetworkAccessChecks', '--autoplay-policy=no-user-gesture-required'],
});
let words = null;
let who = '';
const seen = (what) => console.log(`${who}: ${what}`);

/** A page of somebody's with nothing in it yet. */
async function visitor(locale, viewport, colorScheme) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, locale, viewport, colorScheme, timezoneId: 'Europe/Rome' });
  await context.addInitScript(axe);
  await context.addInitScript(() => {
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function heard() { window.sound = this; return play.call(this); };
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(String(error)));
  page.on('console', (line) => { if (/Content Security Policy|TrustedHTML/.test(line.text())) page.wrong.push(line.text()); });
  await page.goto(plan.url);
  words ??= await page.evaluate(async () => (await fetch('/messages.json')).json());
  return page;
}

/** The words of that language. */
const speaking = (language) => (key) => words[key]?.[language] ?? assert.fail(`no message ${key}`);

/** What is not as it should look: all of it is told at the end. */
const blemishes = [];

/** Nothing that keeps somebody out, in light and in dark, wide and narrow; pictures of all four where a name is given. */
async function looked(page, name) {
  for (const [size, viewport] of [['wide', WIDE], ['narrow', NARROW]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize(viewport);
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      const found = await page.evaluate(async () => {
        const { violations } = await window.axe.run(document);
        const grave = violations.filter((one) => one.impact === 'serious' || one.impact === 'critical');
        return grave.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join(' | ')}`);
      });
      if (found.length) blemishes.push(`axe on ${name}, ${size}, ${colorScheme}: ${found.join('; ')}`);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (over > 0) blemishes.push(`${name}, ${size}: ${over} pixels wider than the window`);
      await page.screenshot({ path: `${plan.shots}/${name}-${size}-${colorScheme}.png`, fullPage: true });
    }
  }
  await page.setViewportSize(WIDE);
}

async function signIn(page, t, person, isFirst) {
  await page.getByLabel(t('e-mail')).fill(person.user);
  await page.getByLabel(t('password'), { exact: true }).fill(isFirst ? plan.first_password : PASSWORD);
  await page.getByRole('button', { name: t('sign-in'), exact: true }).click();
  if (isFirst) {
    const fresh = page.getByLabel(t('new-password'));
    await fresh.waitFor();
    await fresh.fill(PASSWORD);
    await page.getByLabel(t('again')).fill(`${PASSWORD}.`);
    await page.getByRole('button', { name: t('sign-in'), exact: true }).click();
    await page.getByText(t('not-same')).waitFor();
    await page.getByLabel(t('again')).fill(PASSWORD);
    await page.getByRole('button', { name: t('sign-in'), exact: true }).click();
    seen('the first password had to be changed');
  }
  await page.getByRole('button', { name: t('sign-out') }).waitFor();
  const cookies = await page.evaluate(() => document.cookie);
  assert.equal(cookies, '', 'a script can read the session');
  seen('signed in');
}

/** So many lines, and no other number of them. */
async function lines(page, count) {
  await page.waitForFunction((n) => document.querySelectorAll('.list .line').length === n, count);
}

async function search(page, t, number, count) {
  await page.getByRole('searchbox', { name: t('number') }).fill(number);
  await lines(page, count);
}

/** What is played: how far it got, how loud it was, how long it took to begin. */
async function heard(page) {
  return page.evaluate(async () => {
    const audio = window.sound;
    for (let n = 0; n < 400 && !(audio.currentTime > 0 && audio.captureStream().getAudioTracks().length); n += 1) {
      await new Promise((go) => setTimeout(go, 25));
    }
    const context = new AudioContext();
    await context.resume();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(audio.captureStream()).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const from = audio.currentTime;
    let peak = 0;
    for (let n = 0; n < 200 && !(peak > 0.01 && audio.currentTime > from + 0.3); n += 1) {
      analyser.getFloatTimeDomainData(samples);
      peak = Math.max(peak, ...samples.map(Math.abs));
      await new Promise((go) => setTimeout(go, 25));
    }
    await context.close();
    return { peak, moved: audio.currentTime - from };
  });
}

async function listen(page, t) {
  await page.waitForResponse((answer) => answer.url().includes('/waveform') && answer.ok()).catch(() => {});
  await page.waitForFunction(() => {
    const canvas = document.querySelector('.wave canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, n) => n % 4 === 3 && value > 0).length > 10_000;
  });
  seen('the waveform is drawn');
  await page.getByRole('button', { name: t('play'), exact: true }).click();
  await page.waitForFunction(() => window.sound?.currentTime > 0);
  const first = await heard(page);
  assert.ok(first.peak > 0.01 && first.moved > 0.2, `no sound: ${JSON.stringify(first)}`);
  seen('there is sound');
  const slider = page.getByRole('slider', { name: t('position') });
  const box = await slider.boundingBox();
  const [request] = await Promise.all([
    page.waitForRequest((one) => /start_ms=[1-9]/.test(one.url())),
    page.mouse.click(box.x + box.width * 0.5, box.y + box.height / 2),
  ]);
  const from = Number(new URL(request.url()).searchParams.get('start_ms'));
  assert.ok(from > 3000 && from < 5500, `sought ${from} ms`);
  const second = await heard(page);
  assert.ok(second.peak > 0.01 && second.moved > 0.2, `no sound after seeking: ${JSON.stringify(second)}`);
  await page.getByRole('button', { name: t('pause'), exact: true }).click();
  await slider.focus();
  await page.keyboard.press('Home');
  assert.equal(await slider.getAttribute('aria-valuenow'), '0');
  seen('sought by hand and by keyboard, and heard from there');
}

async function annotate(page, t, language, may) {
  const note = `<img src=x onerror=alert(1)> ${language}`;
  await page.getByLabel(t('new-note')).fill(note);
  await page.getByRole('button', { name: t('add') }).first().click();
  await page.getByText(note).waitFor();
  await page.getByLabel(t('new-tag')).fill(`tag-${language}`);
  await page.getByRole('button', { name: t('add') }).last().click();
  await page.locator('.tags').getByText(`tag-${language}`).waitFor();
  seen('noted and tagged');
  const preserve = page.getByRole('button', { name: t('preserve'), exact: true });
  assert.equal(await preserve.count(), may.preserve ? 1 : 0, 'the button to preserve');
  if (may.preserve) {
    await preserve.click();
    await page.getByRole('button', { name: t('preserved'), exact: true }).click();
    await preserve.waitFor();
    seen('preserved, and not any more');
  }
}

async function takeAway(page, t, may) {
  const link = page.getByRole('link', { name: t('download') });
  assert.equal(await link.count(), may.download ? 1 : 0, 'the link to download');
  const url = await page.evaluate(() => `/api/recordings/${location.hash.split('/')[2]}/audio?format=mp3&for=download`);
  if (!may.download) {
    assert.equal(await page.evaluate(async (one) => (await fetch(one)).status, url), 403, 'a download without a link');
    return seen('may not download');
  }
  const [download] = await Promise.all([page.waitForEvent('download'), link.click()]);
  const bytes = readFileSync(await download.path());
  assert.ok(bytes.length > 10_000 && (bytes[0] === 0xff || bytes.toString('latin1', 0, 3) === 'ID3'), 'no MP3');
  assert.match(download.suggestedFilename(), /^[0-9a-f-]+\.mp3$/, 'the name of the file tells something');
  return seen('downloaded');
}

async function remove(page, t, may, left) {
  const button = page.getByRole('button', { name: t('delete'), exact: true });
  assert.equal(await button.count(), may.delete ? 1 : 0, 'the button to delete');
  if (!may.delete) {
    const status = await page.evaluate(async () => (await fetch(`/api/recordings/${location.hash.split('/')[2]}`,
      { method: 'DELETE', headers: { 'x-callvault': '1' } })).status);
    assert.equal(status, 403, 'a deletion without a button');
    return seen('may not delete');
  }
  await button.click();
  await page.getByRole('button', { name: t('cancel') }).click();
  await button.click();
  await page.getByRole('button', { name: t('delete-yes') }).click();
  await page.getByText(t('deleted')).waitFor();
  await page.goto(`${plan.url}/#/recordings`);
  await lines(page, left);
  return seen('deleted, after a question');
}

/** The live call, paused and recorded again. */
async function press(place, t) {
  await place.locator('.call').getByText(t('state.recording')).waitFor();
  await place.getByRole('button', { name: t('action.pause'), exact: true }).click();
  await place.locator('.call').getByText(t('state.paused')).waitFor();
  await place.getByRole('button', { name: t('action.resume'), exact: true }).click();
  await place.locator('.call').getByText(t('state.recording')).waitFor();
  seen('paused and resumed the live call');
}

/** The gadget in a frame of that site; answers the frame. */
async function framed(context, site) {
  const page = await context.newPage();
  await page.route(`${site}/**`, (route) => route.fulfill({ contentType: 'text/html',
    body: `<!doctype html><html lang="en"><title>Webex</title><iframe title="gadget" width="340" height="700" src="${plan.url}/gadgets/CallRecording"></iframe></html>` }));
  await page.goto(`${site}/`);
  return [page, page.frameLocator('iframe')];
}

async function gadget(person) {
  who = 'gadget';
  const t = speaking('it');
  const portal = await visitor('it-IT', WIDE, 'light');
  const context = portal.context();
  const [page, frame] = await framed(context, 'https://web.webex.com');
  await frame.getByText(t('certificate.expired')).or(frame.getByLabel(t('e-mail'))).first().waitFor();
  await frame.getByLabel(t('e-mail')).fill(person.user);
  await frame.getByLabel(t('password'), { exact: true }).fill(PASSWORD);
  await frame.getByRole('button', { name: t('sign-in'), exact: true }).click();
  await frame.locator('.last').first().waitFor();
  await press(frame, t);
  await page.screenshot({ path: `${plan.shots}/gadget-light.png` });
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: `${plan.shots}/gadget-dark.png` });
  const [opened] = await Promise.all([context.waitForEvent('page'), frame.locator('.last').first().click()]);
  await opened.getByRole('button', { name: t('sign-in'), exact: true }).waitFor();
  seen('works in a frame of Webex; its session is not the portal\'s');
  const [other] = await framed(context, 'https://webex.com.evil.example');
  await other.waitForTimeout(1000);
  const inside = other.frames()[1];
  assert.ok(!inside?.url().startsWith(plan.url) || await inside.evaluate(() => !document.getElementById('main')), 'framed by another site');
  seen('is not framed by others');
  await context.close();
}

/** What administrators change or try. */
async function set(page, t) {
  await page.goto(`${plan.url}/#/admin/settings`);
  await page.getByLabel(t('patterns')).fill('+49!\n71[0-5].\n[9-2]');
  await page.getByLabel(t('number'), { exact: true }).fill('+49 30 1234');
  await page.getByRole('cell', { name: t('matches'), exact: true }).waitFor();
  await page.getByRole('cell', { name: t('matches-not'), exact: true }).waitFor();
  await page.getByRole('cell').filter({ hasText: 'upwards' }).waitFor();
  seen('tried patterns');
  await page.goto(`${plan.url}/#/admin/users`);
  await page.getByText(t('import'), { exact: true }).click();
  const buffer = Buffer.from('webex_email;level\nnew@example.com;base\n');
  await page.getByLabel(t('import-file')).setInputFiles({ name: 'more.csv', mimeType: 'text/csv', buffer });
  await page.getByRole('button', { name: t('show-plan') }).click();
  await page.getByRole('button', { name: t('apply') }).waitFor();
  assert.equal(await page.getByRole('cell', { name: 'new@example.com' }).count(), 1, 'a plan alone changed users');
  await looked(page, 'admin-import');
  await page.getByRole('button', { name: t('apply') }).click();
  await page.getByRole('button', { name: t('apply') }).waitFor({ state: 'detached' });
  await page.getByRole('cell', { name: 'new@example.com' }).first().waitFor();
  seen('imported users, by the plan');
  await page.goto(`${plan.url}/#/admin/tokens`);
  await page.getByLabel(t('name')).fill('script');
  await page.getByLabel(t('level'), { exact: true }).selectOption('administrator');
  await page.getByRole('button', { name: t('create-token') }).click();
  assert.match(await page.locator('code').innerText(), /^cvt-[0-9a-f]{64}$/);
  await page.getByRole('button', { name: t('show-list') }).click();
  const row = page.getByRole('row').filter({ hasText: 'script' });
  await row.getByRole('button', { name: t('revoke') }).click();
  await row.getByText(t('token.revoked')).waitFor();
  seen('made a token and revoked it');
}

/** The row of a setting, with whatever it is in open. */
async function settingOf(page, t, key) {
  await page.getByLabel(t('search-settings')).fill(key);
  const row = page.locator('.setting').filter({ has: page.getByLabel(key, { exact: true }) });
  await row.waitFor();
  return row;
}

/** Settings: found, wrong, planned, taken; by mouse and by keyboard. */
async function settle(page, t) {
  await page.goto(`${plan.url}/#/admin/settings`);
  const fixed = await settingOf(page, t, 'permissions.delete');
  assert.ok(await fixed.getByLabel('permissions.delete').isDisabled(), 'what the operator set can be changed');
  await fixed.getByText(t('fixed.file')).waitFor();
  const machine = await settingOf(page, t, 'mail.password_file');
  await machine.getByText(t('fixed.machine')).waitFor();
  await page.getByLabel(t('search-settings')).fill('no such setting at all');
  await page.getByText(t('nothing-found')).first().waitFor();
  await page.getByLabel(t('search-settings')).fill('encoder');
  await page.locator('.setting').filter({ hasText: 'archive.complexity' }).waitFor();
  seen('found settings, by key and by what they mean');

  // wrong, and said where
  const complexity = await settingOf(page, t, 'archive.complexity');
  await complexity.getByLabel('archive.complexity').fill('11');
  await page.getByRole('button', { name: t('show-plan') }).last().click();
  await complexity.getByRole('alert').filter({ hasText: '10' }).waitFor();
  assert.equal(await complexity.getByLabel('archive.complexity').getAttribute('aria-invalid'), 'true');
  await looked(page, 'admin-settings-wrong');
  seen('was told what is wrong');

  // right, with the keyboard alone
  await complexity.getByLabel('archive.complexity').fill('7');
  await page.getByLabel('archive.complexity').press('Enter');
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('cell', { name: 'archive.complexity' }).waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  assert.equal(await complexity.getByLabel('archive.complexity').inputValue(), '7', 'what was typed is gone');
  await page.getByLabel('archive.complexity').press('Enter');
  await dialog.getByRole('button', { name: t('apply') }).focus();
  await page.keyboard.press('Enter');
  await page.getByText(t('saved')).first().waitFor();
  const saved = await settingOf(page, t, 'archive.complexity');
  await saved.getByText('50-portal.toml').waitFor();
  assert.equal(await saved.getByLabel('archive.complexity').inputValue(), '7');
  seen('changed a setting, with the keyboard');

  // what deletes is counted and typed
  const rule = await settingOf(page, t, 'retention.rule');
  await rule.getByLabel('retention.rule').selectOption('4-hours');
  await page.getByRole('button', { name: t('show-plan') }).last().click();
  await dialog.getByText(t('risk.deletes')).waitFor();
  await dialog.getByText(t('deletes-none')).waitFor();
  const apply = dialog.getByRole('button', { name: t('apply') });
  assert.ok(await apply.isDisabled(), 'taken without a word');
  await looked(page, 'admin-settings-plan');
  const word = dialog.getByLabel(t('type-this').replace('{word}', 'retention.rule'));
  await word.fill('retention');
  assert.ok(await apply.isDisabled());
  await word.fill('retention.rule');
  await apply.click();
  await page.getByText(t('saved-restart')).waitFor();
  const waits = await settingOf(page, t, 'retention.rule');
  await waits.getByText(t('waits').replace('{value}', '"12-months"')).waitFor();
  seen('changed what deletes, after a count and a typed word');

  // two at once: the second is told, and keeps what was typed
  const list = await settingOf(page, t, 'filters.blacklist');
  await list.getByLabel('filters.blacklist').fill('7100\n+4989!');
  await page.evaluate(async () => {
    const headers = { 'x-callvault': '1', 'content-type': 'application/json' };
    const { version } = await (await fetch('/api/settings', { headers })).json();
    const body = JSON.stringify({ version, changes: { 'mail.sender_name': 'Another' } });
    await fetch('/api/settings', { method: 'PUT', headers, body });
  });
  await page.getByRole('button', { name: t('show-plan') }).last().click();
  await page.locator('.bar').getByRole('alert').filter({ hasText: /\w/ }).waitFor();
  assert.equal(await page.getByLabel('filters.blacklist').inputValue(), '7100\n+4989!');
  await page.getByRole('button', { name: t('discard') }).click();
  await page.locator('.bar').waitFor({ state: 'hidden' });
  assert.equal(await page.getByLabel('filters.blacklist').inputValue(), '');
  seen('was told that another administrator was faster');

  // a mail as people would get it
  await page.getByLabel(t('e-mail')).fill(plan.mail_to);
  await page.getByRole('button', { name: t('send'), exact: true }).click();
  await page.getByText(t('mail-sent').split('{')[0]).waitFor();
  seen('sent a test mail');
}

/** Webex: an administrator agrees in its page, sees who would come, and lets them. */
async function cloud(page, t) {
  await page.goto(`${plan.url}/#/admin/webex`);
  await page.getByText(t('webex-state.not-authorised')).waitFor();
  await page.getByRole('button', { name: t('webex-authorise') }).click();
  const link = page.getByRole('link', { name: t('webex-open') });
  await link.waitFor();
  const agreed = await fetch(await link.getAttribute('href'), { redirect: 'manual' });
  await page.getByLabel(t('webex-answer')).fill(agreed.headers.get('location'));
  await page.getByRole('button', { name: t('confirm'), exact: true }).click();
  await page.getByText(t('webex-state.authorised')).waitFor();
  await page.getByRole('heading', { name: t('completeness') }).or(page.locator('main .wrong')).first().waitFor();
  seen('authorised Webex');
  await page.getByRole('button', { name: t('show-plan') }).click();
  await page.getByRole('cell', { name: 'cloud-1@example.com' }).waitFor();
  const before = await page.evaluate(async () => (await (await fetch('/api/users')).json()).users.length);
  await looked(page, 'admin-webex-plan');
  await page.getByRole('button', { name: t('apply') }).click();
  await page.getByRole('cell', { name: t('run.done') }).waitFor();
  const after = await page.evaluate(async () => (await (await fetch('/api/users')).json()).users.length);
  assert.equal(after, before + 3, 'users were not synchronised');
  await page.getByRole('heading', { name: t('unrecorded-users') }).waitFor();
  await page.getByRole('cell', { name: 'cloud-1@example.com' }).waitFor();
  await looked(page, 'admin-webex-unmatched');
  seen('synchronised users, by the plan');
}

/** The audit log, sifted. */
async function sifted(page, t) {
  await page.goto(`${plan.url}/#/admin/audit`);
  const rows = page.locator('main tbody tr');
  await rows.first().waitFor();
  await page.getByLabel(t('action'), { exact: true }).selectOption('settings');
  await page.waitForFunction(() => [...document.querySelectorAll('main tbody tr')].every((row) => row.cells[2].textContent === 'settings'));
  await rows.filter({ hasText: 'archive.complexity: 5 → 7' }).waitFor();
  await page.getByLabel(t('from'), { exact: true }).fill('2000-01-01');
  await page.getByLabel(t('to'), { exact: true }).fill('2000-01-02');
  await page.getByText(t('nothing-found')).waitFor();
  await page.getByLabel(t('from'), { exact: true }).fill('');
  await page.getByLabel(t('to'), { exact: true }).fill('');
  await page.getByLabel(t('outcome'), { exact: true }).selectOption('refused');
  await page.getByLabel(t('action'), { exact: true }).selectOption('');
  await page.waitForFunction((word) => [...document.querySelectorAll('main tbody tr')].every((row) => row.cells[3].textContent === word), t('outcome.refused'));
  seen('sifted the audit log');
}

/** In another language: what was changed is among what differs, and is taken back. */
async function resettle(page, t) {
  await page.goto(`${plan.url}/#/admin/settings`);
  await page.getByLabel(t('changed-only')).check();
  await page.locator('.setting').filter({ hasText: 'archive.complexity' }).waitFor();
  assert.ok(await page.getByLabel('recording.mode', { exact: true }).isHidden(), 'what is as it was is shown');
  await page.getByLabel(t('changed-only')).uncheck();
  const row = await settingOf(page, t, 'mail.sender_name');
  await row.getByRole('button', { name: t('take-out') }).click();
  await page.getByRole('button', { name: t('show-plan') }).last().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByRole('heading', { name: t('plan') }).waitFor();
  await looked(page, 'admin-settings-plan-it');
  await dialog.getByRole('button', { name: t('apply') }).click();
  await page.getByText(t('saved')).first().waitFor();
  const back = await settingOf(page, t, 'mail.sender_name');
  await back.getByRole('button', { name: t('take-out') }).waitFor({ state: 'detached' });
  seen('took back a setting');
}

/** Everybody but administrators is kept from what these do, by the daemon and not by links that are missing. */
async function administer(page, t, may, round) {
  assert.equal(await page.getByRole('link', { name: t('admin'), exact: true }).count(), may?.administer ? 1 : 0, 'the link to administration');
  if (!may?.administer) {
    for (const path of ['users', 'audit', 'settings', 'status', 'capacity']) {
      assert.equal(await page.evaluate(async (one) => (await fetch(`/api/${one}`)).status, path), 403, path);
    }
    return seen('may not administer');
  }
  for (const name of ['status', 'capacity', 'users', 'tokens', 'jobs', 'retention', 'webex', 'settings', 'audit']) {
    await page.goto(`${plan.url}/#/admin/${name}`);
    await page.getByRole('link', { name: t(`admin.${name}`), exact: true }).and(page.locator('[aria-current=page]')).waitFor();
    await page.waitForFunction(() => document.querySelector('main > div') && !document.querySelector('main > div > .state'));
    if (round === 0) await looked(page, `admin-${name}`);
  }
  if (round === 0) {
    await set(page, t);
    await settle(page, t);
    await sifted(page, t);
    await cloud(page, t);
  } else {
    await resettle(page, t);
  }
  return seen('administers');
}

async function gone(page, t, id) {
  await page.goto(`${plan.url}/#/recording/${id}`);
  await page.getByText(t('not-there')).waitFor();
  const told = await page.evaluate(async (one) => {
    const ask = async (path) => { const answer = await fetch(path); return [answer.status, (await answer.text()).replace(/[0-9a-f-]{36}/g, '')]; };
    return [await ask(`/api/recordings/${one}`), await ask('/api/recordings/01900000-0000-7000-8000-000000000000')];
  }, id);
  assert.deepEqual(told[0], told[1], 'one learns which recordings there are');
  seen('does not learn of what is of others');
}

const others = [];

/** One person's visit. */
async function visit(person, round) {
  const [language, locale] = LANGUAGES[round];
  who = `${person.level}, ${language}`;
  const t = speaking(language);
  const may = MAY[person.level];
  const page = await visitor(locale, WIDE, round === 0 ? 'light' : 'dark');
  await page.getByLabel(t('e-mail')).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.lang), language);
  if (may?.administer && round === 0) await looked(page, 'sign-in');
  await signIn(page, t, person, round === 0);
  if (may) {
    // who sees more than what is theirs sees one less after the administrator's first visit
    const first = may.sees > 2 ? may.sees - round : may.sees;
    await lines(page, first);
    if (may.administer && round === 0) await looked(page, 'recordings');
    if (may.sees > 2 && round === 0) {
      const base = plan.people.find((one) => one.level === 'base');
      const found = await page.evaluate(async () => (await (await fetch('/api/recordings')).json()).recordings);
      others.push(...found.filter((one) => one.owner !== base.user).map((one) => one.id).slice(0, 1));
      assert.equal(others.length > 0, true, 'nothing is of others');
    }
    await search(page, t, '0999999', 0);
    await page.getByText(t('nothing-found')).waitFor();
    await search(page, t, person.remote.slice(-6, round === 0 ? undefined : -1), round === 0 ? 1 : may.delete ? 1 : 2);
    seen('found by a part of the number');
    await page.locator('.line').first().click();
    await page.getByRole('heading', { level: 1 }).waitFor();
    await listen(page, t);
    await annotate(page, t, language, may);
    if (may.administer && round === 0) await looked(page, 'recording');
    await takeAway(page, t, may);
    await remove(page, t, may, first - 1);
  } else {
    assert.equal(await page.getByRole('link', { name: t('recordings'), exact: true }).count(), 0);
    await page.getByText(t('no-calls')).waitFor();
    assert.equal(await page.evaluate(async () => (await fetch('/api/recordings')).status), 403);
    seen('sees calls alone');
  }
  if (may?.sees === 2 && round === 1) await gone(page, t, others[0]);
  await administer(page, t, may, round);
  if (may?.administer && round === 0) {
    await page.goto(`${plan.url}/#/calls`);
    await page.getByText(t('state.recording')).waitFor();
    await looked(page, 'calls');
    await press(page, t);
    await page.goto(`${plan.url}/#/me`);
    await page.getByText(t('this-session'), { exact: true }).waitFor();
    await looked(page, 'me');
  }
  await page.getByRole('button', { name: t('sign-out') }).click();
  await page.getByLabel(t('password'), { exact: true }).waitFor();
  assert.equal(await page.evaluate(async () => (await fetch('/api/me')).status), 401, 'signed out and yet somebody');
  assert.deepEqual(page.wrong, [], 'errors in the page');
  seen('signed out');
  await page.context().close();
}

try {
  for (const round of LANGUAGES.keys()) {
    for (const person of [...plan.people].reverse()) await visit(person, round);
  }
  await gadget(plan.people[0]);
  assert.deepEqual(blemishes, [], 'blemishes');
} catch (error) {
  console.log(`${who}: NOT as it should be: ${error.stack}`);
  for (const one of blemishes) console.log(one);
  for (const context of browser.contexts()) {
    for (const page of context.pages()) await page.screenshot({ path: `${plan.shots}/wrong.png`, fullPage: true }).catch(() => {});
  }
  process.exitCode = 1;
} finally {
  await browser.close();
}
