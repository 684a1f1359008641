"use strict";
// Hover, zoom and keyboard for the charts. The page is complete without it: curves.py draws lines, ticks and labels.
// Charts with the same data-group share the range of steps shown and the step pointed at.

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
    this.listen();
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
      if (high - low > (this.x[1] - this.x[0]) / 50) zoom(this.group, [low, high]);
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
    return this.x[0] + share * (this.x[1] - this.x[0]);
  }

  left(step) {
    const box = this.svg.getBoundingClientRect();
    const inset = box.left - this.plot.getBoundingClientRect().left;
    return inset + box.width * (step - this.x[0]) / (this.x[1] - this.x[0]);
  }

  showBrush(from, to) {
    this.brush.hidden = false;
    this.brush.style.left = this.left(Math.min(from, to)) + "px";
    this.brush.style.width = Math.abs(this.left(to) - this.left(from)) + "px";
  }

  point(step) {
    this.at = step;
    this.cross.hidden = this.tip.hidden = step === null || step < this.x[0] || step > this.x[1];
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
      element("em", "", row).textContent = long(line.y[i]);
    }
    title.textContent = "step " + shown.toLocaleString("en");
    const left = this.left(Math.min(this.x[1], Math.max(this.x[0], shown)));
    this.cross.style.left = left + "px";
    const beside = left + 14 + this.tip.offsetWidth <= this.plot.clientWidth;
    this.tip.style.left = Math.max(0, beside ? left + 14 : left - 14 - this.tip.offsetWidth) + "px";
  }

  zoom(range) {
    this.x = range ?? this.data.x;
    this.y = range ? this.heights(range) : this.data.y;
    this.button.hidden = !range;
    const across = (step) => UNITS * (step - this.data.x[0]) / (this.data.x[1] - this.data.x[0]);
    const down = (value) => UNITS * (this.data.y[1] - value) / (this.data.y[1] - this.data.y[0]);
    const box = [across(this.x[0]), down(this.y[1]), across(this.x[1]) - across(this.x[0]), down(this.y[0]) - down(this.y[1])];
    this.svg.setAttribute("viewBox", box.join(" "));
    this.labels(".x", this.x, "left");
    this.labels(".y", this.y, "bottom");
    const grid = this.svg.querySelector(".grid");
    grid.replaceChildren(...ticks(...this.y).map((value) => {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      for (const [key, at] of [["x1", 0], ["x2", UNITS], ["y1", down(value)], ["y2", down(value)]]) line.setAttribute(key, at);
      return line;
    }));
  }

  // The range of values within a range of steps, the points just outside included, with a margin.
  heights([low, high]) {
    const seen = [];
    for (const line of this.data.series)
      line.x.forEach((step, i) => {
        if ((line.x[i + 1] ?? step) >= low && (line.x[i - 1] ?? step) <= high) seen.push(line.y[i]);
      });
    const bottom = Math.min(...seen), top = Math.max(...seen);
    const margin = 0.06 * (top - bottom) || Math.abs(top) / 2 || 0.5;
    return seen.length ? [bottom - margin, top + margin] : this.data.y;
  }

  labels(selector, [low, high], side) {
    const holder = this.plot.querySelector(selector);
    holder.replaceChildren();
    for (const value of ticks(low, high)) {
      const label = element("span", "", holder);
      label.textContent = short(value);
      label.style[side] = 100 * (value - low) / (high - low) + "%";
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
