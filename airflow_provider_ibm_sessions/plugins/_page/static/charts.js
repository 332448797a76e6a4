// SPDX-License-Identifier: Apache-2.0
// Results of jobs: histograms of counts, expectation values, and the cost of the last runs.

import { amount, bars, bits, count, duration, niceTicks, place, plural, shareError, sum } from "./numbers.js";
import { COLORS, Facts, JobBadge, Legend, Note, Quiet, Select, Sized, Small, To, h } from "./parts.js";

const { Fragment, useState } = globalThis.React;

const BEFORE = h(Legend, { items: [["this run", COLORS.running], ["the run before", COLORS.before]] });

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
      names.length > 1 && h(Select, {
        label: "Register", value: register, onChange: setRegister,
        options: [["", "all registers (joint)"], ...names.map((name) => [name, `register ${name}`])],
      })),
    h(Small, null,
      `${plural(counts.total, "shot")}, ${plural(counts.top.length + counts.rest_outcomes, "outcome")}`,
      !register && names.length > 1 ? `; bits of ${[...names].reverse().join(" ")} from left to right` : "",
      pub.register ? `; register ${pub.register}` : "",
      counts.first_of_array ? "; the first point of the parameters" : ""),
    h("div", { className: `ibmq-hist${isLong ? " ibmq-long" : ""}`, "data-shots": counts.total },
      rows.map((row) => {
        const share = `${row.share.toFixed(3)} ± ${shareError(row.share, counts.total).toFixed(3)}`;
        const text = `${row.label}: ${share}${row.before === null ? "" : `, before ${row.before.toFixed(3)}`}`;
        return h(Fragment, { key: row.label },
          row.isRest ? h("span.bits.muted", null, row.label) : h("span.bits.mono", { title: row.label }, bits(row.label)),
          h("span.track", { title: text, role: "img", "aria-label": text },
            h("i", { className: row.isRest ? "ibmq-rest" : "", style: width(row.share) }),
            row.before !== null && h("i.before", { style: width(row.before) })),
          h("span.count", { "data-count": row.count }, share, h("span.muted", null, ` · ${count(row.count)}`)));
      })),
    earlier && BEFORE);
}

/** Points with error bars: {points: [{x, y, error}], before}, joined if they are a curve. */
export function Points({ title, points, before, xName, joined }) {
  const [current, earlier] = [points, before || []].map((list) => list.filter((each) => each.y !== null));
  const all = [...current, ...earlier];
  if (!all.length) return null;
  const [H, L, B] = [240, 52, 34];
  const low = Math.min(...all.map((each) => each.y - each.error));
  const high = Math.max(...all.map((each) => each.y + each.error));
  const yTicks = niceTicks(low === high ? low - 0.5 : low, low === high ? high + 0.5 : high);
  const [y0, y1] = [yTicks[0], yTicks[yTicks.length - 1]];
  const xs = all.map((each) => each.x);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const y = (value) => H - B - ((value - y0) / Math.max(y1 - y0, 1e-12)) * (H - B - 10);
  const xTicks = joined ? niceTicks(x0, x1).filter((each) => each >= x0 && each <= x1) : [...new Set(xs)].filter((_, index, list) => index % Math.ceil(list.length / 12) === 0);
  const draw = (W) => {
    const x = (value) => L + 14 + ((value - x0) / Math.max(x1 - x0, 1e-12)) * (W - L - 28);
    const series = (list, fill) => h("g", { fill, stroke: fill, strokeWidth: 1.5 },
      joined && h("polyline", { points: list.map((each) => `${x(each.x)},${y(each.y)}`).join(" "), fill: "none" }),
      list.map((each, index) => h("g", { key: index },
        h("line", { x1: x(each.x), x2: x(each.x), y1: y(each.y - each.error), y2: y(each.y + each.error) }),
        h("circle.point", { cx: x(each.x), cy: y(each.y), r: 3 },
          h("title", null, `${xName} ${each.x}: ${each.y.toPrecision(5)} ± ${each.error.toPrecision(2)}`)))));
    return h("svg", { width: W, height: H, role: "img", "aria-label": title },
      yTicks.map((value) => h("g", { key: `y${value}` },
        h("line", { x1: L, x2: W - 4, y1: y(value), y2: y(value), stroke: "currentColor", opacity: 0.13 }),
        h("text", { x: L - 6, y: y(value) + 4, textAnchor: "end" }, String(value)))),
      xTicks.map((value) => h("text", { key: `x${value}`, x: x(value), y: H - B + 16, textAnchor: "middle" }, String(value))),
      h("text", { x: W / 2, y: H - 4, textAnchor: "middle" }, xName),
      series(earlier, COLORS.before), series(current, COLORS.running));
  };
  return h("div.panel", null, h("h3", null, title), h(Sized, { most: 640, draw }), before && BEFORE);
}

const evPoints = (pub) => pub && pub.evs ? pub.evs.map((y, index) => ({ x: index, y, error: (pub.stds || [])[index] || 0 })) : null;

export function Job({ report, before }) {
  return h("article", null,
    h("div.bar.job", null,
      h(JobBadge, { state: report.state }),
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
    report.pubs_left_out > 0 && h(Quiet, null, `In the XCom: ${plural(report.pubs_left_out, "more pub")}.`));
}

export function Results({ results, previous }) {
  const line = results.curve;
  const lineBefore = previous && previous.curve;
  return h("div", null,
    results.error && h(Note, null, `The results are not shown: ${results.error}`),
    line && h(Points, {
      title: `Expectation value over ${line.name}`, points: line.points, xName: line.name, joined: true,
      before: lineBefore && lineBefore.name === line.name && lineBefore.points,
    }),
    results.reports.map((report, index) => line && report.format === "estimator" ? null
      : h(Job, { key: report.id, report, before: previous ? previous.reports[index] : null })),
    results.left_out > 0 && h(Quiet, null, `In the XCom: ${plural(results.left_out, "more job")}.`));
}

/** What the last runs of a Dag have cost: in money, or in billed seconds if no run has a price. */
export function Trend({ runs, dagId, runId }) {
  const sums = runs.map((run) => sum(run.records));
  const { currency } = sum(runs.flatMap((run) => run.records));
  const values = sums.map(({ cost, billed }) => (currency ? cost || 0 : billed));
  const most = Math.max(...values, 1e-9);
  const show = (value) => (currency ? amount(value, currency) : duration(value));
  const [W, H] = [Math.max(runs.length * 36, 288), 130];
  return h("div.panel", null,
    h("h3", null, `The last ${runs.length} runs`),
    h("div.scroll", null, h("svg.wide", { width: W, height: H, "aria-label": "Cost of the last runs" },
      runs.map((run, index) => {
        const tall = Math.max((values[index] / most) * (H - 30), 1);
        const label = `${run.run_id}, ${run.state}: ${show(values[index])}, billed ${duration(sums[index].billed)}, QPU ${duration(sums[index].qpu)}`;
        const isThis = run.run_id === runId;
        return h(To, { key: run.run_id, to: place({ dag_id: dagId, run_id: run.run_id }), label },
          h("title", null, label),
          h("rect.trend", { x: index * 36 + 3, y: 0, width: 30, height: H, fill: "transparent" }),
          h("rect", { x: index * 36 + 6, y: H - 14 - tall, width: 24, height: tall, rx: 2, fill: run.state === "failed" ? COLORS.failed : COLORS.running, opacity: isThis ? 1 : 0.55 }),
          isThis && h("text", { x: index * 36 + 18, y: H - 2, textAnchor: "middle" }, "this"));
      }))),
    h(Small, null, `Highest: ${show(most)}`),
    h(Legend, { items: [["run succeeded, or goes on", COLORS.running], ["run failed", COLORS.failed]] }));
}
