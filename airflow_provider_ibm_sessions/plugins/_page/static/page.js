// SPDX-License-Identifier: Apache-2.0
// What Airflow loads: the page, the card on the home page, and the tabs of a Dag run and of a task.

import { taskPath, path, useRoute } from "./api.js";
import { Results, Trend } from "./charts.js";
import { amount, byTaskAndTry, duration, place, sum } from "./numbers.js";
import { Card, Frame, Note, Num, Quiet, Small, Table, Tabs, To, Waiting, h } from "./parts.js";
import { Cards, Details, OpenSessions, PastSessions, RecordTable, Unowned, totals, useOpenSessions } from "./sessions.js";

const { useEffect, useState } = globalThis.React;
const { useNavigate, useParams, useSearchParams } = globalThis.ReactRouterDOM;

function useDelayed(value, delay = 300) {
  const [kept, setKept] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setKept(value), delay);
    return () => clearTimeout(timer);
  }, [value, delay]);
  return kept;
}

function Page() {
  const [params] = useSearchParams();
  const linked = params.get("session");
  const [typed, setTyped] = useState(linked || "");
  const [tab, setTab] = useState("open");
  const [state, setState] = useState("");
  const [chosen, setChosen] = useState(linked);
  const [offset, setOffset] = useState(0);
  const search = useDelayed(typed.trim());
  useEffect(() => setOffset(0), [search]);
  const open = useOpenSessions(search, offset);
  const { data } = open.list;
  // A link leads to its session, also once that has ended.
  useEffect(() => { if (linked && data && !data.total) setTab("past"); }, [!data]);
  return h(Frame, null,
    h("h1", null, "IBM Quantum"),
    h(Note, { kind: "bad" }, open.error),
    data && !data.live && h(Note, null, "Airflow's configuration says [ibm_quantum] ui_live = False: IBM is not asked, and sessions cannot be ended here."),
    h(Cards, { open }),
    h("div.bar.line", null,
      h(Tabs, { tabs: [["open", "Open"], ["past", "Past"], ["unowned", "Unowned"]], chosen: tab, onChoose: setTab }),
      h("span.fill", null),
      tab === "open" && h("select", { value: state, "aria-label": "State", onChange: (event) => setState(event.target.value) },
        h("option", { value: "" }, "all states"), ["open", "active", "inactive"].map((each) => h("option", { key: each }, each))),
      h("input", { type: "search", value: typed, placeholder: "Search id, Dag, task, run", "aria-label": "Search", onChange: (event) => setTyped(event.target.value) })),
    tab === "open" && h(OpenSessions, { open, search, offset, onOffset: setOffset, chosen, onChoose: setChosen, state }),
    tab === "past" && h(PastSessions, { search }),
    tab === "unowned" && h(Unowned, { search }));
}

function HomeCard() {
  const open = useOpenSessions("", 0);
  const sums = totals(open.rows, open.live, open.time);
  const total = open.list.data ? open.list.data.total : 0;
  const burning = sums.currency ? `${amount(sums.perMinute, sums.currency)} per minute` : `${sums.burning} sessions hold a QPU`;
  return h(Frame, { label: "IBM Quantum sessions" },
    h("div.home", null,
      h(Card, {
        title: "IBM Quantum: burning now", burning: sums.burning > 0,
        value: open.error ? "–" : open.list.data ? burning : "…",
        note: open.error || h(To, { to: "/plugin/ibm-quantum" }, `${total} open sessions`),
      })));
}

function RunTab({ dagId, runId }) {
  const { data, error } = useRoute(path("dags", dagId, "runs", runId));
  const navigate = useNavigate();
  if (!data) return h(Frame, null, h(Waiting, { error, text: "Reading the records …" }));
  const total = sum(data.records);
  total.isFinal = total.isFinal && !data.open.length;
  const costs = data.trend.map((run) => ({ run, sums: sum(run.records) }));
  const hasMoney = costs.some(({ sums }) => sums.cost !== null);
  const isNothing = !data.records.length && !data.open.length && !costs.some(({ run }) => run.records.length);
  if (isNothing) return h(Frame, null, h(Quiet, null, "No IBM Quantum session: neither this run nor those before have opened one."));
  const bound = total.isFinal ? "" : "≥ ";
  return h(Frame, null,
    h("div.cards", null,
      h(Card, { title: "Cost of this run", value: total.cost === null ? "–" : `${bound}${amount(total.cost, total.currency)}`, note: total.unpriced ? `without a price or a bill: ${total.unpriced}` : "failures included" }),
      h(Card, { title: "Billed", value: `${bound}${duration(total.billed)}`, note: total.isFinal ? "final" : "not final yet" }),
      h(Card, { title: "QPU time of the jobs", value: duration(total.qpu), note: total.billed ? `${Math.round((total.qpu / total.billed) * 100)} % of what is billed` : "" }),
      h(Card, { title: "Sessions", value: String(data.records.length + data.open.length), note: `${data.open.length} open` })),
    data.open.length > 0 && h(Note, null, "Still open: ", data.open.map((row) => h(To, { key: row.id, to: `/plugin/ibm-quantum?session=${encodeURIComponent(row.id)}` }, `${row.id} (${row.task_id}) `))),
    data.records.length > 0 && h("div", null, h("h2", null, "By task and try"),
      h(Table, { names: ["Task", "Try", "Sessions", "QPU time", "Billed", "Cost"], right: ["Sessions", "QPU time", "Billed", "Cost"] },
        byTaskAndTry(data.records).map((group) => {
          const part = sum(group.records);
          return h("tr", { key: `${group.name}-${group.tryNumber}`, className: "ibmq-row" },
            h("td", null, h(To, { to: place({ dag_id: dagId, run_id: runId, task_id: group.task, map_index: group.index }) }, group.name)),
            h("td", null, group.tryNumber || "–"),
            h(Num, null, group.records.length),
            h(Num, null, duration(part.qpu)),
            h(Num, null, `${part.isFinal ? "" : "≥ "}${duration(part.billed)}`),
            h(Num, null, part.cost === null ? "–" : amount(part.cost, part.currency)));
        })),
      h("h2", null, "Sessions"), h(RecordTable, { records: data.records })),
    costs.length > 1 && h(Trend, {
      unit: hasMoney ? "money" : "seconds", currency: sum(data.trend.flatMap((run) => run.records)).currency,
      runs: costs.map(({ run, sums }) => ({
        key: run.run_id, value: hasMoney ? sums.cost || 0 : sums.billed, isFailed: run.state === "failed", isThis: run.run_id === runId,
        text: `${run.run_id}, ${run.state}: ${sums.cost === null ? "" : `${amount(sums.cost, sums.currency)}, `}billed ${duration(sums.billed)}, QPU ${duration(sums.qpu)}`,
        onOpen: () => navigate(place({ dag_id: dagId, run_id: run.run_id })),
      })),
    }));
}

function TaskTab({ owner }) {
  const { data, error } = useRoute(taskPath(owner));
  if (!data) return h(Frame, null, h(Waiting, { error, text: "Reading the task …" }));
  const sessions = [...data.open.map((row) => ({ id: row.id, record: null })), ...data.records.map((record) => ({ id: record.session_id, record })).reverse()];
  const { results, previous } = data;
  if (!sessions.length && !results.reports.length && !results.error) {
    return h(Frame, null, h(Quiet, null, "No IBM Quantum session: this task has neither opened one nor returned reports of jobs."));
  }
  const hasBefore = previous && previous.reports.length > 0;
  return h(Frame, null,
    sessions.map(({ id, record }) => h("div.panel", { key: id },
      h("h3", null, record ? `Session of try ${record.try_number || "–"}` : "Open session"),
      h(Details, { owner: { ...owner, conn_id: record ? record.conn_id : (data.open.find((row) => row.id === id) || {}).conn_id }, id, record, polling: !record }))),
    (results.reports.length > 0 || results.error) && h("div", null, h("h2", null, "Results"),
      hasBefore && h(Small, null, "Compared with the run before: ",
        h(To, { to: place({ ...owner, run_id: previous.run_id }) }, previous.run_id)),
      h(Results, { results, previous: hasBefore ? previous : null })));
}

function Anywhere() {
  const { dagId, runId, taskId, mapIndex = "-1" } = useParams();
  const owner = { dag_id: dagId, run_id: runId, task_id: taskId, map_index: Number(mapIndex) };
  const key = JSON.stringify(owner);
  if (taskId) return h(TaskTab, { key, owner });
  return runId ? h(RunTab, { key, dagId, runId }) : h(Page);
}

// Airflow finds a component by the name of its app, and evaluates a module once.
globalThis["IBM Quantum"] = Anywhere;
globalThis["IBM Quantum cost"] = HomeCard;
