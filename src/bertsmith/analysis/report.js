"use strict";
// Hover, zoom, smoothing, log axes and keyboard for the charts. The page is complete without it: curves.py draws lines,
// ticks and labels. Charts with the same data-group share the range of steps, the step pointed at, smoothing and log x.

const UNITS = 1000;

function short(value) {
  const size = Math.abs(value);
  for (const [limit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= limit) return +(value / limit).toPrecision(4) + letter;
  return size > 0 && size < 1e-3 ? (size > 1e-9 ? (+value.toPrecision(3)).toExponential() : "0") : String(+value.toPrecision(4));
}

function long(value) {
  const size = Math.abs(value);
  if (size > 0 && size < 1e-3) return value.toExponential(2);
  return value.toLocaleString("en", size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 });
}

function ticks(low, high, most = 6) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) found.push(i * step);
  return found;
}

// 1, 2 and 5 times powers of ten; where that is too few, round numbers, and where too many, powers of ten alone.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of [1, 2, 5]) found.push(+(factor * 10 ** power).toPrecision(3));
  const inside = found.filter((value) => value >= low && value <= high);
  if (inside.length < 3) return ticks(low, high);
  const powers = inside.filter((value) => Number.isInteger(+Math.log10(value).toFixed(9)));
  const stride = Math.ceil(powers.length / 8);
  return inside.length <= 8 ? inside : powers.filter((_, i) => i % stride === 0);
}

function element(name, className, parent) {
  const made = document.createElement(name);
  made.className = className;
  parent.append(made);
  return made;
}

// Index of the point whose step is nearest.
function nearest(steps, step) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1; else high = middle;
  }
  return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
}

// What a person chose, for all charts of a group: how many points on each side a smoothed point is the mean of, as a
// share of the line (null: as drawn at first), and whether steps are on a log axis.
const chosen = new Map();
const SMOOTHING = [[null, "smooth"], [0, "raw"], [1 / 40, "smoother"], [1 / 12, "smoothest"]];

function choices(group) {
  if (!chosen.has(group)) chosen.set(group, { smoothing: 0, logX: false, logY: new Set() });
  return chosen.get(group);
}

const straight = { to: (value) => value, from: (value) => value, ticks };
const logarithm = { to: (value) => Math.log10(value), from: (value) => 10 ** value, ticks: logTicks };

// The mean of the points around each, as far as the shorter side reaches; a gap stays a gap.
function smoothed(values, reach) {
  return values.map((value, i) => {
    if (value === null) return null;
    const side = Math.min(reach, i, values.length - 1 - i);
    const known = values.slice(i - side, i + side + 1).filter((one) => one !== null);
    return known.reduce((sum, one) => sum + one, 0) / known.length;
  });
}

class Chart {
  constructor(figure) {
    this.data = JSON.parse(figure.querySelector("script").textContent);
    this.figure = figure;
    this.group = figure.dataset.group;
    this.plot = figure.querySelector(".plot");
    this.svg = this.plot.querySelector("svg");
    this.x = this.data.x;
    this.y = this.data.y;
    this.cross = element("div", "cross", this.plot);
    this.brush = element("div", "brush", this.plot);
    this.tip = element("div", "tip", this.plot);
    this.button = element("button", "", this.plot);
    this.button.textContent = "show all";
    for (const part of [this.cross, this.brush, this.tip, this.button]) part.hidden = true;
    this.name = figure.querySelector("figcaption b").textContent;
    this.across = this.down = straight;
    this.addControls();
    this.listen();
    if (this.isChanged()) this.redraw();
  }

  addControls() {
    const holder = element("span", "controls screen", this.figure.querySelector("figcaption"));
    const button = (label, said, act) => {
      const made = element("button", "", holder);
      made.type = "button";
      made.textContent = label;
      made.title = said;
      made.addEventListener("click", () => { act(choices(this.group)); change(this.group); });
      return made;
    };
    this.controls = {};
    if (this.data.series.some((line) => line.style === "faint"))
      this.controls.smoothing = button("smooth", "How much lines are smoothed, in all charts here", (now) => {
        now.smoothing = (now.smoothing + 1) % SMOOTHING.length;
      });
    this.controls.logX = button("log x", "Steps on a logarithmic axis, in all charts here", (now) => { now.logX = !now.logX; });
    this.controls.logY = button("log y", "Values on a logarithmic axis; those of 0 and less are gaps", (now) => {
      if (!now.logY.delete(this.name)) now.logY.add(this.name);
    });
  }

  isChanged() {
    const now = choices(this.group);
    return now.smoothing > 0 || now.logX || now.logY.has(this.name);
  }

  // Lines, ticks and marks anew, by what was chosen.
  redraw() {
    const now = choices(this.group);
    const has = (key) => this.data.series.some((line) => line[key].some((value) => value > 0));
    this.across = now.logX && has("x") ? logarithm : straight;
    this.down = now.logY.has(this.name) && has("y") ? logarithm : straight;
    this.controls.logX.setAttribute("aria-pressed", this.across === logarithm);
    this.controls.logY.setAttribute("aria-pressed", this.down === logarithm);
    if (this.controls.smoothing) this.controls.smoothing.textContent = SMOOTHING[now.smoothing][1];
    const holder = this.svg.querySelector(".lines");
    holder.replaceChildren(...this.data.series.flatMap((line) => this.paths(line, SMOOTHING[now.smoothing][0])));
    this.zoom(this.x === this.data.x ? null : this.x);
  }

  paths(line, share) {
    if (line.style !== "faint") return this.drawn(line.x, line.y, line.colour, line.style);
    const raw = this.drawn(line.x, line.y, line.colour, share === 0 ? "line" : "faint");
    if (share === 0) return raw;
    const [x, y] = line.mx ? [line.mx, line.my] : [line.x, line.y];
    return [...raw, ...this.drawn(x, smoothed(y, Math.ceil(y.length * (share ?? 1 / 60))), line.colour, "line")];
  }

  drawn(xs, ys, colour, style) {
    const made = (kind, d) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", "c" + colour + " " + kind);
      path.setAttribute("d", d);
      return path;
    };
    const pieces = [[]];
    xs.forEach((x, i) => {
      const point = ys[i] === null ? [NaN] : [this.placeX(x), this.placeY(ys[i])];
      if (point.every(Number.isFinite)) pieces.at(-1).push(point.map((at) => at.toFixed(1)).join(" "));
      else pieces.push([]);
    });
    const dots = style === "dots" ? pieces.flat() : pieces.filter((piece) => piece.length === 1).flat();
    const line = pieces.filter((piece) => piece.length > 1).map((piece) => "M" + piece.join("L")).join("");
    return [made(style, line), ...(dots.length ? [made("dot", dots.map((point) => `M${point}h.01`).join(""))] : [])];
  }

  // Places in the SVG's own units, of which the whole range takes UNITS.
  placeX(step) { return UNITS * this.share(step, this.whole("x"), this.across); }
  placeY(value) { return UNITS * (1 - this.share(value, this.whole("y"), this.down)); }

  share(value, [low, high], axis) { return (axis.to(value) - axis.to(low)) / (axis.to(high) - axis.to(low)); }

  // The range of everything: on a log axis it begins at the least value above 0.
  whole(key) {
    const axis = key === "x" ? this.across : this.down;
    if (axis === straight) return this.data[key];
    const least = Math.min(...this.data.series.flatMap((line) => line[key].filter((value) => value > 0)));
    const top = Math.max(...this.data.series.flatMap((line) => line[key]));
    const margin = (top / least) ** 0.02;
    return top > least ? [least / margin, top * margin] : [least / 2, least * 2];
  }

  listen() {
    const plot = this.plot;
    plot.addEventListener("pointerdown", (event) => {
      if (event.target === this.button) return;
      this.from = this.stepAt(event);
      if (event.pointerType === "mouse") plot.setPointerCapture(event.pointerId);
    });
    plot.addEventListener("pointermove", (event) => {
      const step = this.stepAt(event);
      point(this.group, step);
      if (this.from !== undefined) this.showBrush(this.from, step);
    });
    plot.addEventListener("pointerup", (event) => {
      const to = this.stepAt(event), from = this.from;
      this.from = undefined;
      this.brush.hidden = true;
      const [low, high] = from < to ? [from, to] : [to, from];
      if (this.left(high) - this.left(low) > this.svg.clientWidth / 50) zoom(this.group, [low, high]);
      else point(this.group, to);
    });
    plot.addEventListener("pointercancel", () => { this.from = undefined; this.brush.hidden = true; });
    plot.addEventListener("pointerleave", () => { if (this.from === undefined) point(this.group, null); });
    plot.addEventListener("dblclick", () => zoom(this.group, null));
    plot.addEventListener("blur", () => point(this.group, null));
    plot.addEventListener("keydown", (event) => this.key(event));
    this.button.addEventListener("click", () => zoom(this.group, null));
  }

  key(event) {
    const steps = this.data.series.reduce((a, b) => (b.x.length > a.x.length ? b : a)).x;
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) {
      const at = this.at === undefined || this.at === null ? (move > 0 ? -1 : steps.length) : nearest(steps, this.at);
      point(this.group, steps[Math.min(steps.length - 1, Math.max(0, at + move))]);
      event.preventDefault();
    } else if (event.key === "Escape") zoom(this.group, null);
  }

  stepAt(event) {
    const box = this.svg.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const [low, high] = this.shown().map(this.across.to);
    return this.across.from(low + share * (high - low));
  }

  // The range of steps in sight.
  shown() { return this.x === this.data.x ? this.whole("x") : this.x; }

  left(step) {
    const box = this.svg.getBoundingClientRect();
    const inset = box.left - this.plot.getBoundingClientRect().left;
    return inset + box.width * this.share(step, this.shown(), this.across);
  }

  showBrush(from, to) {
    this.brush.hidden = false;
    this.brush.style.left = this.left(Math.min(from, to)) + "px";
    this.brush.style.width = Math.abs(this.left(to) - this.left(from)) + "px";
  }

  point(step) {
    this.at = step;
    this.cross.hidden = this.tip.hidden = step === null || step < this.shown()[0] || step > this.shown()[1];
    if (this.tip.hidden) return;
    this.tip.replaceChildren();
    const title = element("b", "", this.tip);
    let shown = null;
    for (const line of this.data.series) {
      const i = nearest(line.x, step);
      if (shown === null || Math.abs(line.x[i] - step) < Math.abs(shown - step)) shown = line.x[i];
      const row = element("div", "c" + line.colour, this.tip);
      element("i", "", row);
      row.append(line.name);
      element("em", "", row).textContent = line.y[i] === null ? "gap" : long(line.y[i]);
    }
    for (const [at, kind, said] of this.data.marks ?? [])
      if (Math.abs(this.left(at) - this.left(step)) < 4) element("div", "told " + kind, this.tip).textContent = said;
    title.textContent = "step " + shown.toLocaleString("en");
    const left = this.left(Math.min(this.shown()[1], Math.max(this.shown()[0], shown)));
    this.cross.style.left = left + "px";
    const beside = left + 14 + this.tip.offsetWidth <= this.plot.clientWidth;
    this.tip.style.left = Math.max(0, beside ? left + 14 : left - 14 - this.tip.offsetWidth) + "px";
  }

  zoom(range) {
    this.x = range ?? this.data.x;
    const x = this.shown(), y = range ? this.heights(range) : this.whole("y");
    this.y = y;
    this.button.hidden = !range;
    const box = [this.placeX(x[0]), this.placeY(y[1]), this.placeX(x[1]) - this.placeX(x[0]), this.placeY(y[0]) - this.placeY(y[1])];
    this.svg.setAttribute("viewBox", box.join(" "));
    this.labels(".x", x, "left", this.across);
    this.labels(".y", y, "bottom", this.down);
    this.plot.querySelectorAll(".marks span").forEach((mark, i) => {
      const at = this.share(this.data.marks[i][0], x, this.across);
      mark.hidden = !(at >= 0 && at <= 1);
      mark.style.left = 100 * at + "%";
    });
    const grid = this.svg.querySelector(".grid");
    grid.replaceChildren(...this.down.ticks(...y).map((value) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const across = [["x1", box[0]], ["x2", box[0] + box[2]], ["y1", this.placeY(value)], ["y2", this.placeY(value)]];
      for (const [key, at] of across) line.setAttribute(key, at);
      return line;
    }));
  }

  // The range of values within a range of steps, the points just outside included, with a margin.
  heights([low, high]) {
    const seen = [];
    for (const line of this.data.series)
      line.x.forEach((step, i) => {
        const isIn = (line.x[i + 1] ?? step) >= low && (line.x[i - 1] ?? step) <= high;
        if (isIn && line.y[i] !== null && Number.isFinite(this.down.to(line.y[i]))) seen.push(this.down.to(line.y[i]));
      });
    const bottom = Math.min(...seen), top = Math.max(...seen);
    const margin = 0.06 * (top - bottom) || Math.abs(top) / 2 || 0.5;
    return seen.length ? [bottom - margin, top + margin].map(this.down.from) : this.whole("y");
  }

  labels(selector, [low, high], side, axis) {
    const holder = this.plot.querySelector(selector);
    holder.replaceChildren();
    for (const value of axis.ticks(low, high)) {
      const label = element("span", "", holder);
      label.textContent = short(value);
      label.style[side] = 100 * this.share(value, [low, high], axis) + "%";
    }
  }
}

// board/live.js renews charts one by one: it puts new ones into `charts`, zoomed and pointed at as the old ones were.
const charts = [...document.querySelectorAll("figure.chart")].map((figure) => new Chart(figure));

function point(group, step) {
  for (const chart of charts) if (chart.group === group) chart.point(step);
}

function zoom(group, range) {
  for (const chart of charts) if (chart.group === group) { chart.zoom(range); chart.point(null); }
}

function change(group) {
  for (const chart of charts) if (chart.group === group) { chart.redraw(); chart.point(null); }
}
