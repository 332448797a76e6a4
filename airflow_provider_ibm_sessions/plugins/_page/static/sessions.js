// SPDX-License-Identifier: Apache-2.0
// The lists of the page: open sessions, past ones, and unowned ones.

import { now as serverNow, sessionPath, useNow, useRoute } from "./api.js";
import { EndDialog } from "./end.js";
import { amount, billed, count, duration, isBurning, money, path, place, plural, secondsAndMoney, sum, taskName } from "./numbers.js";
import { Badge, Button, Card, DASH, Facts, JobBadge, Meter, Note, Num, Out, Quiet, Select, Small, Table, To, Waiting, clock, date, h, stateColor } from "./parts.js";
import { Strip, Timeline } from "./timeline.js";

const { Fragment, useEffect, useState } = globalThis.React;

const POLL_SECONDS = 10;
const PAGE = 25;

export function Owner({ owner, state }) {
  return h("td.owner", null,
    h(To, { to: place({ dag_id: owner.dag_id }) }, owner.dag_id), " › ",
    h(To, { to: place(owner) }, taskName(owner)),
    h(Small, null,
      h(To, { to: place({ dag_id: owner.dag_id, run_id: owner.run_id }) }, owner.run_id),
      state ? ` · ${state}` : ""));
}

const Qpu = ({ session }) => h("td", null, session.backend || "–", h(Small, null, session.mode));

/** Money, and the seconds below it; without a price the seconds alone. */
function Cost({ seconds, sign = "", price, currency }) {
  if (typeof seconds !== "number") return DASH;
  const cost = money(seconds, price, currency);
  return h(Fragment, null, sign, cost || duration(seconds), cost && h(Small, null, duration(seconds)));
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

export function useOpenSessions(search, offset) {
  const list = useRoute(`sessions?${new URLSearchParams({ limit: PAGE, offset, q: search })}`, POLL_SECONDS);
  const rows = list.data ? list.data.sessions : [];
  const ids = rows.map((row) => `id=${encodeURIComponent(row.id)}`).join("&");
  const live = useRoute(ids ? `live?${ids}` : null, POLL_SECONDS);
  const known = live.data || NOTHING;
  const time = useNow(rows.some((row) => isBurning(known.sessions[row.id])));
  return { list, rows, live: { ...known, reload: live.reload }, error: list.error || live.error, time, reload: () => { list.reload(); live.reload(); } };
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
    h(Card, { title: "Open sessions", value: list.data ? count(total) : "…", note: `billed by the second: ${sums.burning}` }),
    h(Card, { title: "Burning now", value: priced ? amount(sums.perMinute, sums.currency) : `${sums.burning} s each second`, note: priced ? `per minute ${note}` : rows.length ? "the connection has no price_per_second" : "", burning: sums.burning > 0 }),
    h(Card, { title: "Billed so far", value: `${sums.isEstimate ? "≈ " : ""}${priced ? price(sums.billed) : duration(sums.seconds)}`, note: priced ? `${duration(sums.seconds)} ${note}` : part }),
    h(Card, { title: "At most, by max_ttl", value: price(sums.most), note: note || "if nobody ends them" }),
    left.length ? h(Card, { title: "Budget left", value: duration(Math.min(...left)), note: "of the instance" }) : null);
}

function Jobs({ jobs }) {
  if (!jobs) return DASH;
  return ["done", "running", "queued", "failed"].filter((kind) => jobs[kind]).map((kind) => `${jobs[kind]} ${kind}`).join(", ") || "none";
}

function Billed({ session, about, time }) {
  const cost = billed(session, time);
  const { price, currency } = about || {};
  const bound = session.max_ttl;
  return h("div", { title: bound ? `at most ${secondsAndMoney(bound, price, currency)}` : "" },
    h(Cost, { seconds: cost.seconds, sign: cost.isEstimate ? "≈ " : "", price, currency }),
    h(Meter, { value: cost.seconds, most: bound, label: "Billed against max_ttl" }));
}

/** A session with its jobs. onRead is called when they have been read: what lists them may show the same. */
export function Details({ owner, id, polling, onRead }) {
  const { data, error } = useRoute(sessionPath(owner, id), polling ? POLL_SECONDS : 0, "?clicked=true");
  const time = useNow(polling);
  useEffect(() => { if (onRead && data) onRead(); }, [data]);
  if (!data) return h(Waiting, { error, text: "Asking IBM …" });
  const { session, price, currency } = data;
  const cost = billed(session, time);
  const unread = session.error || data.jobs_error;
  return h("div", null,
    unread && h(Note, { kind: data.is_recorded ? "" : "bad" }, data.is_recorded ? "From the record. " : "", unread),
    h(Timeline, { ...data, id, now: session.closed || time }),
    h(Facts, { rows: [
      ["Session", h("span.mono.small", null, id)], ["Connection", data.conn_id],
      ["QPU", session.backend], ["Mode", session.mode], ["State", session.state], ["Reason", session.reason],
      ["Billed", cost.seconds === null ? null : `${cost.isEstimate ? "≈ " : ""}${secondsAndMoney(cost.seconds, price, currency)}`],
      ["max_ttl", session.max_ttl ? duration(session.max_ttl) : null],
      ["Ended by", data.ended_by], ["Console", h(Out, { href: data.console }, "Open")],
    ] }),
    data.jobs.length > 0 && h(Table, { names: ["Job", "State", "Program", "Waited", "Ran", "QPU"], right: ["Waited", "Ran", "QPU"] },
      data.jobs.map((job) => h("tr", { key: job.id },
        h("td.mono.small", null, job.id),
        h("td", null, h(JobBadge, { state: job.state }), job.reason && h(Small, null, job.reason)),
        h("td", null, job.program_id),
        h(Num, null, job.created && (job.started || !job.ended) ? duration((job.started || time) - job.created) : "–"),
        h(Num, null, job.started ? duration((job.ended || time) - job.started) : "–"),
        h(Num, null, duration(job.qpu_seconds))))),
    data.jobs_left_out > 0 && h(Quiet, null, `Not shown: ${plural(data.jobs_left_out, "older job")}.`));
}

/** A row of a session, which unfolds to its details. */
function Row({ id, chosen, onChoose, details, children }) {
  const isOpen = chosen === id;
  return h(Fragment, null,
    h("tr.row", null,
      h("td", null, h(Button, { onClick: () => onChoose(isOpen ? null : id), "aria-expanded": isOpen, "aria-label": `${isOpen ? "Hide" : "Show"} session ${id}` }, isOpen ? "▾" : "▸")),
      children),
    isOpen && h("tr", null, h("td.detail", { colSpan: 9 }, h(Details, { id, ...details }))));
}

const EndButton = ({ id, onClick }) => h(Button, { onClick, "aria-label": `End session ${id}` }, "End …");

/** The dialog that ends the target, if there is one, and what sets the target. */
function useEndDialog(reload) {
  const [target, setTarget] = useState(null);
  return [target && h(EndDialog, { target, onClose: () => { setTarget(null); reload(); } }), setTarget];
}

export function OpenSessions({ open, search, offset, onOffset, chosen, onChoose, state }) {
  const [dialog, setEnding] = useEndDialog(open.reload);
  const { list, rows, live, time } = open;
  if (!list.data) return open.error ? null : h(Waiting, { text: "Reading the registry …" });
  const { total } = list.data;
  const shown = rows.filter((row) => !state || (live.sessions[row.id] || {}).state === state);
  const end = (row) => {
    const { backend } = live.sessions[row.id] || {};
    setEnding({
      id: row.id, route: sessionPath(row, row.id),
      who: `It was opened for task ${taskName(row)} of Dag ${row.dag_id}, run ${row.run_id}, which ${row.active ? "goes on and may need it" : "has ended"}${backend ? `. QPU ${backend}` : ""}.`,
    });
  };
  return h("div", null,
    dialog,
    shown.length === 0 && h(Quiet, null, search || state ? "No open session matches." : "No session is open. Nothing is billed."),
    shown.length > 0 && h(Table, { names: ["", "State", "QPU", "Opened for", "Age", "States so far", "Jobs", "Billed", ""], right: ["Billed", "Age"] },
      shown.map((row) => {
        const session = live.sessions[row.id] || {};
        const name = session.state || (session.error ? "unknown" : "…");
        return h(Row, {
          key: row.id, id: row.id, chosen, onChoose, details: { owner: row, polling: true, onRead: live.reload },
        },
        h("td", null, h(Badge, { text: name, fill: stateColor(session.state) }),
          session.accepts_jobs === false && session.state !== "closed" && h(Small, null, "draining"),
          row.active === false && h("div.small.warning", null, "orphaned"),
          session.error && h("div.small", { title: session.error }, session.at ? `as of ${clock(session.at)}` : "no answer")),
        h(Qpu, { session }),
        h(Owner, { owner: row, state: row.task }),
        h(Num, null, row.opened ? duration(time - row.opened) : "–"),
        h("td.strip", null, h(Strip, { session, now: time })),
        h("td.jobs", null, h(Jobs, { jobs: session.jobs })),
        h(Num, null, h(Billed, { session, about: live.connections[row.conn_id], time })),
        h("td", null, row.may_end && list.data.live && session.state !== "closed" && h(EndButton, { id: row.id, onClick: () => end(row) })));
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
      return h(Row, { key: record.session_id, id: record.session_id, chosen, onChoose, details: { owner: record.owner, polling: false } },
        h("td", null, h("div.mono.small.id", { title: record.session_id }, record.session_id), h(Small, null, record.reason)),
        h(Qpu, { session: record }),
        h(Owner, { owner: record.owner, state: record.try_number ? `try ${record.try_number}` : "" }),
        h("td.date", null, record.opened ? date(record.opened) : "–"),
        h("td.jobs", null, jobs || "none"),
        h(Num, null, duration(record.qpu_seconds)),
        h(Num, null, h(Cost, { seconds: record.billed, sign: record.billed_is_final ? "" : "≥ ", price: record.price_per_second, currency: record.currency })));
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
      h(Select, { label: "Connection", value: chosen, onChange: setConn, options: known })),
    h(Workloads, { key: chosen, conn: chosen, search }));
}

function Workloads({ conn, search }) {
  const { data, error, reload } = useRoute(path("connections", conn, "workloads"), 30);
  const [dialog, setEnding] = useEndDialog(reload);
  if (!data) return h(Waiting, { error, text: "Asking IBM …" });
  const rows = data.workloads.filter((each) => each.verdict !== "belongs to an active run")
    .filter((each) => Object.values(each).join(" ").toLowerCase().includes(search.toLowerCase()));
  const end = (each) => setEnding({
    id: each.id, route: path("connections", conn, "sessions", each.id),
    who: `No task of this Airflow owns it: another program or person may need it. QPU ${each.backend || "unknown"}.`,
  });
  return h("div", null,
    dialog,
    h(Note, { kind: "bad" }, data.error),
    !data.error && rows.length === 0 && h(Quiet, null, "Each open session of this API key's user belongs to an active run."),
    rows.length > 0 && h(Table, { names: ["Session", "QPU", "Age", "Owner", "The sweep says", "Billed", ""], right: ["Age", "Billed"] },
      rows.map((each) => h("tr.row", { key: each.id },
        h("td", null, h("div.mono.small.id", { title: each.id }, h(Out, { href: each.console }, each.id))),
        h(Qpu, { session: each }),
        h(Num, null, each.opened ? duration(serverNow() - each.opened) : "–"),
        h("td", null, each.owner || (each.is_owned ? "a Dag that you may not see" : "none")),
        h("td", null, each.verdict),
        h(Num, null, duration(each.billed)),
        h("td", null, !each.is_owned && h(EndButton, { id: each.id, onClick: () => end(each) }))))));
}
