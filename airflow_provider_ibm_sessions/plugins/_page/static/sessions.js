// SPDX-License-Identifier: Apache-2.0
// The lists of the page: open sessions, past ones, and unowned ones.

import { now as serverNow, path, sessionPath, useNow, useRoute } from "./api.js";
import { EndDialog } from "./end.js";
import { amount, billed, count, duration, isBurning, money, place, sum } from "./numbers.js";
import { Badge, Button, Card, DASH, Facts, Meter, Note, Num, Out, Quiet, Small, Table, To, Waiting, h, jobColor, stateColor } from "./parts.js";
import { Strip, Timeline, date } from "./timeline.js";

const { Fragment, useEffect, useState } = globalThis.React;

const POLL_SECONDS = 10;
const PAGE = 25;

const mode = (session) => session.mode || "";

export function Owner({ owner, state }) {
  const index = owner.map_index >= 0 ? ` [${owner.map_index}]` : "";
  return h("span", null,
    h(To, { to: place({ dag_id: owner.dag_id }) }, owner.dag_id), " › ",
    h(To, { to: place(owner) }, `${owner.task_id}${index}`),
    h("br"),
    h("span.small.muted", null,
      h(To, { to: place({ dag_id: owner.dag_id, run_id: owner.run_id }) }, owner.run_id),
      state ? ` · ${state}` : ""));
}

/** What these open sessions cost. */
export function totals(rows, live, time) {
  const found = { perMinute: 0, burning: 0, billed: 0, most: 0, currency: null, isEstimate: false, unpriced: 0, seconds: 0 };
  for (const row of rows) {
    const session = live.sessions[row.id];
    const { price, currency } = live.connections[row.conn_id] || {};
    const cost = billed(session, time);
    if (isBurning(session)) found.burning += 1;
    found.seconds += cost.seconds || 0;
    found.isEstimate = found.isEstimate || cost.isEstimate;
    if (!price) found.unpriced += 1;
    else {
      found.currency = currency || "USD";
      if (isBurning(session)) found.perMinute += price * 60;
      found.billed += (cost.seconds || 0) * price;
      found.most += ((session && session.max_ttl) || 0) * price;
    }
  }
  return found;
}

const NOTHING = { sessions: {}, connections: {} };

export function useOpenSessions(search, offset, limit = PAGE) {
  const list = useRoute(`sessions?${new URLSearchParams({ limit, offset, q: search })}`, POLL_SECONDS);
  const rows = list.data ? list.data.sessions : [];
  const ids = rows.map((row) => `id=${encodeURIComponent(row.id)}`).join("&");
  const live = useRoute(ids ? `live?${ids}` : null, POLL_SECONDS);
  const known = live.data || NOTHING;
  const time = useNow(rows.some((row) => isBurning(known.sessions[row.id])));
  return { list, rows, live: known, error: list.error || live.error, time, reload: () => { list.reload(); live.reload(); } };
}

export function Cards({ open }) {
  const { rows, live, time, list } = open;
  const sums = totals(rows, live, time);
  const total = list.data ? list.data.total : 0;
  const part = total > rows.length ? `of the ${rows.length} shown` : "";
  const priced = sums.currency !== null;
  const left = Object.values(live.connections).map((each) => each.seconds_left).filter((each) => typeof each === "number");
  const price = (value) => (priced ? amount(value, sums.currency) : "–");
  const note = priced && sums.unpriced ? `without ${sums.unpriced} without a price` : part;
  return h("div.cards", null,
    h(Card, { title: "Open sessions", value: list.data ? count(total) : "…", note: `${sums.burning} hold a QPU now` }),
    h(Card, { title: "Burning now", value: priced ? amount(sums.perMinute, sums.currency) : `${sums.burning} s each second`, note: priced ? `per minute ${note}` : rows.length ? "the connection has no price_per_second" : "", burning: sums.burning > 0 }),
    h(Card, { title: "Billed so far", value: `${sums.isEstimate ? "≈ " : ""}${priced ? price(sums.billed) : duration(sums.seconds)}`, note: priced ? `${duration(sums.seconds)} ${note}` : part }),
    h(Card, { title: "At most, by max_ttl", value: price(sums.most), note: note || "if nobody ends them" }),
    left.length ? h(Card, { title: "Budget left", value: duration(Math.min(...left)), note: "of the instance" }) : null);
}

function Jobs({ jobs }) {
  if (!jobs) return DASH;
  const shown = [["done", "done"], ["running", "running"], ["queued", "queued"], ["failed", "failed"]].filter(([name]) => jobs[name]);
  return h("span.small", null,
    shown.length ? shown.map(([name, text]) => `${jobs[name]} ${text}`).join(", ") : "none");
}

function Billed({ session, about, time }) {
  const cost = billed(session, time);
  if (cost.seconds === null) return DASH;
  const { price, currency } = about || {};
  const sign = cost.isEstimate ? "≈ " : "";
  const bound = session.max_ttl;
  return h("div", { title: bound ? `at most ${duration(bound)}${price ? `, ${money(bound, price, currency)}` : ""}` : "" },
    `${sign}${money(cost.seconds, price, currency) || duration(cost.seconds)}`,
    price ? h(Small, null, duration(cost.seconds)) : null,
    h(Meter, { value: cost.seconds, most: bound, label: "Billed against max_ttl" }));
}

export function Details({ owner, id, polling, record }) {
  const route = useRoute(sessionPath(owner, id), polling ? POLL_SECONDS : 0);
  const time = useNow(polling);
  if (!route.data) return h(Waiting, { error: route.error, text: "Asking IBM …" });
  const { data } = route;
  const kept = data.record || record;
  const live = data.session.at ? data.session : null;
  const session = live || (kept ? {
    ...kept, state: "closed", at: serverNow(), closed: (kept.spans || []).reduce((last, [, at]) => Math.max(last, at), 0) || null,
  } : { spans: [] });
  const about = kept && kept.price_per_second ? { price: kept.price_per_second, currency: kept.currency } : data.connection;
  session.has_running_jobs = data.jobs.some((job) => job.started && !job.ended);
  session.jobs = { qpu_seconds: data.jobs.reduce((all, job) => all + (job.qpu_seconds || 0), 0) };
  const cost = billed(session, time);
  const isUnknown = Boolean(data.jobs_error) || (!data.jobs.length && kept && Object.keys(kept.jobs || {}).length > 0);
  return h("div", null,
    h(Note, { kind: kept ? "" : "bad" }, kept && data.session.error ? `From the record. ${data.session.error}` : data.session.error || data.jobs_error),
    h(Timeline, { session, jobs: data.jobs, isUnknown, price: about.price, currency: about.currency, now: session.closed || time, id }),
    h(Facts, { rows: [
      ["Session", h("span.mono.small", null, id)],
      ["Connection", kept ? kept.conn_id : owner.conn_id],
      ["QPU", session.backend], ["Mode", session.mode], ["State", session.state], ["Reason", session.reason],
      ["Billed", cost.seconds === null ? null : `${cost.isEstimate ? "≈ " : ""}${duration(cost.seconds)}${about.price ? ` · ${money(cost.seconds, about.price, about.currency)}` : ""}`],
      ["max_ttl", session.max_ttl ? duration(session.max_ttl) : null],
      ["Ended by", kept ? kept.closed_by : null],
    ] }),
    data.jobs.length ? h(Table, { names: ["Job", "State", "Program", "Waited", "Ran", "QPU"], right: ["Waited", "Ran", "QPU"] },
      data.jobs.map((job) => h("tr", { key: job.id },
        h("td.mono.small", null, job.id),
        h("td", null, h(Badge, { text: job.state || "?", fill: jobColor(job.state) }), job.reason ? h(Small, null, job.reason) : null),
        h("td", null, job.program_id),
        h(Num, null, job.created && (job.started || !job.ended) ? duration((job.started || time) - job.created) : "–"),
        h(Num, null, job.started ? duration((job.ended || time) - job.started) : "–"),
        h(Num, null, duration(job.qpu_seconds))))) : null,
    data.jobs_left_out > 0 && h(Quiet, null, `${data.jobs_left_out} older jobs are not shown.`),
    h("p.small", null, h(Out, { href: data.console }, "Session in its console")));
}

function Row({ cells, label, children, isOpen, onToggle }) {
  return h(Fragment, null,
    h("tr.row", null,
      h("td", null, h(Button, { onClick: onToggle, "aria-expanded": isOpen, "aria-label": `${isOpen ? "Hide" : "Show"} ${label}` }, isOpen ? "▾" : "▸")),
      cells),
    isOpen ? h("tr", null, h("td.detail", { colSpan: 9 }, children)) : null);
}

export function OpenSessions({ open, search, offset, onOffset, chosen, onChoose, state }) {
  const [ending, setEnding] = useState(null);
  const { list, rows, live, time } = open;
  if (!list.data) return open.error ? null : h(Waiting, { text: "Reading the registry …" });
  const { total } = list.data;
  const shown = rows.filter((row) => !state || (live.sessions[row.id] || {}).state === state);
  const end = (row) => {
    const session = live.sessions[row.id] || {};
    setEnding({
      id: row.id, route: sessionPath(row, row.id), jobs: session.jobs || null, console: row.console,
      who: `It was opened for task ${row.task_id}${row.map_index >= 0 ? ` [${row.map_index}]` : ""} of Dag ${row.dag_id}, run ${row.run_id}, which ${row.active ? "goes on and may need it" : "has ended"}${session.backend ? `. QPU ${session.backend}` : ""}.`,
    });
  };
  return h("div", null,
    ending && h(EndDialog, { target: ending, onClose: () => { setEnding(null); open.reload(); } }),
    shown.length === 0 && h(Quiet, null, search || state ? "No open session matches." : "No session is open. Nothing is billed."),
    shown.length > 0 && h(Table, { names: ["", "State", "QPU", "Opened for", "Age", "States so far", "Jobs", "Billed", ""], right: ["Billed", "Age"] },
      shown.map((row) => {
        const session = live.sessions[row.id] || {};
        const name = session.state || (session.error ? "unknown" : "…");
        return h(Row, {
          key: row.id, label: `session ${row.id}`, isOpen: chosen === row.id, onToggle: () => onChoose(chosen === row.id ? null : row.id),
          cells: h(Fragment, null,
            h("td", null, h(Badge, { text: name, fill: stateColor(session.state) }),
              session.accepts_jobs === false && session.state !== "closed" ? h(Small, null, "draining") : null,
              row.active === false ? h("div.small", null, "orphaned") : null,
              session.error ? h("div.small", { title: session.error }, session.at ? `as of ${duration(time - session.at)} ago` : "no answer") : null),
            h("td", null, session.backend || "–", h(Small, null, mode(session))),
            h("td", null, h(Owner, { owner: row, state: row.task })),
            h(Num, null, row.opened ? duration(time - row.opened) : "–"),
            h("td", null, h(Strip, { session, now: time })),
            h("td", null, h(Jobs, { jobs: session.jobs })),
            h(Num, null, h(Billed, { session, about: live.connections[row.conn_id], time })),
            h("td", null, row.may_end && list.data.live && session.state !== "closed" ? h(Button, { onClick: () => end(row), "aria-label": `End session ${row.id}` }, "End …") : null),
          ),
        }, h(Details, { owner: row, id: row.id, polling: true }));
      })),
    total > PAGE && h(Pager, {
      newer: offset > 0 && (() => onOffset(offset - PAGE)), older: offset + PAGE < total && (() => onOffset(offset + PAGE)),
      text: `${offset + 1} to ${Math.min(offset + PAGE, total)} of ${count(total)}`,
    }));
}

const Pager = ({ newer, older, text }) => h("div.bar", null,
  h(Button, { disabled: !newer, onClick: newer }, "Newer"), h(Button, { disabled: !older, onClick: older }, "Older"), h("span.muted", null, text));

export function RecordTable({ records }) {
  const [chosen, onChoose] = useState(null);
  return h(Table, { names: ["", "Session", "QPU", "Opened for", "Opened", "Jobs", "QPU time", "Billed"], right: ["Billed", "QPU time"] },
    records.map((record) => {
      const jobs = record.jobs ? Object.entries(record.jobs).map(([state, n]) => `${n} ${state.toLowerCase()}`).join(", ") : "–";
      const cost = money(record.billed, record.price_per_second, record.currency);
      return h(Row, {
        key: record.session_id, label: `session ${record.session_id}`, isOpen: chosen === record.session_id,
        onToggle: () => onChoose(chosen === record.session_id ? null : record.session_id),
        cells: h(Fragment, null,
          h("td", null, h("span.mono.small", null, record.session_id), h(Small, null, record.reason || "")),
          h("td", null, record.backend || "–", h(Small, null, mode(record))),
          h("td", null, h(Owner, { owner: record.owner, state: record.try_number ? `try ${record.try_number}` : "" })),
          h("td", null, record.opened ? date(record.opened) : "–"),
          h("td.small", null, jobs || "none"),
          h(Num, null, duration(record.qpu_seconds)),
          h(Num, null, typeof record.billed === "number" ? [record.billed_is_final ? "" : "≥ ", cost || duration(record.billed), cost ? h("div.small.muted", { key: "s" }, duration(record.billed)) : null] : "–"),
        ),
      }, h(Details, { owner: record.owner, id: record.session_id, polling: false, record }));
    }));
}

export function PastSessions({ search }) {
  const [pages, setPages] = useState([null]);
  useEffect(() => setPages([null]), [search]);
  const before = pages[pages.length - 1];
  const query = new URLSearchParams({ q: search, ...(before ? { before } : {}) });
  const { data, error } = useRoute(`records?${query}`);
  if (!data) return h(Waiting, { error, text: "Reading the records …" });
  const total = sum(data.records);
  return h("div", null,
    data.records.length === 0 && h(Quiet, null, search ? "No record matches." : "No record yet."),
    data.records.length > 0 && h(RecordTable, { records: data.records }),
    (before || data.next) && h(Pager, {
      newer: before && (() => setPages(pages.slice(0, -1))), older: data.next && (() => setPages([...pages, data.next])),
      text: `This page: ${total.cost === null ? duration(total.billed) : amount(total.cost, total.currency)}`,
    }));
}

export function Unowned({ search }) {
  const { data, error } = useRoute("connections");
  const [conn, setConn] = useState("");
  const known = data ? data.connections : [];
  const chosen = conn || known[0];
  if (!data) return h(Waiting, { error, text: "Reading the connections …" });
  if (!chosen) return h(Quiet, null, "You may see no connection of the type ibm_quantum.");
  return h("div", null,
    h("label.bar.job", null, "Connection ",
      h("select", { value: chosen, onChange: (event) => setConn(event.target.value) }, known.map((each) => h("option", { key: each }, each)))),
    h(Workloads, { key: chosen, conn: chosen, search }));
}

function Workloads({ conn, search }) {
  const { data, error, reload } = useRoute(`${path("connections", conn, "workloads")}`, 30);
  const [ending, setEnding] = useState(null);
  if (!data) return h(Waiting, { error, text: "Asking IBM …" });
  const rows = data.workloads.filter((each) => each.verdict !== "belongs to an active run")
    .filter((each) => Object.values(each).join(" ").toLowerCase().includes(search.toLowerCase()));
  const end = (each) => setEnding({
    id: each.id, route: path("connections", conn, "sessions", each.id), jobs: null, console: each.console,
    who: `No task of this Airflow owns it: another program or person may need it. QPU ${each.backend || "unknown"}.`,
  });
  return h("div", null,
    ending && h(EndDialog, { target: ending, onClose: () => { setEnding(null); reload(); } }),
    h(Note, { kind: "bad" }, data.error),
    !data.error && rows.length === 0 && h(Quiet, null, "Each open session of this API key's user belongs to an active run."),
    rows.length > 0 && h(Table, { names: ["Session", "QPU", "Age", "Owner", "The sweep says", "Billed", ""], right: ["Age", "Billed"] },
      rows.map((each) => h("tr.row", { key: each.id },
        h("td", null, h("span.mono.small", null, h(Out, { href: each.console }, each.id))),
        h("td", null, each.backend || "–", h(Small, null, each.mode)),
        h(Num, null, each.opened ? duration(serverNow() - each.opened) : "–"),
        h("td", null, each.owner || (each.is_owned ? "a Dag that you may not see" : "none")),
        h("td", null, each.verdict),
        h(Num, null, duration(each.billed)),
        h("td", null, each.is_owned ? null : h(Button, { onClick: () => end(each), "aria-label": `End session ${each.id}` }, "End …"))))));
}
