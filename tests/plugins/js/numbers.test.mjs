// SPDX-License-Identifier: Apache-2.0
// Run by `node --test`: what the page computes before it draws.

import assert from "node:assert/strict";
import { test } from "node:test";

const folder = new URL("../../../airflow_provider_ibm_sessions/plugins/_page/static/", import.meta.url);
const source = await (await import("node:fs/promises")).readFile(new URL("numbers.js", folder), "utf8");
const n = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const active = { state: "active", mode: "dedicated", at: 1000, billed: 300, spans: [["open", 600], ["active", 700]] };

test("durations have two units at most", () => {
  assert.equal(n.duration(3.14), "3.1 s");
  assert.equal(n.duration(59.6), "60 s");
  assert.equal(n.duration(3725), "1 h 2 min");
  assert.equal(n.duration(7200), "2 h");
  assert.equal(n.duration(90000), "1 d 1 h");
  assert.equal(n.duration(null), "–");
});

test("money needs a price", () => {
  assert.equal(n.money(1077.8, 1.6, "USD"), "1,724.48 USD");
  assert.equal(n.money(10, null, "USD"), null);
  assert.equal(n.money(0, 1.6, "EUR"), "0.00 EUR");
});

test("what IBM has billed goes on while the session is active", () => {
  assert.deepEqual(n.billed(active, 1000), { seconds: 300, isEstimate: false });
  assert.deepEqual(n.billed(active, 1030), { seconds: 330, isEstimate: true });
  assert.deepEqual(n.billed({ ...active, state: "closed" }, 5000), { seconds: 300, isEstimate: false });
  assert.equal(n.billed({ ...active, mode: "batch" }, 5000).seconds, 300);
  assert.equal(n.billed({}, 5000).seconds, null);
});

test("without a bill, active time is an estimate, and ends at the idle limit", () => {
  const idle = { ...active, billed: null, last_job_completed: 750, interactive_ttl: 60 };
  assert.deepEqual(n.billed(idle, 2000), { seconds: 110, isEstimate: true });
  assert.equal(n.billed({ ...idle, jobs: { running: 1 } }, 2000).seconds, 1300);
  assert.equal(n.billed({ ...idle, mode: "batch" }, 2000).seconds, null);
});

test("states follow each other, and the last one ends when the session closed", () => {
  const session = { spans: [["closed", 90], ["open", 0], ["active", 10], ["inactive", 70]], closed: 90 };
  assert.deepEqual(n.segments(session, 500), [
    { state: "open", start: 0, end: 10 },
    { state: "active", start: 10, end: 70 },
    { state: "inactive", start: 70, end: 90 },
  ]);
});

test("idle is active time that no job used, also where jobs overlap", () => {
  const session = { state: "active", spans: [["active", 0], ["inactive", 100]] };
  const jobs = [{ started: 10, ended: 30 }, { started: 20, ended: 40 }, { started: 60, ended: null }, { started: null }];
  assert.deepEqual(n.idle(session, jobs, 80), [{ start: 0, end: 10 }, { start: 40, end: 60 }, { start: 80, end: 100 }]);
  const idle = n.idle(session, [], 200).reduce((sum, each) => sum + each.end - each.start, 0);
  assert.equal(idle, 100);
});

test("jobs are of four kinds, also where IBM says more", () => {
  const states = ["Completed", "Failed", "Cancelled", "Cancelled - Ran too long", "Queued", "Running", null];
  assert.deepEqual(states.map(n.jobKind), ["done", "failed", "failed", "failed", "queued", "running", "running"]);
});

test("jobs that overlap get rows of their own", () => {
  assert.deepEqual(n.lanes([[0, 10], [5, 15], [10, 20], [16, 18]]), [0, 1, 0, 1]);
});

test("the bars of a histogram sum up to the shots", () => {
  const counts = { top: [["11", 500], ["00", 400]], rest: 124, rest_outcomes: 30, total: 1024 };
  const found = n.bars(counts, { top: [["00", 10]], total: 20 });
  assert.equal(found.reduce((sum, bar) => sum + bar.count, 0), 1024);
  assert.ok(Math.abs(found.reduce((sum, bar) => sum + bar.share, 0) - 1) < 1e-12);
  assert.deepEqual(found.map((bar) => bar.before), [0, 0.5, null]);
  assert.equal(found[2].label, "30 others");
  assert.deepEqual(n.bars(null), []);
});

test("bit strings come in groups, and other texts as they are", () => {
  assert.equal(n.bits("110010"), "11 0010");
  assert.equal(n.bits("1".repeat(127)).replaceAll(" ", ""), "1".repeat(127));
  assert.equal(n.bits("<b>"), "<b>");
});

test("sums say what is not final, and what has no price", () => {
  const record = { billed: 10, billed_is_final: true, qpu_seconds: 4, price_per_second: 1.6, currency: "USD" };
  assert.deepEqual(n.sum([record, record]), { billed: 20, qpu: 8, cost: 32, currency: "USD", isFinal: true, unpriced: 0 });
  const unknown = n.sum([record, { ...record, billed: null }]);
  assert.equal(unknown.isFinal, false);
  assert.equal(unknown.unpriced, 1);
  assert.equal(n.sum([{ ...record, price_per_second: null }]).cost, null);
});

test("records are grouped by task and try, failures included", () => {
  const record = (task_id, try_number, map_index = -1) => ({ owner: { task_id, map_index }, try_number });
  const groups = n.byTaskAndTry([record("b", 2), record("a", 1, 3), record("b", 1), record("b", 2)]);
  assert.deepEqual(groups.map((each) => [each.name, each.tryNumber, each.records.length]), [["a [3]", 1, 1], ["b", 1, 1], ["b", 2, 2]]);
});

test("places in Airflow are encoded", () => {
  const owner = { dag_id: "d", run_id: "manual__2026-01-01T00:00:00+00:00", task_id: "t", map_index: 2 };
  assert.equal(n.place(owner), "/dags/d/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/t/mapped/2");
  assert.equal(n.place({ dag_id: "a b" }), "/dags/a%20b");
});

test("axes have round values", () => {
  assert.deepEqual(n.ticks(100, 400, 6), [100, 160, 220, 280, 340, 400]);
  assert.deepEqual(n.niceTicks(-1, 1, 4), [-1, -0.5, 0, 0.5, 1]);
});

test("one is singular", () => {
  assert.deepEqual([n.plural(0, "job"), n.plural(1, "job"), n.plural(1200, "job")], ["0 jobs", "1 job", "1,200 jobs"]);
  const counts = { top: [["1", 5]], rest: 1, rest_outcomes: 1, total: 6 };
  assert.equal(n.bars(counts)[1].label, "1 other");
});

test("money stands beside seconds where there is a price", () => {
  assert.equal(n.secondsAndMoney(120, 1.6, "EUR"), "2 min, 192.00 EUR");
  assert.equal(n.secondsAndMoney(120, null, null), "2 min");
});
