// SPDX-License-Identifier: Apache-2.0
// Results of jobs: histograms of counts, expectation values, and the cost of the last runs.

import { amount, bars, bits, count, curve, duration, niceTicks, shareError } from "./numbers.js";
import { COLORS, Badge, Facts, Legend, Note, Quiet, Small, h, jobColor } from "./parts.js";

const { useState } = globalThis.React;

const BEFORE = h(Legend, { items: [["this run", COLORS.running], ["the run before", COLORS.queued]] });

/** The counts of one pub, joint over all registers unless one is chosen; the run before beside it. */
export function Histogram({ pub, before, title }) {
  const [register, setRegister] = useState("");
  const names = Object.keys(pub.registers || {});
  const choose = (each) => each && (register ? (each.registers || {})[register] : each.joint);
  const counts = choose(pub);
  const earlier = choose(before);
  if (!counts) return null;
  const rows = bars(counts, earlier);
  const most = Math.max(...rows.map((row) => Math.max(row.share, row.before || 0)));
  const isLong = rows.some((row) => row.label.length > 40 && !row.isRest);
  const width = (share) => ({ width: `${(share / most) * 100}%` });
  return h("div.panel", null,
    h("div.bar.apart", null,
      h("h3", null, title),
      names.length > 1 && h("select", { value: register, "aria-label": "Register", onChange: (event) => setRegister(event.target.value) },
        h("option", { value: "" }, "all registers (joint)"), names.map((name) => h("option", { key: name, value: name }, `register ${name}`)))),
    h(Small, null,
      `${count(counts.total)} shots, ${count(counts.top.length + counts.rest_outcomes)} outcomes`,
      !register && names.length > 1 ? `; bits of ${[...names].reverse().join(" ")} from left to right` : "",
      pub.register ? `; register ${pub.register}` : "",
      counts.first_of_array ? "; the first point of the parameters" : ""),
    h("div", { className: `ibmq-hist${isLong ? " ibmq-long" : ""}`, "data-shots": counts.total },
      rows.map((row) => {
        const spread = shareError(row.share, counts.total);
        const text = `${row.label}: ${count(row.count)} of ${count(counts.total)} shots, ${row.share.toFixed(4)} ± ${spread.toFixed(4)}${row.before === null ? "" : `, before ${row.before.toFixed(4)}`}`;
        return [
          h("span", { key: `l${row.label}`, className: `ibmq-bits${row.isRest ? " ibmq-muted" : " ibmq-mono"}`, title: row.label },
            row.isRest ? row.label : bits(row.label)),
          h("span", { key: `b${row.label}`, className: "ibmq-track", title: text, role: "img", "aria-label": text },
            h("i", { className: row.isRest ? "ibmq-rest" : "", style: width(row.share) }),
            row.before !== null && h("i.before", { style: width(row.before) })),
          h("span", { key: `n${row.label}`, className: "ibmq-count", "data-count": row.count },
            `${row.share.toFixed(3)} ± ${spread.toFixed(3)}`, h("span.muted", null, ` · ${count(row.count)}`)),
        ];
      })),
    earlier ? BEFORE : null);
}

/** Points with error bars: {points: [{x, y, error}], before}, joined if they are a curve. */
export function Points({ title, points, before, xName, joined }) {
  const all = [...points, ...(before || [])].filter((each) => each.y !== null);
  if (!all.length) return null;
  const [W, H, L, B] = [640, 240, 52, 34];
  const low = Math.min(...all.map((each) => each.y - each.error));
  const high = Math.max(...all.map((each) => each.y + each.error));
  const yTicks = niceTicks(low === high ? low - 0.5 : low, low === high ? high + 0.5 : high);
  const [y0, y1] = [yTicks[0], yTicks[yTicks.length - 1]];
  const xs = all.map((each) => each.x);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const x = (value) => L + 14 + ((value - x0) / Math.max(x1 - x0, 1e-12)) * (W - L - 28);
  const y = (value) => H - B - ((value - y0) / Math.max(y1 - y0, 1e-12)) * (H - B - 10);
  const draw = (list, fill, key, opacity) => h("g", { key, opacity },
    joined && h("polyline", { points: list.filter((each) => each.y !== null).map((each) => `${x(each.x)},${y(each.y)}`).join(" "), fill: "none", stroke: fill, strokeWidth: 1.5 }),
    list.filter((each) => each.y !== null).map((each, index) => h("g", { key: index },
      h("line", { x1: x(each.x), x2: x(each.x), y1: y(each.y - each.error), y2: y(each.y + each.error), stroke: fill, strokeWidth: 1.5 }),
      h("circle.point", { cx: x(each.x), cy: y(each.y), r: 3.5, fill },
        h("title", null, `${xName} ${each.x}: ${each.y.toPrecision(5)} ± ${each.error.toPrecision(2)}`)))));
  const xTicks = joined ? niceTicks(x0, x1).filter((each) => each >= x0 && each <= x1) : [...new Set(xs)].filter((_, index, list) => index % Math.ceil(list.length / 12) === 0);
  return h("div.panel", null,
    h("h3", null, title),
    h("svg", { viewBox: `0 0 ${W} ${H}`, width: "100%", style: { maxWidth: W }, role: "img", "aria-label": title },
      yTicks.map((value) => h("g", { key: `y${value}` },
        h("line", { x1: L, x2: W - 4, y1: y(value), y2: y(value), stroke: "currentColor", opacity: 0.13 }),
        h("text", { x: L - 6, y: y(value) + 4, textAnchor: "end" }, String(value)))),
      xTicks.map((value) => h("text", { key: `x${value}`, x: x(value), y: H - B + 16, textAnchor: "middle" }, String(value))),
      h("text", { x: W / 2, y: H - 4, textAnchor: "middle" }, xName),
      before && draw(before, COLORS.queued, "before", 0.75), draw(points, COLORS.running, "now", 1)),
    before ? BEFORE : null);
}

const evPoints = (pub) => pub && pub.evs ? pub.evs.map((y, index) => ({ x: index, y, error: (pub.stds || [])[index] || 0 })) : null;

export function Job({ report, before }) {
  return h("article", null,
    h("div.bar.job", null,
      h(Badge, { text: report.state || "?", fill: jobColor(report.state) }),
      h("h3.mono", null, report.id),
      h("span.muted", null, [report.program_id, report.backend,
        typeof report.qpu_seconds === "number" ? `QPU ${duration(report.qpu_seconds)}${report.usage_is_final ? "" : " so far"}` : null,
        ...(report.tags || []).filter((tag) => !tag.startsWith("airflow-"))].filter(Boolean).join(" · "))),
    report.error && h(Note, { kind: "bad" }, report.error),
    report.results_path && h(Facts, { rows: [["Results are in", report.results_path]] }),
    h("div.two", null, (report.pubs || []).map((pub, index) => {
      const other = before && before.pubs ? before.pubs[index] : null;
      const title = `Pub ${index}`;
      if (pub.error) return h(Note, { key: index, kind: "bad" }, `${title}: ${pub.error}`);
      if (pub.evs) {
        return h(Points, { key: index, title: `${title}: expectation values`, points: evPoints(pub), before: evPoints(other), xName: "index" });
      }
      return h(Histogram, { key: index, pub, before: other, title });
    })),
    report.pubs_left_out ? h(Quiet, null, `${report.pubs_left_out} more pubs are in the XCom.`) : null);
}

export function Results({ results, previous }) {
  const line = curve(results.reports);
  const lineBefore = line && previous ? curve(previous.reports) : null;
  return h("div", null,
    results.error && h(Note, null, `The results are not shown: ${results.error}`),
    line && h(Points, {
      title: `Expectation value over ${line.name}`, points: line.points, xName: line.name, joined: true,
      before: lineBefore && lineBefore.name === line.name ? lineBefore.points : null,
    }),
    results.reports.map((report, index) => line && report.format === "estimator" ? null
      : h(Job, { key: report.id, report, before: previous ? previous.reports[index] : null })),
    results.left_out ? h(Quiet, null, `${results.left_out} more jobs are in the XCom.`) : null);
}

export function Trend({ runs, unit, currency }) {
  const most = Math.max(...runs.map((run) => run.value), 1e-9);
  const [W, H] = [Math.max(runs.length * 30, 240), 110];
  return h("div.panel", null,
    h("h3", null, `The last ${runs.length} runs`),
    h("svg", { viewBox: `0 0 ${W} ${H}`, width: Math.min(W * 1.2, 1000), role: "img", "aria-label": "Cost of the last runs" },
      runs.map((run, index) => {
        const tall = (run.value / most) * (H - 30);
        return h("g.trend", { key: run.key, style: { cursor: "pointer" }, onClick: run.onOpen },
          h("rect", { x: index * 30 + 3, y: 0, width: 24, height: H, fill: "transparent" }),
          h("rect", { x: index * 30 + 5, y: H - 12 - tall, width: 20, height: Math.max(tall, 1), rx: 2, fill: run.isFailed ? COLORS.failed : COLORS.running, opacity: run.isThis ? 1 : 0.55 }),
          run.isThis && h("text", { x: index * 30 + 15, y: H - 1, textAnchor: "middle" }, "this"),
          h("title", null, run.text));
      })),
    h(Small, null, `Highest: ${unit === "money" ? amount(most, currency) : duration(most)}`),
    h(Legend, { items: [["run succeeded, or goes on", COLORS.running], ["run failed", COLORS.failed]] }));
}
