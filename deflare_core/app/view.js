// The page of `deflare view`: the notebook's viewer on a socket in place of a kernel, and a dialog that opens files.

import makeViewer from "./viewer.js";

const find = (selector) => document.querySelector(selector);
const dialog = find("dialog");
const fields = [...dialog.querySelectorAll("input")];
const dark = matchMedia("(prefers-color-scheme: dark)");
const socket = new WebSocket(`ws://${location.host}/socket`);
socket.binaryType = "arraybuffer";

/** A viewer's model as anywidget gives it: traits that can be read, set and followed, and messages both ways. */
class Model {
  constructor(state) {
    Object.assign(this, { state, followers: new Map(), changed: {}, waits: false });
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
    this.changed[name] = value;
    this.take({ [name]: value });
  }

  /** Sends what has changed once the change before is done, so that a slider never runs ahead of the pictures. */
  save_changes() {
    if (this.waits || !Object.keys(this.changed).length) return;
    this.waits = true;
    socket.send(JSON.stringify({ set: this.changed }));
    this.changed = {};
  }

  done() {
    this.waits = false;
    this.save_changes();
  }

  take(values) {
    Object.assign(this.state, values);
    for (const name of Object.keys(values)) this.tell(`change:${name}`);
    this.tell("change");
  }

  send(content) {
    socket.send(JSON.stringify({ send: content }));
  }

  on(event, follower) {
    this.followers.set(event, [...(this.followers.get(event) ?? []), follower]);
  }

  off(event, follower) {
    const others = (this.followers.get(event) ?? []).filter((one) => one !== follower);
    this.followers.set(event, others);
  }

  tell(event, ...values) {
    for (const follower of this.followers.get(event) ?? []) follower(...values);
  }
}

let model = null;
let stop = () => {};
let announced = null;
let folder = "";
let chosen = fields[0];

const answers = {
  shown({ state, files, folder: place }) {
    stop();
    find("main").replaceChildren();
    model = new Model(state);
    const { initialize, render } = makeViewer();
    const ends = [initialize({ model }), render({ model, el: find("main") })];
    stop = () => ends.forEach((end) => end());
    folder = place;
    for (const field of fields) field.value = files[field.name] ?? "";
    const names = Object.entries(files).filter(([, name]) => name);
    find("#names").replaceChildren(...names.map(([title, name]) => label(title, name)));
    document.title = `${names[0][1].split("/").at(-1)} - deflare view`;
    dialog.close();
  },
  refused({ why }) {
    find("#why").textContent = why;
    if (!dialog.open) dialog.showModal();
  },
  state: ({ state }) => model?.take(state),
  done: () => model?.done(),
  custom(message) {
    announced = { ...message, received: [] };
    deliver();
  },
  folder(found) {
    folder = found.folder;
    find("#folder").textContent = folder;
    find("#why").textContent = found.why;
    const up = [["..", () => list(`${folder}/..`)]];
    const folders = found.folders.map((name) => [`${name}/`, () => list(`${folder}/${name}`)]);
    const files = found.files.map((name) => [name, () => take(`${folder}/${name}`.replace("//", "/"))]);
    find("#entries").replaceChildren(...[...up, ...folders, ...files].map(([name, act]) => entry(name, act)));
  },
};

/** Hands a message over once all of its buffers are here. */
function deliver() {
  if (announced?.received.length !== announced?.buffers) return;
  const { content, received } = announced;
  announced = null;
  model.tell("msg:custom", content, received);
}

function label(title, name) {
  const span = document.createElement("span");
  span.append(Object.assign(document.createElement("b"), { textContent: `${title} ` }), name);
  return span;
}

function entry(name, act) {
  return Object.assign(document.createElement("button"), { type: "button", textContent: name, onclick: act });
}

function list(name) {
  socket.send(JSON.stringify({ list: name }));
}

/** Puts a file into the field that was last clicked, and goes on to the next. */
function take(path) {
  chosen.value = path;
  chosen = fields[Math.min(fields.indexOf(chosen) + 1, fields.length - 1)];
  chosen.focus();
}

/** Tells the viewer's style which theme it stands in, in JupyterLab's words. */
function followTheme() {
  document.body.dataset.jpThemeLight = !dark.matches;
}

dark.onchange = followTheme;
followTheme();
socket.onmessage = ({ data }) => {
  if (typeof data === "string") {
    const message = JSON.parse(data);
    return answers[message.kind](message);
  }
  announced.received.push(new DataView(data));
  deliver();
};
socket.onclose = () => (find("#lost").hidden = false);
for (const field of fields) field.onfocus = () => (chosen = field);
find("#open").onclick = () => {
  find("#why").textContent = "";
  list(folder);
  dialog.showModal();
};
find("#cancel").onclick = () => dialog.close();
find("form").onsubmit = (event) => {
  event.preventDefault();
  socket.send(JSON.stringify({ open: fields.map((field) => field.value.trim()) }));
};
