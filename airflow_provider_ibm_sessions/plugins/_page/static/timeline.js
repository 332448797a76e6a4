// SPDX-License-Identifier: Apache-2.0
// States and jobs of a session on one time axis.

import { duration, idle, lanes, secondsAndMoney, segments, ticks } from "./numbers.js";
import { COLORS, DASH, Legend, Quiet, Sized, clock, h, jobColor, stateColor } from "./parts.js";

const LEFT = 48;
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

/** States and jobs of what a route says of a session. */
export function Timeline({ session, jobs, jobs_are_known: areKnown, price, currency, now, id }) {
  const states = segments(session, now);
  const drawn = jobs.filter((job) => job.created || job.started);
  const starts = [...states.map((each) => each.start), ...drawn.map((job) => job.created || job.started)];
  if (!starts.length) return h(Quiet, null, "IBM has no times of this session yet.");
  const from = Math.min(...starts);
  const ends = [...states.map((each) => each.end), ...drawn.map((job) => job.ended || (job.started ? now : job.created))];
  const to = Math.max(...ends, session.closed || 0, from + 1);
  const gaps = session.mode === "batch" || !areKnown ? [] : idle(session, jobs, now);
  const started = drawn.filter((job) => job.started);
  const rows = lanes(started.map((job) => [job.started, job.ended || now]));
  const used = Math.min(Math.max(0, ...rows.map((row) => row + 1)), MAX_LANES);
  const height = 34 + used * ROW + 24;
  const hatch = `ibmq-hatch-${id}`;
  const cost = (seconds) => secondsAndMoney(seconds, price, currency);
  const draw = (width) => {
    const x = (at) => LEFT + ((at - from) / (to - from)) * (width - LEFT - 6);
    const bar = (start, end) => ({ x: x(start), width: Math.max(x(end) - x(start), 1.5) });
    return h("svg", { width, height, role: "img", "aria-label": `Timeline of session ${id}` },
      h("defs", null, h("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        h("rect", { width: 6, height: 6, fill: COLORS.active, opacity: 0.35 }),
        h("rect", { width: 2.5, height: 6, fill: COLORS.failed }))),
      ticks(0, to - from, Math.max(width / 120, 2)).map((second) => h("g", { key: second },
        h("line", { x1: x(from + second), x2: x(from + second), y1: 6, y2: height - 18, stroke: "currentColor", opacity: 0.12 }),
        h("text", { x: x(from + second), y: height - 4, textAnchor: !second ? "start" : x(from + second) > width - 30 ? "end" : "middle" }, second ? `+${duration(second)}` : clock(from)))),
      h("text", { x: 0, y: 23 }, "states"),
      states.map((each, index) => h("rect", { key: index, ...bar(each.start, each.end), y: 10, height: 18, rx: 2, fill: stateColor(each.state) },
        h("title", null, `${each.state}: ${duration(each.end - each.start)} from ${clock(each.start)}`))),
      gaps.map((gap, index) => h("g", { key: index },
        h("rect.idle", { ...bar(gap.start, gap.end), y: 10, height: 18, fill: `url(#${hatch})` },
          h("title", null, `idle and billed: ${cost(gap.end - gap.start)}`)))),
      used > 0 && h("text", { x: 0, y: 34 + 12 }, "jobs"),
      started.map((job, index) => {
        if (rows[index] >= MAX_LANES) return null;
        const place = bar(job.started, job.ended || now);
        const y = 34 + rows[index] * ROW;
        const qpu = job.qpu_seconds === null ? "" : duration(job.qpu_seconds);
        return h("g", { key: job.id },
          h("rect", { ...place, y, height: ROW - 4, rx: 2, fill: jobColor(job.state) },
            h("title", null, [job.id, job.state, job.reason, `ran ${duration((job.ended || now) - job.started)}`, qpu && `QPU ${qpu}`].filter(Boolean).join(", "))),
          place.width > 10 + 6 * qpu.length && h("text.inside", { x: place.x + 4, y: y + 12 }, qpu));
      }));
  };
  return h("div", null,
    h(Sized, { draw, most: Infinity }),
    h(Legend, { items: [
      ...[...new Set(states.map((each) => each.state))].map((state) => [state, stateColor(state)]),
      ...(gaps.length ? [["idle, and billed", `repeating-linear-gradient(45deg, ${COLORS.failed} 0 2px, ${COLORS.active} 2px 4px)`]] : []),
    ] }),
    gaps.length > 0 && h("p.small", null, "Idle while active: ", h("b", null, cost(gaps.reduce((total, gap) => total + gap.end - gap.start, 0))),
      h("span.muted", null, ". Drain the session once its last job is submitted to avoid it.")),
    started.length > 0 && h("p.small.muted", null,
      "A bar shows when IBM ran a job, classical work included; the time inside is that on the QPU."));
}
