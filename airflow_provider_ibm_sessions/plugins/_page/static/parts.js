// SPDX-License-Identifier: Apache-2.0
// The page's building blocks, in Airflow's colours: its variables follow dark mode and themes.

import { jobKind } from "./numbers.js";

const { createElement, useEffect, useRef, useState } = globalThis.React;
const { Link } = globalThis.ReactRouterDOM;

/** React's createElement, with the page's classes behind the name: h("span.small.muted"). */
export function h(type, props, ...children) {
  if (typeof type !== "string" || !type.includes(".")) return createElement(type, props, ...children);
  const [name, ...classes] = type.split(".");
  return createElement(name, { ...props, className: classes.map((each) => `ibmq-${each}`).join(" ") }, ...children);
}

const STYLES = new URL("page.css", import.meta.url).href;

const color = (name, fallback) => `var(--chakra-colors-${name}, ${fallback})`;

export const COLORS = {
  open: color("queued-solid", "#78716c"),
  active: color("running-solid", "#06b6d4"),
  inactive: color("deferred-solid", "#a855f7"),
  closed: color("success-solid", "#16a34a"),
  done: color("success-solid", "#16a34a"),
  failed: color("failed-solid", "#dc2626"),
  queued: color("queued-solid", "#78716c"),
  running: color("running-solid", "#06b6d4"),
  before: color("fg-muted", "#666"),
};

export const stateColor = (state) => COLORS[state] || COLORS.queued;
export const jobColor = (state) => COLORS[jobKind(state)];

/** A time as "2026-11-27 14:54:32", in the time zone that is chosen in Airflow's UI, or else the browser's. */
export function date(at) {
  const format = (timeZone) => new Date(at * 1000).toLocaleString("sv", { dateStyle: "short", timeStyle: "medium", timeZone });
  try {
    return format(JSON.parse(localStorage.getItem("timezone")) || undefined);
  } catch {
    return format();
  }
}

export const clock = (at) => date(at).slice(11);

export const Frame = ({ children, label }) =>
  h("section", { className: "ibmq", "aria-label": label || "IBM Quantum" },
    h("link", { rel: "stylesheet", href: STYLES }), children);

export const Card = ({ title, value, note, burning }) =>
  h("dl", { className: `ibmq-card${burning ? " ibmq-burning" : ""}` },
    h("dt", null, title), h("dd", null, value, h("small", null, note || " ")));

export const Badge = ({ text, fill }) =>
  h("span.badge", null, h("i", { style: { background: fill }, "aria-hidden": true }), text);

export const JobBadge = ({ state }) => h(Badge, { text: state || "?", fill: jobColor(state) });

export const Note = ({ kind, children }) =>
  children ? h("div", { className: `ibmq-note ${kind ? `ibmq-${kind}` : ""}`, role: "status" }, children) : null;

export const DASH = h("span.muted", null, "–");
export const Quiet = ({ children }) => h("p.muted", null, children);
export const Small = ({ children }) => h("div.small.muted", null, children);

export const Waiting = ({ error, text }) => (error ? h(Note, { kind: "bad" }, error) : h(Quiet, null, text));

export const To = ({ to, label, children }) => h(Link, { to, className: "ibmq-link", "aria-label": label }, children);

export const Out = ({ href, children }) =>
  h("a", { href, className: "ibmq-link", target: "_blank", rel: "noopener noreferrer" }, children);

export const Button = ({ kind, ...props }) =>
  h("button", { type: "button", className: `ibmq-button${kind ? ` ibmq-${kind}` : ""}`, ...props });

/** A menu; options are values, or [value, text]. */
export const Select = ({ label, value, options, onChange }) =>
  h("select", { value, "aria-label": label, onChange: (event) => onChange(event.target.value) },
    options.map((option) => [option].flat()).map(([key, text]) => h("option", { key, value: key }, text || key)));

export const Facts = ({ rows }) =>
  h("dl.facts", null,
    rows.filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))));

export function Meter({ value, most, label }) {
  if (!(most > 0) || value === null) return null;
  const share = Math.min(value / most, 1);
  return h("span.meter", {
    role: "meter", "aria-label": label,
    "aria-valuemin": 0, "aria-valuemax": Math.round(most), "aria-valuenow": Math.round(value),
  }, h("i", { className: share > 0.8 ? "ibmq-high" : "", style: { width: `${share * 100}%` } }));
}

export const Legend = ({ items }) =>
  h("div.legend", null,
    items.map(([name, fill]) => h("span", { key: name }, h("i", { style: { background: fill } }), name)));

/** Tabs, of which the arrow keys choose the one beside. */
export function Tabs({ tabs, chosen, onChoose }) {
  const move = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0;
    const next = tabs.findIndex(([key]) => key === chosen) + step;
    if (!step || !tabs[next]) return;
    onChoose(tabs[next][0]);
    event.currentTarget.children[next].focus();
  };
  return h("div.tabs", { role: "tablist", onKeyDown: move }, tabs.map(([key, text]) => h("button", {
    key, type: "button", role: "tab", "aria-selected": key === chosen, tabIndex: key === chosen ? 0 : -1, onClick: () => onChoose(key),
  }, text)));
}

/** What is drawn for its width in pixels, at most so many, and again when that changes: texts keep their size. */
export function Sized({ most, draw }) {
  const element = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return h("div", { ref: element }, width > 0 && draw(Math.min(width, most)));
}

/** A table; the names in right are those of columns of numbers. */
export const Table = ({ names, right = [], children }) =>
  h("div.scroll", null, h("table", null,
    h("thead", null, h("tr", null, names.map((name, index) =>
      h("th", { key: index, className: right.includes(name) ? "ibmq-num" : "", scope: "col" }, name)))),
    h("tbody", null, children)));

export const Num = (props) => h("td.num", { ...props });

/** A modal dialog of the browser's own: it keeps the focus, gives it back, and Escape closes it. */
export function Dialog({ title, onClose, isOver, children }) {
  const element = useRef(null);
  const over = useRef();
  over.current = isOver;
  useEffect(() => {
    const opener = document.activeElement;
    element.current.showModal();
    // The button of what is over disappears, with its row.
    return () => (over.current ? document.querySelector(".ibmq [aria-selected=true]") : opener).focus();
  }, []);
  return h("dialog", { ref: element, className: "ibmq-dialog", "aria-label": title, onClose },
    h("h2", null, title), children);
}
