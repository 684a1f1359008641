"use strict";
// A run's report, or several runs beside each other, renewed part by part. Charts that somebody zoomed stay zoomed.
// Uses report.js: `charts`, `Chart`.

const POLL_MILLISECONDS = 2000;
const sections = new Map(); // name of a part -> HTML of a section, with places for its charts
const figures = new Map(); // name of a part -> a chart's <figure>
let version = "";

function built(markup) {
  const holder = document.createElement("template");
  holder.innerHTML = markup; // the server's own: whatever a run's files hold is escaped in it
  return holder.content.firstElementChild;
}

// A new figure in the old one's place; and the step that was pointed at.
function renewFigure(name, markup) {
  const figure = built(markup), old = figures.get(name);
  figures.set(name, figure);
  if (old?.isConnected) old.replaceWith(figure);
  const chart = new Chart(figure);
  const at = charts.findIndex((one) => one.figure === old);
  const pointedAt = charts[at]?.at;
  if (at >= 0) charts[at] = chart; else charts.push(chart);
  return [chart, pointedAt];
}

// Where the keyboard is among the charts: to be called before they are renewed or moved, and what it returns after.
function keepFocus() {
  const reached = (figure) => [...figure.querySelectorAll("[tabindex], button")];
  const [name, figure] = [...figures].find(([, one]) => one.contains(document.activeElement)) ?? [];
  const at = figure ? reached(figure).indexOf(document.activeElement) : -1;
  return () => { if (figures.has(name)) reached(figures.get(name))[at]?.focus({ preventScroll: true }); };
}

function dropFigure(name) {
  const at = charts.findIndex((one) => one.figure === figures.get(name));
  if (at >= 0) charts.splice(at, 1);
  figures.delete(name);
}

function renewSection(name, markup) {
  const section = built(markup), old = sections.get(name);
  for (const place of section.querySelectorAll("figure[data-part]")) {
    const figure = figures.get(place.dataset.part);
    if (figure) place.replaceWith(figure);
  }
  if (old) {
    const folded = (inside) => [...inside.querySelectorAll("details")];
    const opened = new Map(folded(old).map((one) => [one.firstElementChild.textContent, one.open]));
    for (const one of folded(section)) one.open = opened.get(one.firstElementChild.textContent) ?? one.open;
    const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    old.replaceWith(section);
    section.querySelectorAll(".scroll").forEach((one, i) => { one.scrollLeft = scrolled[i] ?? 0; });
  }
  sections.set(name, section);
}

// Sections stand in the order of the report; links to them are in the bar above.
function arrange(order) {
  const main = document.querySelector("main");
  const wanted = order.filter((name) => name.startsWith("section ")).map((name) => sections.get(name));
  if (wanted.some((section, i) => section !== main.children[i]) || wanted.length !== main.children.length) main.replaceChildren(...wanted);
  const header = sections.get("header");
  if (header && !header.isConnected) document.querySelector("nav").before(header);
  const links = wanted.filter((section) => section.querySelector("h2"));
  const nav = document.querySelector("nav");
  const targets = links.map((section) => section.id).join(" ");
  if (nav.dataset.targets === targets) return;
  nav.dataset.targets = targets;
  nav.hidden = !links.length;
  nav.replaceChildren(...links.map((section) => {
    const link = document.createElement("a");
    link.href = "#" + section.id;
    link.textContent = section.querySelector("h2").textContent;
    return link;
  }));
}

function take(news) {
  if (news.whole) {
    for (const name of [...figures.keys()]) if (!(name in news.items)) dropFigure(name);
    for (const name of [...sections.keys()]) if (!(name in news.items)) { sections.get(name).remove(); sections.delete(name); }
  }
  for (const name of news.gone) {
    if (figures.has(name)) dropFigure(name);
    sections.get(name)?.remove();
    sections.delete(name);
  }
  const zoomed = new Map(charts.filter((chart) => chart.x !== chart.data.x).map((chart) => [chart.group, chart.x]));
  const fresh = [], focusAgain = keepFocus();
  for (const [name, markup] of Object.entries(news.items)) if (name.startsWith("chart ")) fresh.push(renewFigure(name, markup));
  for (const [name, markup] of Object.entries(news.items)) if (!name.startsWith("chart ")) renewSection(name, markup);
  arrange(news.order);
  focusAgain();
  for (const [chart, pointedAt] of fresh) {
    if (zoomed.has(chart.group)) chart.zoom(zoomed.get(chart.group));
    if (pointedAt !== undefined) chart.point(pointedAt);
  }
  version = news.version;
}

function tell(said, isTrouble) {
  const told = document.querySelector("#told");
  told.textContent = said;
  told.classList.toggle("trouble", isTrouble);
}

async function renew() {
  const query = new URLSearchParams(location.search);
  query.set("since", version);
  const response = await fetch("/api/run?" + query).catch(() => null);
  if (response?.status === 404) return tell("The run's folder is gone; this is what was seen of it last.", true);
  if (!response?.ok) return tell("The board's server does not answer; trying again.", true);
  const news = await response.json();
  const isNew = news.whole || news.gone.length > 0 || Object.keys(news.items).length > 0;
  if (isNew) take(news);
  if (isNew || document.querySelector("#told.trouble")) tell("renewed at " + new Date().toLocaleTimeString(), false);
}

async function poll() {
  const isDragging = charts.some((chart) => chart.from !== undefined); // news would take the chart from the hand
  try {
    if (!isDragging) await renew();
  } finally {
    setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", poll, { once: true }) : poll()), POLL_MILLISECONDS);
  }
}

document.querySelector(".top a").href = "/" + (sessionStorage.getItem("board") ?? "");
poll();
