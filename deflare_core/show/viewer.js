// The front end of VoxelBinViewer: one plain module without dependencies or build step.
//
// A window arrives once, as binary; from then on everything is drawn here. Each screen pixel of a panel shows the
// strongest of the cells beneath it, so that a single event stays visible when a panel is smaller than the sensor.
// Behind the bins of each panel follow three pictures of all of them: of both signs, and of each.
// The state is the model's traits: a view reads them when it draws and writes them when the user acts.

const BIN_MS = 250; // a bin's time on screen while playing
const WINDOW_MS = 100; // that of a window or stretch, or longer if it takes longer to load
const BLINK_MS = 500;
const SETTLED_MS = 300; // until a new output has its size in JupyterLab
const SMALLEST_VIEW = 8; // cells across at the closest zoom
const SMALLEST_PANEL = 230; // CSS pixels; narrower panels wrap into rows
const [SCALE_WIDTH, GAP] = [100, 14]; // CSS pixels of the colour bar, and between panels as in the style
const STEPS = 127; // colours on each side of white
const SERIES = { Input: "#7f7f7f", Target: "#2f9e6e", Output: "#9467bd", Removed: "#e08214" };
const MINUS = "\u2212";
const HINT =
  "Hover for values, click for a pixel's time course, drag to pan, then scroll to zoom. Arrow keys step, space plays.";
const POLARITIES = ["both", "positive", "negative"];
const SIGNS = {
  both: [-Number.MAX_VALUE, Number.MAX_VALUE],
  positive: [0, Number.MAX_VALUE],
  negative: [-Number.MAX_VALUE, 0],
};

const icon = (path, name) => `<svg viewBox="0 0 16 16" class="${name}" aria-hidden="true"><path d="${path}"/></svg>`;
const PLAY = icon("M4 2.5v11l9-5.5z", "filled");
const PAUSE = icon("M4 2.5h3v11H4zM9 2.5h3v11H9z", "filled");

const SIZE = icon("M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10", "lined");

const choices = (trait, label, rows) => `
    <div class="${trait}-choice group segmented" role="group" aria-label="${label}">
      ${rows.map(([value, text, title]) => choice(trait, value, text, title)).join("")}
    </div>`;
const choice = (trait, value, text, title) =>
  `<button type="button" class="choice" data-trait="${trait}" value="${value}" title="${title}">${text}</button>`;

const LAYOUT = `
  <div class="controls">
    <div class="group">
      <button type="button" class="play" title="Play (space)" aria-label="Play"></button>
      <input type="range" class="bins" min="0" max="0" value="0" aria-label="Time">
      <output class="bin-text"></output>
    </div>
    <div class="windows group">
      <button type="button" class="previous" title="The one before (page up)" aria-label="The one before">
        ${icon("M10.5 3 5.5 8l5 5", "lined")}</button>
      <label><span class="window-name"></span> <input type="number" class="window-number" min="0" value="0"></label>
      <output class="window-text"></output>
      <button type="button" class="next" title="The next one (page down)" aria-label="The next one">
        ${icon("M5.5 3l5 5-5 5", "lined")}</button>
    </div>
    <div class="jumps group" hidden>
      <button type="button" class="busiest" title="Where most events are (e)">Busiest</button>
      <button type="button" class="most-removed" title="Where most was removed (r)">Most removed</button>
    </div>
    <div class="group end">
      <button type="button" class="blink" title="Input and output take turns in one place (b)">Blink</button>
      <button type="button" class="reset" title="Show the whole sensor (0)">Reset view</button>
      <button type="button" class="save" title="Save what is shown as a picture (s)">PNG</button>
      <button type="button" class="film" title="Save the shown window or stretch as an animation, frame by frame (g)">GIF</button>
    </div>
  </div>
  <div class="controls">
    <div class="group">
      ${choices("span", "Shown at once", [
        ["bin", "Bin", "One bin, an eighth of a window (1)"],
        ["window", "Window", "A whole window (2)"],
        ["stretch", "N ms", "Any number of milliseconds (3)"],
      ])}
      <label class="length" hidden><input type="number" class="stretch" min="0.1" max="60000" step="any"> ms</label>
    </div>
    ${choices("look", "Look", [
      ["counts", "Counts", "Events per pixel (t)"],
      ["surface", "Time surface", "The latest event of each pixel, which fades with its age (t)"],
    ])}
    ${choices("colour", "Colours", [
      ["polarity", "Polarity", "Red is brighter, blue is darker (c)"],
      ["cause", "Cause", "What caused the event, where the recording says so (c)"],
    ])}
    ${choices("polarity", "Polarity", [
      ["both", "Both", "Events of both polarities (p)"],
      ["positive", "Positive", "Only positive events (p)"],
      ["negative", "Negative", "Only negative events (p)"],
    ])}
    <div class="limits group" title="The number of events per cell at which red and blue are darkest">
      <label class="group">Limit <input type="range" class="contrast" min="0" max="1" step="0.01"></label>
      <output class="limit-text"></output>
      <button type="button" class="fix" title="Keep this limit, or find one for each window (f)">Fix</button>
    </div>
  </div>
  <div class="timeline" hidden>
    <div class="strip" role="img" aria-label="Event rate over the whole recording; click to go there">
      <svg class="rates" viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true"></svg>
      <div class="here"></div>
    </div>
    <div class="times"><span class="from"></span><span class="rate-text"></span><span class="to"></span></div>
  </div>
  <div class="waiting">Waiting for the kernel to send the events. Without a kernel, see the static figure.</div>
  <div class="stage">
    <div class="panels"></div>
    <div class="scale"><div class="bar"></div><div class="ticks"></div><div class="unit"></div></div>
    <div class="cause-legend" hidden></div>
  </div>
  <div class="status"><div class="readout">${HINT}</div><div class="extent"></div></div>
  <div class="course" hidden>
    <div class="heading"><b class="pixel"></b><span class="legend"></span>
      <button type="button" class="close" aria-label="Close">${icon("M4 4l8 8M12 4l-8 8", "lined")}</button>
    </div>
    <div class="plot"></div>
  </div>`;

const PANEL = (title) => `
  <figcaption>
    <span class="title">${title}<span class="note"></span></span>
    <span class="sums" title="Positive and negative events of what is shown">
      <b class="positive"></b><b class="negative"></b></span>
    <button type="button" class="maximise" title="Show this panel alone, or all (m)" aria-label="Show ${title} alone">
      ${SIZE}</button>
  </figcaption>
  <div class="frame">
    <canvas role="img" aria-label="${title}" data-panel="${title}"></canvas>
    <div class="cell hovered" hidden></div><div class="cell chosen" hidden></div>
  </div>`;

export default function () {
  const store = { window: null, rates: null, changed: new EventTarget() };
  return {
    initialize: ({ model }) => connect(model, store),
    render: ({ model, el }) => new View(model, store, el).start(),
  };
}

// ---- the window, one copy for all views of a model ------------------------------------------------------------------

function connect(model, store) {
  const receive = (message, buffers) => {
    if (message.kind === "window") store.window = unpack(message, buffers);
    else if (message.kind === "rates") store.rates = message;
    else if (message.kind === "film") download(new Blob(buffers.map(bytesOf)), message.name);
    else return;
    if (message.kind === "window" && store.restarts) change(model, { bin_index: 0 });
    store.restarts &&= message.kind !== "window";
    store.changed.dispatchEvent(new Event("window"));
  };
  model.on("msg:custom", receive);
  model.send({ kind: "window please" });
  const stopPlaying = play(model, store);
  return () => {
    model.off("msg:custom", receive);
    stopPlaying();
  };
}

/** A message as its own facts and { bins, height, width, panels: [{ title, counts, values, causes }] }. */
function unpack(message, buffers) {
  const [bins, height, width] = message.shape;
  const size = (bins + 3) * height * width;
  const waiting = [...buffers];
  const panels = message.panels.map(({ title, counts, cells, causes }) => ({
    title,
    counts,
    values: cellsOf(waiting.shift(), cells, size),
    causes: causes && cellsOf(waiting.shift(), causes, size),
  }));
  return { ...message, bins, height, width, panels };
}

/** The bytes of a view; copied, because a view into a message need not be aligned. */
function bytesOf(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

/** The cells in a buffer, as `pack_cells` packs them. */
function cellsOf(view, { dtype, filled }, size) {
  const Cells = { int8: Int8Array, int16: Int16Array, float32: Float32Array }[dtype];
  const bytes = bytesOf(view);
  if (filled === null) return new Cells(bytes);
  const [places, values] = [new Uint32Array(bytes, 0, filled), new Cells(bytes, 4 * filled, filled)];
  const cells = new Cells(size);
  for (let i = 0; i < filled; i++) cells[places[i]] = values[i];
  return cells;
}

/** Lets time run while the trait `playing` is true, from bin to bin and window to window: one clock for all views. */
function play(model, store) {
  let timer = 0;
  const step = () => store.window?.index === model.get("index") && stepTime(model, store, 1, true);
  const follow = () => {
    clearInterval(timer);
    timer = model.get("playing") ? setInterval(step, model.get("span") === "bin" ? BIN_MS : WINDOW_MS) : 0;
  };
  const causes = ["change:playing", "change:span"];
  for (const cause of causes) model.on(cause, follow);
  follow();
  return () => {
    clearInterval(timer);
    for (const cause of causes) model.off(cause, follow);
  };
}

/** Goes a bin, window or stretch on or back; at the recording's end it stays, or starts again if it goes round. */
function stepTime(model, store, by, goesRound = false) {
  const [last, index] = [model.get("num_windows") - 1, model.get("index")];
  const bin = model.get("bin_index") + by;
  if (model.get("span") === "bin" && bin >= 0 && bin < store.window.bins) return change(model, { bin_index: bin });
  const next = index + by > last && goesRound ? 0 : clamp(index + by, 0, last);
  if (next === index) return goesRound && change(model, { bin_index: 0 });
  store.restarts = by > 0; // the new window begins with its first bin, once it is here
  change(model, { index: next });
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// ---- from cells to pixels -------------------------------------------------------------------------------------------

/** The red, green and blue of a colour such as #e2413a. */
function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** A colour as the little-endian word of an RGBA image. */
function word([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** The colours from -limit to +limit events per cell, as `make_palette` makes them. */
function palette(colours, limit, power) {
  const one = Math.min(1, limit);
  const side = (name) => {
    const [single, many] = colours[name].map(rgb);
    return Array.from({ length: STEPS }, (_, i) => {
      const events = ((i + 1) / STEPS) * limit;
      const pale = Math.min(events / one, 1) ** power;
      const dark = Math.max(events - one, 0) / Math.max(limit - one, 1e-9);
      const mixed = (from, to, share) => Math.floor(from + share * (to - from) + 0.5);
      return [0, 1, 2].map((c) => (dark > 0 ? mixed(single[c], many[c], dark) : mixed(255, single[c], pale)));
    });
  };
  return [...side("negative").reverse(), [255, 255, 255], ...side("positive")];
}

/** The colours of causes from the highest rank of a negative event to that of a positive one. */
function causePalette(causes) {
  const colours = Object.values(causes).map(rgb);
  return [...[...colours].reverse(), [255, 255, 255], ...colours];
}

/** The first cell of each screen pixel when [start, end) is spread over them, and the end of the last one. */
function firstCells(start, end, pixels, cells) {
  const first = (i) => Math.min(cells, Math.floor(start + (i * (end - start)) / pixels));
  return Int32Array.from({ length: pixels + 1 }, (_, i) => first(i));
}

/** Writes to line[from, to) the strongest of `count` rows of cells, the first of which begins at `start`. */
function strongestDown(line, from, to, values, start, width, count, [low, high]) {
  line.fill(0, from, to);
  for (let y = 0, row = start; y < count; y++, row += width) {
    for (let x = from; x < to; x++) {
      const value = values[row + x];
      if (value === 0) continue; // nearly all of them
      if (Math.abs(value) > Math.abs(line[x]) && value >= low && value <= high) line[x] = value;
    }
  }
}

function strongestAlong(line, from, to) {
  let best = line[from];
  for (let x = from + 1; x < to; x++) if (Math.abs(line[x]) > Math.abs(best)) best = line[x];
  return best;
}

/** The strongest cell beneath each screen pixel of one picture of a panel, float32, row by row. */
function reduce(values, number, { height, width }, { view: [x0, y0, x1, y1], columns, rows, signs }) {
  const [xs, ys] = [firstCells(x0, x1, columns, width), firstCells(y0, y1, rows, height)];
  const [from, to] = [xs[0], Math.min(width, xs[columns] + 1)];
  const [line, out] = [new Float32Array(width), new Float32Array(columns * rows)];
  for (let row = 0, at = 0; row < rows; row++) {
    const count = Math.max(1, ys[row + 1] - ys[row]);
    strongestDown(line, from, to, values, (number * height + ys[row]) * width, width, count, signs);
    for (let column = 0; column < columns; column++) out[at++] = strongestAlong(line, xs[column], xs[column + 1]);
  }
  return out;
}

function paint(canvas, cells, words, limit) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const out = new Uint32Array(image.data.buffer);
  const middle = (words.length - 1) / 2;
  for (let i = 0; i < out.length; i++) {
    const share = cells[i] / limit;
    out[i] = words[(middle + 0.5 + middle * (share < -1 ? -1 : share > 1 ? 1 : share)) | 0];
  }
  context.putImageData(image, 0, 0);
}

/** Pictures reduced to screen pixels: made once for a window and geometry, ahead of need while the browser idles. */
class Reductions {
  constructor() {
    this.made = new Map();
  }

  /** Turns to a window and a geometry; what was made for another one is dropped. */
  use(window, geometry) {
    const key = JSON.stringify(geometry);
    if (window === this.window && key === this.key) return;
    this.stop();
    this.made.clear();
    Object.assign(this, { window, geometry, key });
    const bins = geometry.ahead ? [...Array(window.bins).keys()] : [];
    this.makeAhead(window.panels.flatMap((panel) => bins.map((bin) => [panel, bin])));
  }

  get(panel, number) {
    const name = `${panel.title} ${number}`;
    const cells = this.geometry.byCause && panel.causes ? panel.causes : panel.values;
    if (!this.made.has(name)) this.made.set(name, reduce(cells, number, this.window, this.geometry));
    return this.made.get(name);
  }

  /** Makes one after the other whenever the browser has nothing else to do. */
  makeAhead([next, ...others]) {
    if (!next) return;
    this.waiting = whenIdle(() => {
      this.get(...next);
      this.makeAhead(others);
    });
  }

  stop() {
    this.waiting?.();
  }
}

/** Runs the step when the browser is idle, unless the returned function is called before. */
function whenIdle(step) {
  // Not every browser has idle callbacks.
  if (!globalThis.requestIdleCallback) return clearTimeout.bind(null, setTimeout(step, 20));
  return cancelIdleCallback.bind(null, requestIdleCallback(step));
}

// ---- numbers and words ----------------------------------------------------------------------------------------------

function signed(value) {
  const size = Math.abs(value);
  const text = Number.isInteger(size) ? size.toLocaleString("en") : size.toFixed(2);
  return (value > 0 ? "+" : value < 0 ? MINUS : "") + text;
}

function milliseconds(us, digits = 1) {
  return (us / 1000).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A rate such as 1.32 Mev/s. */
function rate(perSecond) {
  const [scale, unit] = perSecond >= 1e6 ? [1e6, "Mev/s"] : perSecond >= 1e3 ? [1e3, "kev/s"] : [1, "ev/s"];
  return `${Number((perSecond / scale).toPrecision(3))} ${unit}`;
}

function decimal(value) {
  return String(Number(value.toFixed(value < 1 ? 2 : 1)));
}

/** Sets a part's content, unless it has it already: every change costs a layout of the notebook. */
function write(part, html) {
  if (part.written !== html) part.innerHTML = part.written = html;
}

/** Sets an attribute, unless it has that value already. */
function put(part, name, value) {
  if (part.getAttribute(name) !== String(value)) part.setAttribute(name, value);
}

function inside(cell, [x0, y0, x1, y1]) {
  return cell.length === 2 && cell[0] + 1 > x0 && cell[0] < x1 && cell[1] + 1 > y0 && cell[1] < y1;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// ---- one view -------------------------------------------------------------------------------------------------------

class View {
  constructor(model, store, el) {
    Object.assign(this, { model, store, panels: [], hover: [], frame: 0, blinked: "Input", painted: {} });
    this.reductions = new Reductions();
    this.root = document.createElement("div");
    this.root.className = "voxel-bin-viewer";
    this.root.tabIndex = 0;
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.innerHTML = LAYOUT;
    this.parts = Object.fromEntries(
      [...this.root.querySelectorAll("[class]")].map((part) => [part.classList[0], part]),
    );
    this.choices = [...this.root.querySelectorAll(".choice")];
    this.listen();
    el.append(this.root);
  }

  /** Follows the model until the returned function is called. */
  start() {
    const redraw = () => this.schedule();
    const rebuild = () => this.rebuild();
    const rearrange = () => this.layout();
    const hear = (event) => this.onKey(event);
    const resized = new ResizeObserver(rearrange);
    const blinking = setInterval(() => this.blink(), BLINK_MS);
    this.model.on("change", redraw);
    this.model.on("change:maximised", rearrange);
    this.model.on("change:blinking", rearrange);
    this.store.changed.addEventListener("window", rebuild);
    // JupyterLab listens on the document, and would have the keys first.
    globalThis.addEventListener("keydown", hear, true);
    resized.observe(this.parts.panels);
    this.rebuild();
    return () => {
      this.model.off("change", redraw);
      this.model.off("change:maximised", rearrange);
      this.model.off("change:blinking", rearrange);
      this.store.changed.removeEventListener("window", rebuild);
      globalThis.removeEventListener("keydown", hear, true);
      resized.disconnect();
      clearInterval(blinking);
      cancelAnimationFrame(this.frame);
      this.reductions.stop();
    };
  }

  get window() {
    return this.store.window;
  }

  get bin() {
    return clamp(this.model.get("bin_index"), 0, this.window.bins - 1);
  }

  get showsBin() {
    return this.model.get("span") === "bin";
  }

  /** The number of the picture on show: a bin, or one of those behind them that hold all bins. */
  get number() {
    return this.showsBin ? this.bin : this.window.bins + POLARITIES.indexOf(this.model.get("polarity"));
  }

  /** The colour limit: the one that was set, or what suits the window. */
  get limit() {
    return this.model.get("limit") ?? this.window.limits[this.showsBin ? 0 : 1];
  }

  get byCause() {
    return this.model.get("colour") === "cause" && this.window.panels.some((panel) => panel.causes);
  }

  get canBlink() {
    return this.panels.some(({ title }) => title === "Output");
  }

  /** The visible cells [x0, y0, x1, y1). */
  get view() {
    const view = this.model.get("view");
    return view.length === 4 ? view : [0, 0, this.window.width, this.window.height];
  }

  /** Start and end of what is shown, microseconds. */
  get times() {
    const { start_us: start, window_us: length, bins } = this.window;
    if (!this.showsBin) return [start, start + length];
    return [this.bin, this.bin + 1].map((edge) => start + Math.ceil((edge * length) / bins));
  }

  set(values) {
    if (this.window) change(this.model, values);
  }

  // -- after a window has arrived, or the width has changed --

  rebuild() {
    this.parts.waiting.hidden = this.window !== null;
    this.parts.film.disabled = false;
    this.parts.stage.hidden = this.parts.status.hidden = this.window === null;
    if (!this.window) return;
    const titles = this.window.panels.map((panel) => panel.title);
    if (titles.join() !== this.panels.map((panel) => panel.title).join()) this.buildPanels(titles);
    if (this.store.rates && this.strip !== this.store.rates) this.buildStrip();
    this.layout();
  }

  buildPanels(titles) {
    this.panels = titles.map((title) => {
      const figure = document.createElement("figure");
      figure.innerHTML = PANEL(title);
      const find = (selector) => figure.querySelector(selector);
      const [hovered, chosen] = [find(".hovered"), find(".chosen")];
      const panel = { title, figure, canvas: find("canvas"), frame: find(".frame"), hovered, chosen };
      panel.sums = [find(".positive"), find(".negative")];
      panel.note = find(".note");
      find(".maximise").onclick = () => this.maximise(title);
      figure.onpointerenter = () => (this.pointed = title);
      this.listenTo(panel.frame);
      return panel;
    });
    this.parts.panels.replaceChildren(...this.panels.map((panel) => panel.figure));
  }

  /** Draws the event rate over the whole recording: what was kept, and on top of it what was removed. */
  buildStrip() {
    const { bar_us: barUs, events, removed } = (this.strip = this.store.rates);
    const [most, start] = [Math.max(1, ...events), this.model.get("t0_us")];
    const line = (counts) => counts.map((count, i) => `L${i} ${most - count}H${i + 1}`).join("");
    const area = (counts, name) => `<path class="${name}" d="M0 ${most}${line(counts)}V${most}z"/>`;
    const kept = removed ? events.map((count, i) => count - removed[i]) : events;
    this.parts.rates.setAttribute("viewBox", `0 0 ${events.length} ${most}`);
    write(this.parts.rates, (removed ? area(events, "gone") : "") + area(kept, "kept"));
    write(this.parts.from, `${milliseconds(start)} ms`);
    write(this.parts.to, `${milliseconds(start + events.length * barUs)} ms`);
    const legend = removed ? `, <span class="key gone-key">removed</span>` : "";
    write(this.parts["rate-text"], `events, at most ${rate(most / (barUs / 1e6))}${legend}`);
  }

  /** The titles of the panels in sight. */
  inSight() {
    const [titles, alone] = [this.panels.map(({ title }) => title), this.model.get("maximised")];
    if (this.model.get("blinking") && this.canBlink) return [this.blinked];
    return titles.includes(alone) ? [alone] : titles;
  }

  /** Fits the panels side by side into the width there is, in as many rows as keep them legible. */
  layout() {
    if (!this.window || !this.parts.panels.clientWidth) return; // While a page is hidden nothing has a size.
    const { width, height } = this.window;
    const shown = this.inSight();
    const room = this.parts.stage.clientWidth - SCALE_WIDTH;
    const fitting = clamp(Math.floor(room / SMALLEST_PANEL), 1, shown.length);
    const columns = Math.ceil(shown.length / Math.ceil(shown.length / fitting));
    const tallest = shown.length === 1 ? Math.max(520, 0.66 * innerHeight) : 520;
    const widest = Math.round((tallest * width) / height);
    this.parts.panels.style.gridTemplateColumns = `repeat(${columns}, minmax(0, ${widest}px))`;
    this.parts.panels.style.maxWidth = `${columns * (widest + GAP) - GAP}px`;
    for (const { title, figure } of this.panels) figure.hidden = !shown.includes(title);
    const { frame } = this.panels.find(({ title }) => title === shown[0]);
    for (const panel of this.panels) panel.frame.style.aspectRatio = `${width} / ${height}`;
    const pixels = Math.max(1, Math.round(frame.clientWidth * devicePixelRatio));
    for (const { canvas } of this.panels) {
      canvas.width = pixels;
      canvas.height = Math.max(1, Math.round((pixels * height) / width));
    }
    this.schedule();
  }

  // -- drawing --

  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.window && this.panels.length) this.draw();
    });
  }

  draw() {
    this.drawPanels();
    this.drawControls();
    this.drawScale();
    this.drawHere();
    write(this.parts.extent, this.extent());
    this.drawReadout();
    this.placeMarkers();
    this.drawCourse();
    this.comeIntoSight();
  }

  /** Shows itself once, where its cell is the one that JupyterLab has stopped at: it scrolled before there was a viewer. */
  comeIntoSight() {
    if (this.isSeen) return;
    this.isSeen = true;
    const come = () => this.root.closest(".jp-Cell.jp-mod-selected") && this.root.scrollIntoView({ block: "nearest" });
    setTimeout(come, SETTLED_MS);
  }

  drawPanels() {
    const { width: columns, height: rows } = this.panels[0].canvas;
    const signs = SIGNS[this.showsBin ? this.model.get("polarity") : "both"];
    const geometry = { view: this.view, columns, rows, signs, ahead: this.showsBin, byCause: this.byCause };
    this.reductions.use(this.window, geometry);
    const shown = this.inSight();
    this.window.panels.forEach((panel, i) => {
      const [{ canvas, sums, note }, [positive, negative]] = [this.panels[i], this.counts(panel)];
      write(sums[0], signed(Math.round(positive)));
      write(sums[1], signed(-Math.round(negative)));
      write(note, this.noteOn(panel));
      if (!shown.includes(panel.title)) return;
      const { words, limit } = this.byCause && panel.causes ? this.causeColours() : this.eventColours();
      paint(canvas, this.reductions.get(panel, this.number), words, limit);
    });
  }

  /** The positive and the negative events of a panel in what is shown. */
  counts({ counts }) {
    const shown = this.showsBin ? [counts[this.bin]] : counts;
    return [0, 1].map((sign) => shown.reduce((sum, one) => sum + one[sign], 0));
  }

  noteOn({ title }) {
    const num = Object.fromEntries(this.window.panels.map((panel) => [panel.title, sum(this.counts(panel))]));
    const added = Math.round(num.Output - (num.Input - num.Removed));
    if (title === "Output" && added > 0) return `${added.toLocaleString("en")} of them added`;
    if (title !== "Removed") return "";
    return num.Input ? `${((100 * num.Removed) / num.Input).toFixed(1)} % of the input` : "";
  }

  eventColours() {
    const { scale, look } = this.window;
    const key = `${this.limit} ${look}`;
    if (key !== this.painted.key) {
      const colours = palette(this.model.get("palette"), this.limit, look === "surface" ? 1 : 2);
      this.painted = { key, colours, words: Uint32Array.from(colours, word), limit: this.limit / scale };
    }
    return this.painted;
  }

  causeColours() {
    const causes = this.model.get("causes");
    return { words: Uint32Array.from(causePalette(causes), word), limit: Object.keys(causes).length };
  }

  drawControls() {
    const { model, parts, window } = this;
    const [index, last] = [model.get("index"), model.get("num_windows") - 1];
    write(parts.play, model.get("playing") ? PAUSE : PLAY);
    put(parts.bins, "max", this.showsBin ? window.bins - 1 : last);
    parts.bins.value = this.showsBin ? this.bin : index;
    write(parts["bin-text"], this.timeLabel());
    parts.windows.hidden = last === 0;
    write(parts["window-name"], model.get("span") === "stretch" ? "stretch" : "window");
    if (document.activeElement !== parts["window-number"]) parts["window-number"].value = index;
    put(parts["window-number"], "max", last);
    write(parts["window-text"], `of 0\u2013${last}`);
    parts.previous.disabled = index === 0;
    parts.next.disabled = index === last;
    for (const one of this.choices) put(one, "aria-pressed", one.value === model.get(one.dataset.trait));
    const hasTime = model.get("has_time");
    for (const one of this.choices) one.hidden = one.value === "stretch" && !hasTime;
    parts["look-choice"].hidden = !hasTime;
    parts["colour-choice"].hidden = !window.panels.some((panel) => panel.causes);
    parts.length.hidden = model.get("span") !== "stretch";
    if (document.activeElement !== parts.stretch) parts.stretch.value = model.get("stretch_ms");
    parts.jumps.hidden = parts.timeline.hidden = !this.store.rates || last === 0;
    parts["most-removed"].hidden = !this.store.rates?.removed;
    parts.blink.hidden = !this.canBlink;
    put(parts.blink, "aria-pressed", model.get("blinking"));
    parts.limits.hidden = window.look === "surface" || this.byCause;
    const isFixed = model.get("limit") !== null;
    put(parts.fix, "aria-pressed", isFixed);
    parts.contrast.value = Math.log(this.limit / this.highestLimit) / Math.log(0.1 / this.highestLimit);
    write(parts["limit-text"], `\u00b1${decimal(this.limit)}${isFixed ? "" : " auto"}`);
  }

  get highestLimit() {
    return Math.max(10, 4 * this.window.largest);
  }

  /** The colour limit at the slider's position: far above the largest value at 0, a tenth of an event at 1. */
  chosenLimit() {
    const at = this.parts.contrast.valueAsNumber;
    return Number((this.highestLimit ** (1 - at) * 0.1 ** at).toPrecision(2));
  }

  drawScale() {
    const { parts, byCause } = this;
    parts.scale.hidden = byCause;
    parts["cause-legend"].hidden = !byCause;
    const rows = Object.entries(this.model.get("causes")).reverse();
    write(parts["cause-legend"], byCause ? rows.map(([name, colour]) => key(name, colour)).join("") : "");
    const { colours } = this.eventColours();
    const stops = colours.filter((_, i) => i % 2 === 1).map(([r, g, b]) => `rgb(${r} ${g} ${b})`);
    const background = `linear-gradient(to top, ${stops.join()})`;
    if (parts.bar.written !== background) parts.bar.style.background = parts.bar.written = background;
    write(parts.ticks, this.tickLabels().map((label) => `<span>${label}</span>`).join(""));
    write(parts.unit, this.unit());
  }

  unit() {
    return this.window.look === "surface" ? "latest event, fading with its age" : "events per cell";
  }

  /** The colour bar's labels from the top; the ends say when stronger cells share their colour. */
  tickLabels() {
    const clipped = this.window.look === "counts" && this.window.largest > this.limit;
    const [full, half] = [this.limit, this.limit / 2].map(decimal);
    return [
      `${clipped ? "\u2265 " : ""}+${full}`,
      `+${half}`,
      "0",
      MINUS + half,
      (clipped ? "\u2264 " : "") + MINUS + full,
    ];
  }

  /** Marks what is shown on the strip of the whole recording. */
  drawHere() {
    if (!this.strip) return;
    const whole = this.strip.events.length * this.strip.bar_us;
    const [left, right] = this.times.map((us) => (100 * (us - this.model.get("t0_us"))) / whole);
    Object.assign(this.parts.here.style, { left: `${left}%`, width: `${right - left}%` });
  }

  timeLabel() {
    const digits = this.window.window_us < 8000 ? 3 : 1;
    const [from, to] = this.times.map((us) => milliseconds(us, digits));
    const bin = this.showsBin ? `bin ${this.bin} of 0\u2013${this.window.bins - 1}, ` : "";
    return `${bin}${from}\u2013${to} ms`;
  }

  extent() {
    const [x0, y0, x1, y1] = this.view.map((edge, i) => (i < 2 ? Math.floor(edge) : Math.ceil(edge) - 1));
    const zoom = this.window.width / (this.view[2] - this.view[0]);
    if (zoom === 1) return `${this.window.width} \u00d7 ${this.window.height} pixels`;
    return `x ${x0}\u2013${x1}, y ${y0}\u2013${y1}, zoom ${zoom.toFixed(1)}\u00d7`;
  }

  placeMarkers() {
    for (const { hovered, chosen } of this.panels) {
      this.mark(hovered, this.hover);
      this.mark(chosen, this.model.get("pixel"));
    }
  }

  /** Outlines a cell in a panel, at least 9 CSS pixels wide so that it can be found. */
  mark(marker, cell) {
    marker.hidden = !inside(cell, this.view);
    if (marker.hidden) return;
    const [x0, y0, x1, y1] = this.view;
    // Shares of the frame are right at any size of it, also at one that it gets only later.
    const share = (cells, all) => (100 * cells) / all;
    const size = (all) => `max(9px, calc(${share(1, all)}% + 2px))`;
    Object.assign(marker.style, { width: size(x1 - x0), height: size(y1 - y0) });
    const [left, top] = [share(cell[0] + 0.5 - x0, x1 - x0), share(cell[1] + 0.5 - y0, y1 - y0)];
    Object.assign(marker.style, { left: `${left}%`, top: `${top}%` });
  }

  valueAt({ values }, bin, [x, y]) {
    return values[(bin * this.window.height + y) * this.window.width + x] * this.window.scale;
  }

  /** What a panel holds at a cell: its value, or where all bins are shown the events of each sign. */
  describeCell(panel, cell) {
    const at = (number) => this.valueAt(panel, number, cell);
    const { bins, look } = this.window;
    const code = panel.causes?.[(this.number * this.window.height + cell[1]) * this.window.width + cell[0]];
    const cause = this.byCause && code ? ` ${Object.keys(this.model.get("causes"))[Math.abs(code) - 1]}` : "";
    if (this.showsBin || look === "surface") return signed(at(this.showsBin ? this.bin : bins)) + cause;
    const [positive, negative] = [at(bins + 1), at(bins + 2)];
    return ([positive, negative].filter(Boolean).map(signed).join(" ") || "0") + cause;
  }

  drawReadout() {
    if (!this.hover.length) return write(this.parts.readout, HINT);
    const [x, y] = this.hover;
    const values = this.window.panels.map((panel) => {
      return `<span>${panel.title} <b>${this.describeCell(panel, this.hover)}</b></span>`;
    });
    const bin = this.showsBin ? `bin ${this.bin}, ` : "";
    write(this.parts.readout, `<span>${bin}x ${x}, y ${y}</span>${values.join("")}`);
  }

  drawCourse() {
    const pixel = this.model.get("pixel");
    const { width, height, panels, bins } = this.window;
    this.parts.course.hidden = !inside(pixel, [0, 0, width, height]);
    if (this.parts.course.hidden) return;
    const bin = (panel) => Array.from({ length: bins }, (_, i) => this.valueAt(panel, i, pixel));
    const series = panels.map((panel) => ({ title: panel.title, values: bin(panel) }));
    write(this.parts.pixel, `Pixel x ${pixel[0]}, y ${pixel[1]}`);
    write(this.parts.legend, series.map(({ title }) => key(title, SERIES[title])).join(""));
    write(this.parts.plot, barPlot(series, this.showsBin ? this.bin : null, this.window, this.unit()));
  }

  // -- the user's hands --

  listen() {
    const { parts } = this;
    parts.play.onclick = this.keys[" "];
    parts.bins.oninput = () => this.set({ [this.showsBin ? "bin_index" : "index"]: parts.bins.valueAsNumber });
    parts.previous.onclick = this.keys.PageUp;
    parts.next.onclick = this.keys.PageDown;
    parts["window-number"].onchange = (event) => this.showWindow(event.target.valueAsNumber);
    parts.busiest.onclick = this.keys.e;
    parts["most-removed"].onclick = this.keys.r;
    for (const one of this.choices) one.onclick = () => this.set({ [one.dataset.trait]: one.value });
    parts.stretch.onchange = ({ target }) => {
      if (target.checkValidity() && target.value) this.set({ stretch_ms: target.valueAsNumber });
    };
    parts.contrast.oninput = () => this.set({ limit: this.chosenLimit() });
    parts.fix.onclick = this.keys.f;
    parts.blink.onclick = this.keys.b;
    parts.reset.onclick = this.keys[0];
    parts.save.onclick = () => this.save();
    parts.film.onclick = this.keys.g;
    parts.close.onclick = () => this.set({ pixel: [] });
    parts.strip.onpointerdown = (event) => {
      parts.strip.setPointerCapture(event.pointerId);
      this.goTo(event);
    };
    parts.strip.onpointermove = (event) => event.buttons && this.goTo(event);
  }

  /** Shows the window at the place on the strip that was clicked. */
  goTo(event) {
    const { left, width } = this.parts.strip.getBoundingClientRect();
    const us = ((event.clientX - left) / width) * this.strip.events.length * this.strip.bar_us;
    this.showWindow(Math.floor(us / this.window.window_us));
  }

  maximise(title) {
    this.set({ maximised: this.model.get("maximised") === title ? "" : title, blinking: false });
  }

  blink() {
    if (!this.window || !this.model.get("blinking") || !this.canBlink) return;
    this.blinked = this.blinked === "Input" ? "Output" : "Input";
    for (const { title, figure } of this.panels) figure.hidden = title !== this.blinked;
    this.schedule();
  }

  listenTo(frame) {
    let from = null;
    frame.onpointerdown = (event) => {
      this.root.focus({ preventScroll: true });
      frame.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY, view: this.view, moved: false };
    };
    frame.onpointermove = (event) => {
      if (from) this.drag(frame, event, from);
      this.hoverAt(this.cellAt(frame, event));
    };
    frame.onpointerup = (event) => {
      if (from && !from.moved) this.set({ pixel: this.cellAt(frame, event) });
      from = null;
    };
    frame.onpointercancel = () => (from = null);
    frame.onpointerleave = () => this.hoverAt([]);
    frame.addEventListener("wheel", (event) => this.onWheel(frame, event), { passive: false });
  }

  hoverAt(cell) {
    this.hover = cell;
    this.drawReadout();
    this.placeMarkers();
  }

  /** The point of the sensor under the pointer, in cells. */
  pointAt(frame, event) {
    const box = frame.getBoundingClientRect();
    const [x0, y0, x1, y1] = this.view;
    const [right, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [x0 + right * (x1 - x0), y0 + down * (y1 - y0)];
  }

  cellAt(frame, event) {
    const [x, y] = this.pointAt(frame, event).map(Math.floor);
    return [clamp(x, 0, this.window.width - 1), clamp(y, 0, this.window.height - 1)];
  }

  drag(frame, event, from) {
    const [dx, dy] = [event.clientX - from.x, event.clientY - from.y];
    from.moved ||= Math.hypot(dx, dy) > 3;
    if (!from.moved) return;
    const [x0, y0, x1] = from.view;
    const cells = (x1 - x0) / frame.clientWidth;
    this.show(x0 - dx * cells, y0 - dy * cells, x1 - x0);
  }

  /** Zooms about the pointer; without focus or the control key the wheel scrolls the page, as it does elsewhere. */
  onWheel(frame, event) {
    if (!event.ctrlKey && !this.root.contains(document.activeElement)) return;
    event.preventDefault();
    this.zoom(Math.exp(clamp(event.deltaY, -60, 60) / 250), this.pointAt(frame, event));
  }

  zoom(factor, [x, y] = this.centre()) {
    const [x0, y0, x1] = this.view;
    const across = clamp((x1 - x0) * factor, Math.min(SMALLEST_VIEW, this.window.width), this.window.width);
    const applied = across / (x1 - x0);
    this.show(x - (x - x0) * applied, y - (y - y0) * applied, across);
  }

  centre() {
    const [x0, y0, x1, y1] = this.view;
    return [(x0 + x1) / 2, (y0 + y1) / 2];
  }

  /** Shows `across` cells from (x0, y0) on, moved so that they lie on the sensor. */
  show(x0, y0, across) {
    const { width, height } = this.window;
    const down = (across * height) / width;
    const [left, top] = [clamp(x0, 0, width - across), clamp(y0, 0, height - down)];
    this.set({ view: across >= width ? [] : [left, top, left + across, top + down] });
  }

  /** Acts on keys that the focused control does not use itself, and keeps all from JupyterLab while it has the focus. */
  onKey(event) {
    const isFocused = this.root.contains(document.activeElement);
    if (!isFocused && !this.hears(event)) return;
    if (isFocused) event.stopPropagation();
    const action = this.keys[event.key];
    if (!action || !this.window || usesKey(event.target, event.key) || event.ctrlKey || event.metaKey || event.altKey)
      return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** Whether a key is meant for this viewer, though nothing in it was clicked: alone on a page, or under the pointer. */
  hears({ key: name }) {
    if (document.activeElement?.matches("input, textarea, select, [contenteditable=true]")) return false;
    if (document.querySelector(".jp-MainAreaWidget"))
      return this.root.matches(":hover") && (name === " " || name.length > 1); // Letters are the notebook's commands.
    const pointed = document.querySelector(".voxel-bin-viewer:hover");
    return this.root === (pointed ?? document.querySelector(".voxel-bin-viewer"));
  }

  keys = {
    ArrowLeft: () => stepTime(this.model, this.store, -1),
    ArrowRight: () => stepTime(this.model, this.store, 1),
    PageUp: () => this.showWindow(this.model.get("index") - 1),
    PageDown: () => this.showWindow(this.model.get("index") + 1),
    Home: () => this.showWindow(0),
    End: () => this.showWindow(this.model.get("num_windows") - 1),
    " ": () => this.set({ playing: !this.model.get("playing") }),
    "+": () => this.zoom(1 / 1.5),
    "-": () => this.zoom(1.5),
    0: () => this.set({ view: [] }),
    1: () => this.set({ span: "bin" }),
    2: () => this.set({ span: "window" }),
    3: () => this.model.get("has_time") && this.set({ span: "stretch" }),
    t: () => this.model.get("has_time") && this.turn("look"),
    c: () => this.turn("colour"),
    p: () => this.turn("polarity"),
    e: () => this.store.rates && this.model.send({ kind: "jump", to: "events" }),
    r: () => this.store.rates?.removed && this.model.send({ kind: "jump", to: "removed" }),
    f: () => this.set({ limit: this.model.get("limit") === null ? this.limit : null }),
    b: () => this.canBlink && this.set({ blinking: !this.model.get("blinking") }),
    m: () => this.maximise(this.model.get("maximised") || this.pointed || "Input"),
    s: () => this.save(),
    g: () => this.film(),
  };

  /** Sets a trait to the next of its choices. */
  turn(trait) {
    const values = this.choices.filter((one) => one.dataset.trait === trait).map((one) => one.value);
    this.set({ [trait]: values[(values.indexOf(this.model.get(trait)) + 1) % values.length] });
  }

  showWindow(index) {
    if (Number.isInteger(index)) this.set({ index: clamp(index, 0, this.model.get("num_windows") - 1) });
  }

  // -- export --

  save() {
    if (!this.window) return;
    const part = this.showsBin ? `_bin${this.bin}` : "";
    const name = `voxel_${this.model.get("span") === "stretch" ? "stretch" : "window"}${this.window.index}${part}.png`;
    this.picture().toBlob((blob) => download(blob, name));
  }

  /** Asks for the film, which takes seconds to make of a long stretch: until it is here, it is not asked for again. */
  film() {
    if (!this.window || this.parts.film.disabled) return;
    this.parts.film.disabled = true;
    this.model.send({ kind: "film please" });
  }

  /** The panels in sight with their titles and the colour bar, side by side on white, as a canvas. */
  picture() {
    const shown = this.panels.filter(({ title }) => this.inSight().includes(title));
    const { width, height } = shown[0].canvas;
    const unit = devicePixelRatio;
    const [margin, top] = [14 * unit, 50 * unit];
    const left = (i) => margin + i * (width + margin);
    const context = blank(left(shown.length) + 110 * unit, top + height + margin);
    context.font = `${12 * unit}px sans-serif`;
    const name = this.model.get("span") === "stretch" ? "Stretch" : "Window";
    context.fillText(`${name} ${this.window.index}, ${this.timeLabel()}; ${this.extent()}`, margin, 18 * unit);
    shown.forEach(({ title, canvas, sums }, i) => {
      context.fillText(`${title} ${sums.map((part) => part.textContent).join(" ")}`, left(i), 42 * unit);
      context.drawImage(canvas, left(i), top);
      context.strokeRect(left(i), top, width, height);
    });
    if (this.byCause) this.pictureCauses(context, left(shown.length), top, unit);
    else this.pictureScale(context, left(shown.length), top, height, unit);
    return context.canvas;
  }

  pictureCauses(context, left, top, unit) {
    Object.entries(this.model.get("causes")).forEach(([name, colour], i) => {
      context.fillStyle = colour;
      context.fillRect(left, top + i * 20 * unit, 12 * unit, 12 * unit);
      context.fillStyle = "#222";
      context.fillText(name, left + 20 * unit, top + (i * 20 + 11) * unit);
    });
  }

  pictureScale(context, left, top, height, unit) {
    context.fillText(this.window.look === "surface" ? "latest event" : "events per cell", left, top - 8 * unit);
    this.tickLabels().forEach((label, i) => {
      context.fillText(label, left + 20 * unit, top + 9 * unit + (i / 4) * (height - 9 * unit));
    });
    const { colours } = this.eventColours();
    const gradient = context.createLinearGradient(0, top + height, 0, top);
    colours.forEach(([r, g, b], i) => gradient.addColorStop(i / (colours.length - 1), `rgb(${r} ${g} ${b})`));
    context.fillStyle = gradient;
    context.fillRect(left, top, 14 * unit, height);
  }
}

function usesKey(control, key) {
  if (control.matches("button")) return key === " " || key === "Enter";
  if (control.matches("input[type=range]"))
    return key.startsWith("Arrow") || key.startsWith("Page") || ["Home", "End"].includes(key);
  return control.matches("input");
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function key(name, colour) {
  return `<span class="key" style="--colour: ${colour}">${name}</span>`;
}

/** The drawing context of a white canvas, ready for dark text. */
function blank(width, height) {
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.fillStyle = "#222";
  context.strokeStyle = "#bbb";
  return context;
}

// ---- the time course of a pixel -------------------------------------------------------------------------------------

/** Bars of each series for every bin, as SVG text: milliseconds below, values at the left, the bin on show shaded. */
function barPlot(series, shown, { start_us: startUs, window_us: lengthUs }, unit) {
  const [width, height, left, right, top, bottom] = [620, 172, 64, 24, 10, 38];
  const bins = series[0].values.length;
  const most = Math.ceil(Math.max(1, ...series.flatMap(({ values }) => values.map(Math.abs))));
  const x = (at) => left + (at * (width - left - right)) / bins;
  const y = (value) => top + ((most - value) / (2 * most)) * (height - top - bottom);
  const level = (value) => `
    <line x1="${left}" x2="${width - right}" y1="${y(value)}" y2="${y(value)}" class="${value ? "rule" : "zero"}"/>
    <text x="${left - 8}" y="${y(value) + 4}" text-anchor="end">${signed(value)}</text>`;
  // Beyond a quarter of an hour whole numbers of milliseconds are too long for an axis.
  const [origin, after] = startUs < 1e9 ? [0, ""] : [startUs, ` after ${milliseconds(startUs)}`];
  const at = (i) => milliseconds(startUs - origin + (i * lengthUs) / bins, lengthUs < 8000 ? 3 : 1);
  const edge = (_, i) => `<text x="${x(i)}" y="${height - 20}" text-anchor="middle">${at(i)}</text>`;
  const current = shown === null ? "" : `
      <rect class="current" x="${x(shown)}" y="${top}" width="${x(1) - x(0)}" height="${y(-most) - top}"/>`;
  return `
    <svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Time course">
      ${current}
      ${[most, 0, -most].map(level).join("")}
      ${Array.from({ length: bins + 1 }, edge).join("")}
      <text x="${x(bins / 2)}" y="${height - 4}" text-anchor="middle">time${after}, ms</text>
      <text transform="translate(13 ${y(0)}) rotate(-90)" text-anchor="middle">${unit}</text>
      ${series.map((one, i) => bars(one, i, series.length, x, y)).join("")}
    </svg>`;
}

function bars({ title, values }, i, count, x, y) {
  const width = ((x(1) - x(0)) * 0.76) / count;
  const bar = (value, bin) => {
    const [at, from, to] = [x(bin + 0.12) + i * width, Math.min(y(value), y(0)), Math.max(y(value), y(0))];
    return `<rect x="${at}" y="${from}" width="${width - 1}" height="${to - from}" fill="${SERIES[title]}">
      <title>${title}, bin ${bin}: ${signed(value)}</title></rect>`;
  };
  return values.map(bar).join("");
}
