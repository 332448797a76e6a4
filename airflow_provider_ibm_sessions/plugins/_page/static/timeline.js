// SPDX-License-Identifier: Apache-2.0
// States and jobs of a session on one time axis.

import { duration, idle, lanes, money, segments, ticks } from "./numbers.js";
import { COLORS, DASH, Legend, Quiet, h, jobColor, stateColor } from "./parts.js";

const WIDTH = 1150;
const LEFT = 62;
const ROW = 20;
const MAX_LANES = 12;

export function Strip({ session, now }) {
  const found = segments(session, now);
  if (!found.length) return DASH;
  const [from, to] = [found[0].start, found[found.length - 1].end];
  const x = (at) => ((at - from) / Math.max(to - from, 1e-9)) * 120;
  const text = found.map((each) => `${each.state} ${duration(each.end - each.start)}`).join(", ");
  return h("svg", { width: 120, height: 10, role: "img", "aria-label": text },
    h("title", null, text),
    found.map((each, index) => h("rect", {
      key: index, x: x(each.start), y: 0, height: 10, rx: 1,
      width: Math.max(x(each.end) - x(each.start), 1), fill: stateColor(each.state),
    })));
}

export function Timeline({ session, jobs, isUnknown, price, currency, now, id }) {
  const states = segments(session, now);
  const drawn = jobs.filter((job) => job.created || job.started);
  const starts = [...states.map((each) => each.start), ...drawn.map((job) => job.created || job.started)];
  if (!starts.length) return h(Quiet, null, "IBM has no times of this session yet.");
  const from = Math.min(...starts);
  const ends = [...states.map((each) => each.end), ...drawn.map((job) => job.ended || (job.started ? now : job.created))];
  const to = Math.max(...ends, session.closed || 0, from + 1);
  const x = (at) => LEFT + ((at - from) / (to - from)) * (WIDTH - LEFT - 6);
  const wide = (start, end) => Math.max(x(end) - x(start), 1.5);
  const gaps = session.mode === "batch" || isUnknown ? [] : idle(session, jobs, now);
  const started = drawn.filter((job) => job.started);
  const rows = lanes(started.map((job) => [job.started, job.ended || now]));
  const used = Math.min(Math.max(0, ...rows.map((row) => row + 1)), MAX_LANES);
  const height = 34 + used * ROW + 24;
  const hatch = `ibmq-hatch-${id}`;
  const lost = gaps.reduce((total, gap) => total + gap.end - gap.start, 0);
  const lostMoney = money(lost, price, currency);
  return h("div", null,
    h("div.scroll", null,
      h("svg", {
        viewBox: `0 0 ${WIDTH} ${height}`, width: "100%", style: { minWidth: 760 }, role: "img",
        "aria-label": `Timeline of session ${id}`,
      },
      h("defs", null, h("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        h("rect", { width: 6, height: 6, fill: COLORS.active, opacity: 0.35 }),
        h("rect", { width: 2.5, height: 6, fill: COLORS.failed }))),
      ticks(0, to - from, 8).map((second) => h("g", { key: `t${second}` },
        h("line", { x1: x(from + second), x2: x(from + second), y1: 6, y2: height - 18, stroke: "currentColor", opacity: 0.12 }),
        h("text", { x: x(from + second), y: height - 4, textAnchor: !second ? "start" : x(from + second) > WIDTH - 30 ? "end" : "middle" }, second ? `+${duration(second)}` : clock(from)))),
      h("text", { x: 0, y: 23 }, "states"),
      states.map((each, index) => h("rect", {
        key: `s${index}`, x: x(each.start), y: 10, height: 18, rx: 2, width: wide(each.start, each.end), fill: stateColor(each.state),
      }, h("title", null, `${each.state}: ${duration(each.end - each.start)} from ${clock(each.start)}`))),
      gaps.map((gap, index) => h("g", { key: `i${index}` },
        h("rect.idle", { x: x(gap.start), y: 10, height: 18, width: wide(gap.start, gap.end), fill: `url(#${hatch})` },
          h("title", null, `idle and billed: ${duration(gap.end - gap.start)}${price ? `, ${money(gap.end - gap.start, price, currency)}` : ""}`)))),
      used ? h("text", { x: 0, y: 34 + 14 }, "jobs") : null,
      started.map((job, index) => rows[index] < MAX_LANES ? h("g", { key: job.id },
        h("rect", {
          x: x(job.started), y: 34 + rows[index] * ROW, height: ROW - 4, rx: 2,
          width: wide(job.started, job.ended || now), fill: jobColor(job.state),
        }, h("title", null, [job.id, job.state, job.reason, `ran ${duration((job.ended || now) - job.started)}`,
          job.qpu_seconds === null ? null : `QPU ${duration(job.qpu_seconds)}`].filter(Boolean).join(", "))),
        typeof job.qpu_seconds === "number" && wide(job.started, job.ended || now) > 44
          ? h("text.inside", { x: x(job.started) + 4, y: 34 + rows[index] * ROW + 12 }, duration(job.qpu_seconds)) : null) : null))),
    h(Legend, { items: [
      ...[...new Set(states.map((each) => each.state))].map((state) => [state, stateColor(state)]),
      ...(gaps.length ? [["idle, and billed", `repeating-linear-gradient(45deg, ${COLORS.failed} 0 2px, ${COLORS.active} 2px 4px)`]] : []),
    ] }),
    gaps.length ? h("p.small", null, "Idle while active: ", h("b", null, `${duration(lost)}${lostMoney ? `, ${lostMoney}` : ""}`),
      h("span.muted", null, ". Drain the session once its last job is submitted to avoid it.")) : null,
    started.length > 0 && h("p.small.muted", null,
      "A bar shows when IBM ran a job, classical work included; the time inside is that on the QPU."));
}

export const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
export const date = (at) => new Date(at * 1000).toLocaleString([], { hour12: false });
