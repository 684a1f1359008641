"use strict";
// The table of runs. What is searched for, filtered, sorted by and ticked lives in the address, so it can be shared.

const POLL_MILLISECONDS = 2000;
const AT_ONCE = 200;
const MOST_COMPARED = 12;

const dash = "–";
const whole = (value) => (value === null ? dash : value.toLocaleString("en"));
const four = (value) => (value === null ? dash : value.toLocaleString("en", { minimumSignificantDigits: 4, maximumSignificantDigits: 4 }));
const column = (key, label, show, extra = {}) => ({ key, label, show, value: (row) => row[key], ...extra });
const COLUMNS = [
  column("name", "run", null),
  column("kind", "kind", (row) => row.task || row.kind || dash, { value: (row) => row.task || row.kind }),
  column("state", "state", null),
  column("step", "step", (row) => whole(row.step) + (row.total && row.state !== "done" ? " of " + whole(row.total) : ""), { number: true }),
  column("loss", "loss", (row) => four(row.loss), { number: true }),
  column("score", "best score", null, { number: true }),
  column("seconds", "time", (row) => duration(row.seconds), { number: true }),
  column("changed", "when", null, { number: true }),
];
const COMPARED = { step: "step", loss: "loss", score: "score", seconds: "seconds", hours: "seconds" };

const rows = new Map(); // name -> what the server says of it
const lines = new Map(); // name -> its <tr>
let version = "";
let shown = AT_ONCE;
const wanted = { q: "", state: [], kind: [], sort: "-changed", tick: [] };

function readAddress() {
  const query = new URLSearchParams(location.search);
  wanted.q = query.get("q") ?? "";
  for (const key of ["state", "kind", "tick"]) wanted[key] = query.getAll(key);
  wanted.sort = query.get("sort") ?? "-changed";
}

function writeAddress() {
  const query = new URLSearchParams();
  if (wanted.q) query.set("q", wanted.q);
  for (const key of ["state", "kind", "tick"]) for (const value of wanted[key]) query.append(key, value);
  if (wanted.sort !== "-changed") query.set("sort", wanted.sort);
  const written = query.toString();
  history.replaceState(null, "", written ? "?" + written : location.pathname);
  sessionStorage.setItem("board", location.search); // the way back from a run leads here
}

function duration(seconds) {
  if (seconds === null) return dash;
  const all = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
  return all < 10 ? seconds.toFixed(1) + " s" : Math.floor(all / 3600) + ":" + two(Math.floor(all / 60) % 60) + ":" + two(all % 60);
}

function ago(changed) {
  const seconds = Math.max(0, Date.now() / 1000 - changed);
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= size) return Math.floor(seconds / size) + " " + name + " ago";
  return "now";
}

// Every word must be found; `step>1000` and the like compare.
function matches(row, text) {
  const said = [row.name, row.kind, row.task, row.state, row.metric].join(" ").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => {
    const parts = /^(step|loss|score|seconds|hours)(<=|>=|<|>)(-?[\d.]+(?:e-?\d+)?)$/.exec(word);
    if (!parts) return said.includes(word);
    if (parts[1] === "score" && row.kind === "pretrain") return false; // its best is a loss
    const value = row[COMPARED[parts[1]]], limit = Number(parts[3]) * (parts[1] === "hours" ? 3600 : 1);
    if (value === null || Number.isNaN(limit)) return false;
    return { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit }[parts[2]];
  });
}

const kindOf = (row) => row.task || row.kind || "unknown";

const byName = new Intl.Collator("en", { numeric: true }).compare; // run-9 before run-10

function ordered(found) {
  const down = wanted.sort.startsWith("-"), key = wanted.sort.replace("-", "");
  const { value } = COLUMNS.find((one) => one.key === key) ?? COLUMNS[7];
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last, either way
    const sign = typeof x === "string" ? byName(x, y) : x - y;
    return (down ? -sign : sign) || byName(a.name, b.name);
  };
  return found.sort(compare);
}

function element(name, className, parent, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function newLine(name) {
  const line = element("tr");
  line.dataset.run = name;
  const tick = element("input", "", element("td", "tick", line));
  tick.type = "checkbox";
  tick.setAttribute("aria-label", "compare " + name);
  tick.addEventListener("change", () => {
    wanted.tick = wanted.tick.filter((one) => one !== name);
    if (tick.checked) wanted.tick.push(name);
    changed();
  });
  for (const one of COLUMNS) element("td", one.key + (one.number ? " n" : ""), line);
  const link = element("a", "", line.querySelector(".name"), name);
  link.href = "/run?" + new URLSearchParams({ run: name });
  line.querySelector(".name").append(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
  const state = line.querySelector(".state");
  element("b", "", state);
  element("small", "", element("span", "progress", state)).hidden = true;
  element("span", "", line.querySelector(".score"));
  element("small", "under", line.querySelector(".score"));
  return line;
}

function fill(line, row) {
  line.querySelector(".tick input").checked = wanted.tick.includes(row.name);
  for (const one of COLUMNS) if (one.show) setText(line.querySelector("td." + one.key), one.show(row));
  const state = line.querySelector("td.state");
  state.className = "state " + row.state;
  state.title = [row.said, row.broken ? `${whole(row.broken)} lines of its log cannot be read` : ""].filter(Boolean).join("; ");
  setText(state.querySelector("b"), row.state + (row.state === "killed" ? "?" : ""));
  const progress = state.querySelector(".progress");
  progress.hidden = !(row.total && row.state === "running");
  progress.firstChild.hidden = false;
  progress.firstChild.style.width = Math.min(100, (100 * row.step) / (row.total || 1)) + "%";
  const [score, metric] = line.querySelector("td.score").children;
  setText(score, four(row.score));
  setText(metric, row.score === null ? "" : row.metric);
  const when = line.querySelector("td.changed");
  setText(when, ago(row.changed));
  when.title = new Date(1000 * row.changed).toLocaleString();
  draw(line.querySelector("svg"), row.curve);
}

// The loss so far, in the row: no axes, the shape alone.
function draw(svg, curve) {
  const key = curve.join(" ");
  if (svg.dataset.key === key) return;
  svg.dataset.key = key;
  svg.replaceChildren();
  if (curve.length < 2) return;
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const low = Math.min(...curve), high = Math.max(...curve);
  const points = curve.map((y, i) => [(100 * i) / (curve.length - 1), high > low ? 96 - (92 * (y - low)) / (high - low) : 50]);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M" + points.map((point) => point.map((at) => at.toFixed(1)).join(" ")).join("L"));
  svg.append(path);
}

function showHead() {
  const head = document.querySelector("#runs thead");
  if (!head.children.length) {
    const line = element("tr", "", head);
    element("th", "tick", line).setAttribute("aria-label", "compare");
    for (const one of COLUMNS) {
      const cell = element("th", one.key + (one.number ? " n" : ""), line);
      cell.scope = "col";
      const button = element("button", "", cell, one.label);
      button.type = "button";
      button.addEventListener("click", () => {
        const first = one.number ? "-" + one.key : one.key, second = one.number ? one.key : "-" + one.key;
        wanted.sort = wanted.sort === first ? second : first;
        changed();
      });
    }
  }
  COLUMNS.forEach((one, i) => {
    const key = wanted.sort.replace("-", "");
    head.querySelectorAll("th")[i + 1].ariaSort = key !== one.key ? "none" : wanted.sort.startsWith("-") ? "descending" : "ascending";
  });
}

// Buttons that let states or kinds through, with how many runs they would show.
function showFilters(searched) {
  const holder = document.querySelector("#filters");
  const groups = [["state", (row) => row.state], ["kind", kindOf]];
  for (const [key, of] of groups) {
    const counts = new Map(wanted[key].map((value) => [value, 0]));
    for (const row of searched) counts.set(of(row), (counts.get(of(row)) ?? 0) + 1);
    const names = [...counts.keys()].sort();
    let group = holder.querySelector("." + key);
    if (group?.dataset.names !== names.join("\n")) {
      const fresh = element("span", key);
      fresh.dataset.names = names.join("\n");
      for (const name of names) {
        const button = element("button", name, fresh);
        button.type = "button";
        button.dataset.value = name;
        button.addEventListener("click", () => {
          wanted[key] = wanted[key].includes(name) ? wanted[key].filter((one) => one !== name) : [...wanted[key], name];
          changed();
        });
      }
      if (group) group.replaceWith(fresh); else holder.append(fresh);
      group = fresh;
    }
    for (const button of group.children) {
      setText(button, `${button.dataset.value} ${whole(counts.get(button.dataset.value))}`);
      button.ariaPressed = String(wanted[key].includes(button.dataset.value));
    }
  }
}

function showCompare() {
  wanted.tick = wanted.tick.filter((name) => !version || rows.has(name));
  const link = document.querySelector("#compare"), count = wanted.tick.length;
  const possible = count >= 2 && count <= MOST_COMPARED;
  if (possible) link.href = "/run?" + new URLSearchParams(wanted.tick.map((name) => ["run", name])); else link.removeAttribute("href");
  link.ariaDisabled = String(!possible);
  setText(link, count > MOST_COMPARED ? `Compare at most ${MOST_COMPARED}` : count < 2 ? "Tick two runs to compare" : `Compare ${count} runs`);
}

function show() {
  const searched = [...rows.values()].filter((row) => matches(row, wanted.q.trim()));
  const passes = (row) => (!wanted.state.length || wanted.state.includes(row.state)) && (!wanted.kind.length || wanted.kind.includes(kindOf(row)));
  const found = ordered(searched.filter(passes));
  const visible = found.slice(0, shown).map((row) => {
    if (!lines.has(row.name)) lines.set(row.name, newLine(row.name));
    fill(lines.get(row.name), row);
    return lines.get(row.name);
  });
  const body = document.querySelector("#runs tbody");
  if (visible.length !== body.children.length || visible.some((line, i) => line !== body.children[i])) {
    const focused = document.activeElement;
    body.replaceChildren(...visible);
    if (body.contains(focused)) focused.focus();
  }
  document.querySelector("#more").hidden = found.length <= shown;
  showHead();
  showFilters(searched);
  showCompare();
  return found.length;
}

function tell(found, unread) {
  const count = found === rows.size ? `${whole(found)} run${found === 1 ? "" : "s"}` : `${whole(found)} of ${whole(rows.size)} runs`;
  const reading = unread ? `, ${whole(unread)} more are being read` : "";
  const none = rows.size || unread ? "" : ": no folder with a metrics.jsonl is in here yet";
  setText(document.querySelector("#told"), count + reading + none);
  document.querySelector("#told").classList.remove("trouble");
}

let unread = 0;

function changed() {
  writeAddress();
  tell(show(), unread);
}

async function renew() {
  const response = await fetch("/api/runs?" + new URLSearchParams({ since: version })).catch(() => null);
  if (!response?.ok) {
    unread = 0;
    setText(document.querySelector("#told"), "The board's server does not answer; trying again.");
    document.querySelector("#told").classList.add("trouble");
    return;
  }
  const news = await response.json();
  if (news.whole) rows.clear();
  for (const name of news.gone) { rows.delete(name); lines.delete(name); }
  for (const [name, row] of Object.entries(news.items)) rows.set(name, row);
  ({ version, unread } = news);
  tell(show(), unread);
}

async function poll() {
  try {
    await renew();
  } finally {
    const again = () => (document.hidden ? document.addEventListener("visibilitychange", poll, { once: true }) : poll());
    setTimeout(again, unread ? 100 : POLL_MILLISECONDS);
  }
}

readAddress();
const search = document.querySelector("#search");
search.value = wanted.q;
search.addEventListener("input", () => { wanted.q = search.value; shown = AT_ONCE; changed(); });
document.querySelector("#more").addEventListener("click", () => { shown += AT_ONCE; changed(); });
window.addEventListener("popstate", () => { readAddress(); search.value = wanted.q; tell(show(), unread); });
showHead();
poll();
