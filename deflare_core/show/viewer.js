// The front end of VoxelBinViewer: one plain module without dependencies or build step.
//
// A window arrives once, as binary; from then on everything is drawn here. Each screen pixel of a panel shows the
// strongest of the cells beneath it, so that a single event stays visible when a panel is smaller than the sensor.
// The state is the model's traits: a view reads them when it draws and writes them when the user acts.

const FRAME_MS = 350; // a bin's time on screen while playing
const SMALLEST_VIEW = 8; // cells across at the closest zoom
const SMALLEST_PANEL = 230; // CSS pixels; narrower panels wrap into rows
const SERIES = { Input: "#7f7f7f", Target: "#2f9e6e", Output: "#9467bd", Residual: "#e08214" };
const MINUS = "\u2212";
const HINT =
  "Hover for values, click for a pixel's time course, drag to pan, then scroll to zoom. Arrow keys step bins.";
const SIGNS = {
  both: [-Number.MAX_VALUE, Number.MAX_VALUE],
  positive: [0, Number.MAX_VALUE],
  negative: [-Number.MAX_VALUE, 0],
};

const icon = (path, name) => `<svg viewBox="0 0 16 16" class="${name}" aria-hidden="true"><path d="${path}"/></svg>`;
const PLAY = icon("M4 2.5v11l9-5.5z", "filled");
const PAUSE = icon("M4 2.5h3v11H4zM9 2.5h3v11H9z", "filled");

const LAYOUT = `
  <div class="controls">
    <div class="group">
      <button type="button" class="play" title="Play the bins (space)" aria-label="Play the bins"></button>
      <input type="range" class="bins" min="0" max="0" value="0" aria-label="Bin">
      <output class="bin-text"></output>
    </div>
    <div class="windows group">
      <button type="button" class="previous" title="Previous window (page up)" aria-label="Previous window">
        ${icon("M10.5 3 5.5 8l5 5", "lined")}</button>
      <label>window <input type="number" class="window-number" min="0" value="0"></label>
      <output class="window-text"></output>
      <button type="button" class="next" title="Next window (page down)" aria-label="Next window">
        ${icon("M5.5 3l5 5-5 5", "lined")}</button>
    </div>
    <div class="group segmented" role="group" aria-label="Polarity">
      <button type="button" class="polarity" value="both">Both</button>
      <button type="button" class="polarity" value="positive">Positive</button>
      <button type="button" class="polarity" value="negative">Negative</button>
    </div>
    <label class="group" title="The number of events per cell at which red and blue are full">Contrast
      <input type="range" class="contrast" min="0" max="1" step="0.01">
      <output class="limit-text"></output>
    </label>
    <div class="group end">
      <button type="button" class="reset" title="Show the whole sensor (0)">Reset view</button>
      <button type="button" class="save" title="Save the panels as a picture">Save PNG</button>
    </div>
  </div>
  <div class="waiting">Waiting for the kernel to send the voxels. Without a kernel, see the static figure.</div>
  <div class="stage">
    <div class="panels"></div>
    <div class="scale"><div class="bar"></div><div class="ticks"></div><div class="unit">events per cell</div></div>
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
    <span class="title">${title}<span class="note">${title === "Residual" ? `output ${MINUS} input` : ""}</span></span>
    <span class="sums" title="Sums of this bin's positive and negative cells, events">
      <b class="positive"></b><b class="negative"></b></span>
  </figcaption>
  <div class="frame">
    <canvas role="img" aria-label="${title}, one bin" data-panel="${title}"></canvas>
    <div class="cell hovered" hidden></div><div class="cell chosen" hidden></div>
  </div>`;

export default function () {
  const store = { window: null, changed: new EventTarget() };
  return {
    initialize: ({ model }) => connect(model, store),
    render: ({ model, el }) => new View(model, store, el).start(),
  };
}

// ---- the window, one copy for all views of a model ------------------------------------------------------------------

function connect(model, store) {
  const receive = (message, buffers) => {
    if (message.kind !== "window") return;
    store.window = unpack(message, buffers);
    store.changed.dispatchEvent(new Event("window"));
  };
  model.on("msg:custom", receive);
  model.send({ kind: "window please" });
  const stopPlaying = playBins(model, store);
  return () => {
    model.off("msg:custom", receive);
    stopPlaying();
  };
}

/** A message as { index, bins, height, width, panels: [{ title, values, sums }], largest }. */
function unpack({ index, shape: [bins, height, width], panels: headers }, buffers) {
  const panels = headers.map(({ title, dtype }, i) => ({ title, values: floats(buffers[i], dtype) }));
  const [input, output] = ["Input", "Output"].map((title) => panels.find((panel) => panel.title === title)?.values);
  if (output) panels.push({ title: "Residual", values: output.map((value, i) => value - input[i]) });
  for (const panel of panels) panel.sums = sums(panel.values, bins);
  return { index, bins, height, width, panels, largest: Math.max(1, ...panels.map((panel) => largest(panel.values))) };
}

/** The buffer's numbers as float32; copied, because a view into a message need not be aligned. */
function floats(view, dtype) {
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  return dtype === "int8" ? new Float32Array(new Int8Array(bytes)) : new Float32Array(bytes);
}

/** For each bin, [sum of positive cells, sum of negative cells]. */
function sums(values, bins) {
  const cells = values.length / bins;
  return Array.from({ length: bins }, (_, bin) => {
    let [positive, negative] = [0, 0];
    for (let i = bin * cells; i < (bin + 1) * cells; i++) {
      if (values[i] > 0) positive += values[i];
      else negative += values[i];
    }
    return [positive, negative];
  });
}

function largest(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most;
}

/** Steps the bins while the trait `playing` is true: one clock for all views. */
function playBins(model, store) {
  let timer = 0;
  const step = () => {
    if (store.window) change(model, { bin_index: (model.get("bin_index") + 1) % store.window.bins });
  };
  const follow = () => {
    clearInterval(timer);
    timer = model.get("playing") ? setInterval(step, FRAME_MS) : 0;
  };
  model.on("change:playing", follow);
  follow();
  return () => {
    clearInterval(timer);
    model.off("change:playing", follow);
  };
}

function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// ---- from cells to pixels -------------------------------------------------------------------------------------------

/** Hex colours as the little-endian words of an RGBA image. */
function colourWords(palette) {
  return Uint32Array.from(palette, (hex) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
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

/** The strongest cell beneath each screen pixel of one bin of a panel, float32, row by row. */
function reduce(values, bin, { height, width }, { view: [x0, y0, x1, y1], columns, rows, signs }) {
  const [xs, ys] = [firstCells(x0, x1, columns, width), firstCells(y0, y1, rows, height)];
  const [from, to] = [xs[0], Math.min(width, xs[columns] + 1)];
  const [line, out] = [new Float32Array(width), new Float32Array(columns * rows)];
  for (let row = 0, at = 0; row < rows; row++) {
    const count = Math.max(1, ys[row + 1] - ys[row]);
    strongestDown(line, from, to, values, (bin * height + ys[row]) * width, width, count, signs);
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

/** The panels' bins reduced to screen pixels: made once for a window and geometry, ahead of need while idle. */
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
    const bins = Array.from({ length: window.bins }, (_, bin) => bin);
    this.makeAhead(window.panels.flatMap((panel) => bins.map((bin) => [panel, bin])));
  }

  get(panel, bin) {
    const name = `${panel.title} ${bin}`;
    if (!this.made.has(name)) this.made.set(name, reduce(panel.values, bin, this.window, this.geometry));
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

function decimal(value) {
  return String(Number(value.toFixed(value < 1 ? 2 : 1)));
}

/** Sets a part's content, unless it has it already: every change costs a layout of the notebook. */
function write(part, html) {
  if (part.written !== html) part.innerHTML = part.written = html;
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
    Object.assign(this, { model, store, panels: [], hover: [], frame: 0, words: colourWords(model.get("palette")) });
    this.reductions = new Reductions();
    this.root = document.createElement("div");
    this.root.className = "voxel-bin-viewer";
    this.root.tabIndex = 0;
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.innerHTML = LAYOUT;
    this.parts = Object.fromEntries(
      [...this.root.querySelectorAll("[class]")].map((part) => [part.classList[0], part]),
    );
    this.polarities = [...this.root.querySelectorAll(".polarity")];
    this.listen();
    el.append(this.root);
  }

  /** Follows the model until the returned function is called. */
  start() {
    const redraw = () => this.schedule();
    const rebuild = () => this.rebuild();
    const resized = new ResizeObserver(() => this.layout());
    this.model.on("change", redraw);
    this.store.changed.addEventListener("window", rebuild);
    resized.observe(this.parts.panels);
    this.rebuild();
    return () => {
      this.model.off("change", redraw);
      this.store.changed.removeEventListener("window", rebuild);
      resized.disconnect();
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

  /** The visible cells [x0, y0, x1, y1). */
  get view() {
    const view = this.model.get("view");
    return view.length === 4 ? view : [0, 0, this.window.width, this.window.height];
  }

  set(values) {
    if (this.window) change(this.model, values);
  }

  // -- after a window has arrived, or the width has changed --

  rebuild() {
    this.parts.waiting.hidden = this.window !== null;
    this.parts.stage.hidden = this.parts.status.hidden = this.window === null;
    if (!this.window) return;
    const titles = this.window.panels.map((panel) => panel.title);
    if (titles.join() !== this.panels.map((panel) => panel.title).join()) this.buildPanels(titles);
    const stops = this.model.get("palette").filter((_, i) => i % 8 === 0);
    this.parts.bar.style.background = `linear-gradient(to top, ${stops.join()})`;
    this.parts.bins.max = this.window.bins - 1;
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
      this.listenTo(panel.frame);
      return panel;
    });
    this.parts.panels.replaceChildren(...this.panels.map((panel) => panel.figure));
  }

  /** Fits the panels side by side into the width there is, in as many rows as keep them legible. */
  layout() {
    if (!this.window || !this.parts.panels.clientWidth) return;
    const { width, height } = this.window;
    const count = this.panels.length;
    const fitting = clamp(Math.floor(this.parts.panels.clientWidth / SMALLEST_PANEL), 1, count);
    const columns = Math.ceil(count / Math.ceil(count / fitting));
    const widest = Math.round(Math.min(760, (520 * width) / height));
    this.parts.panels.style.gridTemplateColumns = `repeat(${columns}, minmax(0, ${widest}px))`;
    for (const { canvas, frame } of this.panels) {
      frame.style.aspectRatio = `${width} / ${height}`;
      const pixels = frame.clientWidth * devicePixelRatio;
      canvas.width = Math.max(1, Math.round(pixels));
      canvas.height = Math.max(1, Math.round((pixels * height) / width));
    }
    this.schedule();
  }

  // -- drawing --

  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.window) this.draw();
    });
  }

  draw() {
    const limit = this.model.get("limit");
    this.drawPanels(limit);
    this.drawControls(limit);
    this.drawScale(limit);
    write(this.parts.extent, this.extent());
    this.drawReadout();
    this.placeMarkers();
    this.drawCourse();
  }

  drawPanels(limit) {
    const { width: columns, height: rows } = this.panels[0].canvas;
    this.reductions.use(this.window, { view: this.view, columns, rows, signs: SIGNS[this.model.get("polarity")] });
    this.window.panels.forEach((panel, i) => {
      paint(this.panels[i].canvas, this.reductions.get(panel, this.bin), this.words, limit);
      this.panels[i].sums.forEach((part, sign) => write(part, signed(Math.round(panel.sums[this.bin][sign]))));
    });
  }

  drawControls(limit) {
    const { model, parts } = this;
    const [index, last] = [model.get("index"), model.get("num_windows") - 1];
    write(parts.play, model.get("playing") ? PAUSE : PLAY);
    parts.bins.value = this.bin;
    write(parts["bin-text"], this.binLabel());
    parts.windows.hidden = last === 0;
    if (document.activeElement !== parts["window-number"]) parts["window-number"].value = index;
    parts["window-number"].max = last;
    write(parts["window-text"], `of 0\u2013${last}`);
    parts.previous.disabled = index === 0;
    parts.next.disabled = index === last;
    for (const choice of this.polarities) choice.setAttribute("aria-pressed", choice.value === model.get("polarity"));
    parts.contrast.value = Math.log(limit / this.window.largest) / Math.log(0.1 / this.window.largest);
    write(parts["limit-text"], `\u00b1${decimal(limit)}`);
  }

  /** The colour limit at the contrast slider's position: the largest value at 0, a tenth of an event at 1. */
  chosenLimit() {
    const at = this.parts.contrast.valueAsNumber;
    return Number((this.window.largest ** (1 - at) * 0.1 ** at).toPrecision(2));
  }

  drawScale(limit) {
    const labels = this.tickLabels(limit).map((label) => `<span>${label}</span>`);
    write(this.parts.ticks, labels.join(""));
  }

  /** The colour bar's labels from the top; the ends say when stronger cells share their colour. */
  tickLabels(limit) {
    const clipped = this.window.largest > limit;
    const [full, half] = [limit, limit / 2].map(decimal);
    return [
      `${clipped ? "\u2265 " : ""}+${full}`,
      `+${half}`,
      "0",
      MINUS + half,
      (clipped ? "\u2264 " : "") + MINUS + full,
    ];
  }

  binLabel() {
    const binMs = this.model.get("window_us") / this.window.bins / 1000;
    const [from, to] = [this.bin, this.bin + 1].map((edge) => (edge * binMs).toFixed(1));
    return `bin ${this.bin} of 0\u2013${this.window.bins - 1}, ${from}\u2013${to} ms`;
  }

  extent() {
    const [x0, y0, x1, y1] = this.view.map((edge, i) => (i < 2 ? Math.floor(edge) : Math.ceil(edge) - 1));
    const zoom = this.window.width / (this.view[2] - this.view[0]);
    if (zoom === 1) return `${this.window.width} \u00d7 ${this.window.height} pixels`;
    return `x ${x0}\u2013${x1}, y ${y0}\u2013${y1}, zoom ${zoom.toFixed(1)}\u00d7`;
  }

  placeMarkers() {
    for (const { frame, hovered, chosen } of this.panels) {
      this.mark(frame, hovered, this.hover);
      this.mark(frame, chosen, this.model.get("pixel"));
    }
  }

  /** Outlines a cell in a panel, at least 9 CSS pixels wide so that it can be found. */
  mark(frame, marker, cell) {
    marker.hidden = !inside(cell, this.view);
    if (marker.hidden) return;
    const [x0, y0, x1] = this.view;
    const scale = frame.clientWidth / (x1 - x0);
    const size = Math.max(9, scale + 2);
    const place = (at, origin) => `${(at + 0.5 - origin) * scale - size / 2}px`;
    Object.assign(marker.style, { width: `${size}px`, height: `${size}px` });
    Object.assign(marker.style, { left: place(cell[0], x0), top: place(cell[1], y0) });
  }

  valueAt({ values }, bin, [x, y]) {
    return values[(bin * this.window.height + y) * this.window.width + x];
  }

  drawReadout() {
    if (!this.hover.length) return write(this.parts.readout, HINT);
    const [x, y] = this.hover;
    const values = this.window.panels.map((panel) => {
      return `<span>${panel.title} <b>${signed(this.valueAt(panel, this.bin, this.hover))}</b></span>`;
    });
    write(this.parts.readout, `<span>bin ${this.bin}, x ${x}, y ${y}</span>${values.join("")}`);
  }

  drawCourse() {
    const pixel = this.model.get("pixel");
    const { width, height, panels, bins } = this.window;
    this.parts.course.hidden = !inside(pixel, [0, 0, width, height]);
    if (this.parts.course.hidden) return;
    const bin = (panel) => Array.from({ length: bins }, (_, i) => this.valueAt(panel, i, pixel));
    const series = panels.map((panel) => ({ title: panel.title, values: bin(panel) }));
    const key = ({ title }) => `<span class="key" style="--colour: ${SERIES[title]}">${title}</span>`;
    write(this.parts.pixel, `Pixel x ${pixel[0]}, y ${pixel[1]}`);
    write(this.parts.legend, series.map(key).join(""));
    write(this.parts.plot, barPlot(series, this.bin, this.model.get("window_us") / 1000));
  }

  // -- the user's hands --

  listen() {
    const { parts } = this;
    parts.play.onclick = this.keys[" "];
    parts.bins.oninput = () => this.set({ bin_index: parts.bins.valueAsNumber });
    parts.previous.onclick = this.keys.PageUp;
    parts.next.onclick = this.keys.PageDown;
    parts["window-number"].onchange = (event) => this.showWindow(event.target.valueAsNumber);
    for (const choice of this.polarities) choice.onclick = () => this.set({ polarity: choice.value });
    parts.contrast.oninput = () => this.set({ limit: this.chosenLimit() });
    parts.reset.onclick = this.keys[0];
    parts.save.onclick = () => this.save();
    parts.close.onclick = () => this.set({ pixel: [] });
    this.root.addEventListener("keydown", (event) => this.onKey(event));
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

  /** Keeps every key from JupyterLab, and acts on those that the focused control does not use itself. */
  onKey(event) {
    event.stopPropagation();
    const action = this.keys[event.key];
    if (!action || !this.window || usesKey(event.target, event.key) || event.ctrlKey || event.metaKey || event.altKey)
      return;
    event.preventDefault();
    action();
  }

  keys = {
    ArrowLeft: () => this.set({ bin_index: Math.max(0, this.bin - 1) }),
    ArrowRight: () => this.set({ bin_index: Math.min(this.window.bins - 1, this.bin + 1) }),
    PageUp: () => this.showWindow(this.model.get("index") - 1),
    PageDown: () => this.showWindow(this.model.get("index") + 1),
    " ": () => this.set({ playing: !this.model.get("playing") }),
    "+": () => this.zoom(1 / 1.5),
    "-": () => this.zoom(1.5),
    0: () => this.set({ view: [] }),
  };

  showWindow(index) {
    if (Number.isInteger(index)) this.set({ index: clamp(index, 0, this.model.get("num_windows") - 1) });
  }

  // -- export --

  save() {
    if (!this.window) return;
    this.picture().toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `voxel_window${this.window.index}_bin${this.bin}.png`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  /** The panels with their titles and the colour bar, side by side on white, as a canvas. */
  picture() {
    const { width, height } = this.panels[0].canvas;
    const unit = devicePixelRatio;
    const [margin, top] = [14 * unit, 50 * unit];
    const left = (i) => margin + i * (width + margin);
    const context = blank(left(this.panels.length) + 110 * unit, top + height + margin);
    context.font = `${12 * unit}px sans-serif`;
    context.fillText(`Window ${this.window.index}, ${this.binLabel()}; ${this.extent()}`, margin, 18 * unit);
    this.panels.forEach(({ title, canvas }, i) => {
      context.fillText(title, left(i), 42 * unit);
      context.drawImage(canvas, left(i), top);
      context.strokeRect(left(i), top, width, height);
    });
    this.pictureScale(context, left(this.panels.length), top, height, unit);
    return context.canvas;
  }

  pictureScale(context, left, top, height, unit) {
    context.fillText("events per cell", left, top - 8 * unit);
    this.tickLabels(this.model.get("limit")).forEach((label, i) => {
      context.fillText(label, left + 20 * unit, top + 9 * unit + (i / 4) * (height - 9 * unit));
    });
    const palette = this.model.get("palette");
    const gradient = context.createLinearGradient(0, top + height, 0, top);
    palette.forEach((colour, i) => gradient.addColorStop(i / (palette.length - 1), colour));
    context.fillStyle = gradient;
    context.fillRect(left, top, 14 * unit, height);
  }
}

function usesKey(control, key) {
  if (control.matches("button")) return key === " ";
  if (control.matches(".contrast")) return key.startsWith("Arrow") || key.startsWith("Page");
  return control.matches(".window-number");
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

/** Bars of each series for every bin, as SVG text: milliseconds below, events per cell at the left, the bin shaded. */
function barPlot(series, bin, windowMs) {
  const [width, height, left, right, top, bottom] = [620, 172, 64, 12, 10, 38];
  const bins = series[0].values.length;
  const most = Math.ceil(Math.max(1, ...series.flatMap(({ values }) => values.map(Math.abs))));
  const x = (at) => left + (at * (width - left - right)) / bins;
  const y = (value) => top + ((most - value) / (2 * most)) * (height - top - bottom);
  const level = (value) => `
    <line x1="${left}" x2="${width - right}" y1="${y(value)}" y2="${y(value)}" class="${value ? "rule" : "zero"}"/>
    <text x="${left - 8}" y="${y(value) + 4}" text-anchor="end">${signed(value)}</text>`;
  const edge = (_, i) =>
    `<text x="${x(i)}" y="${height - 20}" text-anchor="middle">${decimal((i * windowMs) / bins)}</text>`;
  return `
    <svg viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Time course">
      <rect class="current" x="${x(bin)}" y="${top}" width="${x(1) - x(0)}" height="${y(-most) - top}"/>
      ${[most, 0, -most].map(level).join("")}
      ${Array.from({ length: bins + 1 }, edge).join("")}
      <text x="${x(bins / 2)}" y="${height - 4}" text-anchor="middle">time in the window, ms</text>
      <text transform="translate(13 ${y(0)}) rotate(-90)" text-anchor="middle">events per cell</text>
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
