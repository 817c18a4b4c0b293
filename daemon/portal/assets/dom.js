// Elements out of data. Text only ever becomes text nodes and attributes, so nothing that a caller, a note or a display name holds is markup.

const PROPERTIES = new Set(['value', 'checked', 'disabled', 'hidden', 'open', 'selected', 'htmlFor']);

/** An element: `props` are attributes, or properties where these count; those that begin with `on` are listeners. */
export function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false && !PROPERTIES.has(name)) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Puts others in the place of what is in `place`. */
export function show(place, ...children) {
  place.replaceChildren(...children.flat(2).filter(Boolean));
}

let fields = 0;

/** A label with its field. */
export function field(text, input, hint) {
  input.id ||= `field-${++fields}`;
  const about = hint && el('small', { id: `${input.id}-hint` }, hint);
  if (about) input.setAttribute('aria-describedby', about.id);
  return el('div', { class: 'field' }, el('label', { for: input.id }, text), input, about);
}

/** A choice: pairs of value and text. */
export function choice(pairs, value, props) {
  return el('select', props, pairs.map(([one, text]) => el('option', { value: one, selected: one === value }, text)));
}

/** Says something to people who see and to those who do not. */
export function say(text) {
  const place = document.getElementById('said');
  place.textContent = text;
  place.classList.add('seen');
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove('seen'), 5000);
}

/** Asks before something that cannot be taken back. Answers true or false. */
export function confirmed(title, text, yes, no) {
  return new Promise((answer) => {
    const dialog = el('dialog', { 'aria-labelledby': 'ask-title' },
      el('h2', { id: 'ask-title' }, title), el('p', {}, text),
      el('div', { class: 'row end' },
        el('button', { type: 'button', autofocus: true, onclick: () => dialog.close('no') }, no),
        el('button', { type: 'button', class: 'danger', onclick: () => dialog.close('yes') }, yes)));
    dialog.addEventListener('close', () => { answer(dialog.returnValue === 'yes'); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
