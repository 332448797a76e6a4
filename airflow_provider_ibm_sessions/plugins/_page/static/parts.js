// SPDX-License-Identifier: Apache-2.0
// The page's building blocks, in Airflow's colours: its variables follow dark mode and themes.

import { jobKind } from "./numbers.js";

const { createElement, useEffect, useRef } = globalThis.React;
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
};

export const stateColor = (state) => COLORS[state] || COLORS.queued;
export const jobColor = (state) => COLORS[jobKind(state)];

export const Frame = ({ children, label }) =>
  h("section", { className: "ibmq", "aria-label": label || "IBM Quantum" },
    h("link", { rel: "stylesheet", href: STYLES }), children);

export const Card = ({ title, value, note, burning }) =>
  h("dl", { className: `ibmq-card${burning ? " ibmq-burning" : ""}` },
    h("dt", null, title), h("dd", null, value, h("small", null, note || " ")));

export const Badge = ({ text, fill }) =>
  h("span.badge", null, h("i", { style: { background: fill }, "aria-hidden": true }), text);

export const Note = ({ kind, children }) =>
  children ? h("div", { className: `ibmq-note ${kind ? `ibmq-${kind}` : ""}`, role: "status" }, children) : null;

export const DASH = h("span.muted", null, "–");
export const Quiet = ({ children }) => h("p.muted", null, children);
export const Small = ({ children }) => h("div.small.muted", null, children);

export const Waiting = ({ error, text }) => (error ? h(Note, { kind: "bad" }, error) : h(Quiet, null, text));

export const To = ({ to, children, title }) => h(Link, { to, className: "ibmq-link", title }, children);

export const Out = ({ href, children }) =>
  h("a", { href, className: "ibmq-link", target: "_blank", rel: "noopener noreferrer" }, children);

export const Button = ({ kind, ...props }) =>
  h("button", { type: "button", className: `ibmq-button${kind ? ` ibmq-${kind}` : ""}`, ...props });

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

export const Tabs = ({ tabs, chosen, onChoose }) =>
  h("div.tabs", { role: "tablist" }, tabs.map(([key, text]) =>
    h("button", { key, type: "button", role: "tab", "aria-selected": key === chosen, onClick: () => onChoose(key) }, text)));

/** A table; the names in right are those of columns of numbers. */
export const Table = ({ names, right = [], children }) =>
  h("div.scroll", null, h("table", null,
    h("thead", null, h("tr", null, names.map((name, index) =>
      h("th", { key: index, className: right.includes(name) ? "ibmq-num" : "", scope: "col" }, name)))),
    h("tbody", null, children)));

export const Num = (props) => h("td.num", { ...props });

/** A modal dialog of the browser's own: it keeps the focus, and Escape closes it. */
export function Dialog({ title, onClose, children }) {
  const element = useRef(null);
  useEffect(() => element.current.showModal(), []);
  return h("dialog", { ref: element, className: "ibmq-dialog", "aria-label": title, onClose },
    h("h2", null, title), children);
}
