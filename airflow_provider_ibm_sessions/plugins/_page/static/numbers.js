// SPDX-License-Identifier: Apache-2.0
// What is computed before it is drawn. No React, no browser: tested with node's own test runner.

/** Seconds as "2 h 5 min", in two units at most. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.max(seconds, 0);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const parts = [];
  let left = Math.round(s);
  for (const [name, size] of units) {
    const count = Math.floor(left / size);
    if (count || parts.length) parts.push(`${count} ${name}`);
    left -= count * size;
    if (parts.length === 2) break;
  }
  return parts.filter((part, index) => index === 0 || !part.startsWith("0 ")).join(" ");
}

/** Money as "1,234.50 USD"; null without a price. */
export function money(seconds, price, currency) {
  if (seconds === null || seconds === undefined || !price) return null;
  return amount(seconds * price, currency);
}

export function amount(value, currency) {
  const digits = Math.abs(value) >= 10000 ? 0 : 2;
  const text = value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return `${text} ${currency || "USD"}`;
}

export const count = (value) => value.toLocaleString("en-US");

/** "1 job", "2 jobs". */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Seconds, and money if there is a price: "2 min, 192.00 USD". */
export const secondsAndMoney = (seconds, price, currency) =>
  [duration(seconds), money(seconds, price, currency)].filter(Boolean).join(", ");

/** What is billed of a session now: {seconds, isEstimate}; seconds is null where nobody says. */
export function billed(session, now) {
  if (!session || !session.at) return { seconds: null, isEstimate: false };
  const isOver = session.state === "closed";
  const since = isBurning(session) ? Math.max(now - session.at, 0) : 0;
  if (typeof session.billed === "number") {
    return { seconds: session.billed + since, isEstimate: since > 1 && !isOver };
  }
  // A batch is billed for its jobs' time on the QPU.
  if (session.mode === "batch") return { seconds: session.jobs ? session.jobs.qpu_seconds : null, isEstimate: !isOver };
  const active = segments(session, now).filter((each) => each.state === "active");
  const seconds = active.reduce((all, each) => all + each.end - each.start, 0);
  return { seconds, isEstimate: seconds > 0 };
}

/** True while each second costs money: a dedicated session that holds the QPU. */
export function isBurning(session) {
  return Boolean(session) && session.state === "active" && session.mode !== "batch";
}

/** A session's states as [{state, start, end}], the last one until it closed, or now. */
export function segments(session, now) {
  const stamps = (session.spans || []).filter(([, at]) => Number.isFinite(at)).sort((a, b) => a[1] - b[1]);
  const found = [];
  stamps.forEach(([state, start], index) => {
    if (state === "closed") return;
    const next = stamps[index + 1];
    let end = next ? next[1] : session.closed || now;
    // IBM may stamp "inactive" late: an active session without a job ends at its idle limit.
    if (!next && state === "active" && session.last_job_completed && session.interactive_ttl
        && !(session.jobs && session.jobs.running)) {
      end = Math.min(end, Math.max(session.last_job_completed + session.interactive_ttl, start));
    }
    if (end > start) found.push({ state, start, end });
  });
  return found;
}

/** The parts of the active time in which no job ran: billed in a dedicated session, and used by nobody. */
export function idle(session, jobs, now) {
  const busy = jobs
    .filter((job) => job.started)
    .map((job) => [job.started, job.ended || now])
    .sort((a, b) => a[0] - b[0]);
  const found = [];
  for (const { state, start, end } of segments(session, now)) {
    if (state !== "active") continue;
    let from = start;
    for (const [begin, over] of busy) {
      if (over <= from || begin >= end) continue;
      if (begin > from) found.push({ start: from, end: begin });
      from = Math.max(from, over);
    }
    if (from < end) found.push({ start: from, end });
  }
  return found.filter((each) => each.end - each.start > 0.05);
}

export function jobKind(state) {
  if (state === "Completed") return "done";
  if (state === "Failed" || (state || "").startsWith("Cancelled")) return "failed";
  return state === "Queued" ? "queued" : "running";
}

/** Puts jobs into as few rows as do not overlap; returns the row of each. */
export function lanes(spans) {
  const ends = [];
  return spans.map(([start, end]) => {
    const free = ends.findIndex((until) => until <= start);
    const lane = free >= 0 ? free : ends.length;
    ends[lane] = end;
    return lane;
  });
}

/** Round values between two bounds for an axis: [value, ...]. */
export function ticks(from, to, most = 6) {
  const span = to - from;
  if (!(span > 0)) return [from];
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const step = steps.find((each) => span / each <= most) || 86400 * Math.ceil(span / 86400 / most);
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => from + index * step);
}

/** Round values for an axis of plain numbers that cover these two. */
export function niceTicks(low, high, most = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / most;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * size).find((each) => each >= raw);
  const first = Math.floor(low / step) * step;
  const found = [];
  for (let value = first; value < high + step; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

/** Bars of a histogram; the rest is the last one. Shares are of all shots. */
export function bars(counts, before) {
  if (!counts || !counts.total) return [];
  const earlier = new Map(before ? before.top : []);
  const found = counts.top.map(([label, n]) => ({
    label, count: n, share: n / counts.total,
    before: before && before.total ? (earlier.get(label) || 0) / before.total : null,
  }));
  if (counts.rest) {
    found.push({
      label: plural(counts.rest_outcomes, "other"), count: counts.rest, share: counts.rest / counts.total,
      before: null, isRest: true,
    });
  }
  return found;
}

/** A bit string in groups that an eye can follow. */
export const bits = (label) => (/^[01]+$/.test(label) ? label.replace(/(?=(.{4})+$)/g, " ").trim() : label);

/** The statistical error. */
export const shareError = (share, shots) => (shots > 0 ? Math.sqrt((share * (1 - share)) / shots) : 0);

/** Seconds and money of records: {billed, qpu, cost, currency, isFinal}; cost is null if a price is missing. */
export function sum(records) {
  const total = { billed: 0, qpu: 0, cost: 0, currency: null, isFinal: true, unpriced: 0 };
  for (const record of records) {
    const seconds = typeof record.billed === "number" ? record.billed : null;
    total.billed += seconds || 0;
    total.qpu += record.qpu_seconds || 0;
    total.isFinal = total.isFinal && record.billed_is_final === true && seconds !== null;
    if (record.price_per_second && seconds !== null) {
      total.cost += seconds * record.price_per_second;
      total.currency = record.currency || "USD";
    } else if (seconds !== 0) {
      total.unpriced += 1;
    }
  }
  if (total.currency === null) total.cost = null;
  return total;
}

/** Records by task and try. */
export function byTaskAndTry(records) {
  const groups = new Map();
  for (const record of records) {
    const name = taskName(record.owner);
    const tryNumber = record.try_number || 0;
    const key = JSON.stringify([name, tryNumber]);
    if (!groups.has(key)) groups.set(key, { name, owner: record.owner, tryNumber, records: [] });
    groups.get(key).records.push(record);
  }
  return [...groups.values()].sort((a, b) => a.name.localeCompare(b.name) || a.tryNumber - b.tryNumber);
}

/** A task's name with its map index: "train [3]". */
export const taskName = ({ task_id, map_index }) => (map_index >= 0 ? `${task_id} [${map_index}]` : task_id);

export const path = (...parts) => parts.map((part) => encodeURIComponent(part)).join("/");

/** The path in Airflow of a Dag, a run or a task. */
export function place({ dag_id, run_id, task_id, map_index }) {
  const run = run_id ? ["runs", run_id] : [];
  const task = task_id ? ["tasks", task_id] : [];
  const mapped = map_index >= 0 ? ["mapped", map_index] : [];
  return `/${path("dags", dag_id, ...run, ...task, ...mapped)}`;
}
