// SPDX-License-Identifier: Apache-2.0
// What Airflow loads: the page, the card on the home page, and the tabs of a Dag run and of a task.

import { taskPath, useRoute } from "./api.js";
import { Results, Trend } from "./charts.js";
import { amount, byTaskAndTry, duration, path, place, plural, sum } from "./numbers.js";
import { Card, Frame, Note, Num, Quiet, Select, Small, Table, Tabs, To, Waiting, h } from "./parts.js";
import { Cards, Details, OpenSessions, PastSessions, RecordTable, Unowned, totals, useOpenSessions } from "./sessions.js";

const { Fragment, useEffect, useState } = globalThis.React;
const { useParams, useSearchParams } = globalThis.ReactRouterDOM;

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
  return h(Fragment, null,
    h("h1", null, "IBM Quantum"),
    h(Note, { kind: "bad" }, open.error),
    data && !data.live && h(Note, null, "Airflow's configuration says [ibm_quantum] ui_live = False: IBM is not asked, and sessions cannot be ended here."),
    h(Cards, { open }),
    h("div.bar.line", null,
      h(Tabs, { tabs: [["open", "Open"], ["past", "Past"], ["unowned", "Unowned"]], chosen: tab, onChoose: setTab }),
      h("span.fill", null),
      tab === "open" && h(Select, {
        label: "State", value: state, onChange: setState,
        options: [["", "all states"], "open", "active", "inactive"],
      }),
      h("input", { type: "search", value: typed, placeholder: "Search id, Dag, task, run", "aria-label": "Search", onChange: (event) => setTyped(event.target.value) })),
    tab === "open" && h(OpenSessions, { open, search, offset, onOffset: setOffset, chosen, onChoose: setChosen, state }),
    tab === "past" && h(PastSessions, { search }),
    tab === "unowned" && h(Unowned, { search }));
}

function HomeCard() {
  const open = useOpenSessions("", 0);
  const sums = totals(open.rows, open.live, open.time);
  const total = open.list.data ? open.list.data.total : 0;
  const burning = sums.currency ? `${amount(sums.perMinute, sums.currency)} per minute` : plural(sums.burning, "session");
  return h(Frame, { label: "IBM Quantum sessions" },
    h("div.home", null,
      h(Card, {
        title: "IBM Quantum: burning now", burning: sums.burning > 0,
        value: open.error ? "–" : open.list.data ? burning : "…",
        note: open.error || h(To, { to: "/plugin/ibm-quantum" }, plural(total, "open session")),
      })));
}

function RunTab({ dagId, runId }) {
  const { data, error } = useRoute(path("dags", dagId, "runs", runId));
  if (!data) return h(Waiting, { error, text: "Reading the records …" });
  if (!data.records.length && !data.open.length && !data.trend.some((run) => run.records.length)) {
    return h(Quiet, null, "No IBM Quantum session: neither this run nor those before have opened one.");
  }
  const total = sum(data.records);
  const isFinal = total.isFinal && !data.open.length;
  const bound = isFinal ? "" : "≥ ";
  return h(Fragment, null,
    h("div.cards", null,
      h(Card, { title: "Cost of this run", value: total.cost === null ? "–" : `${bound}${amount(total.cost, total.currency)}`, note: total.unpriced ? `without a price or a bill: ${total.unpriced}` : "failures included" }),
      h(Card, { title: "Billed", value: `${bound}${duration(total.billed)}`, note: isFinal ? "final" : "not final yet" }),
      h(Card, { title: "QPU time of the jobs", value: duration(total.qpu), note: total.billed ? `${Math.round((total.qpu / total.billed) * 100)} % of what is billed` : "" }),
      h(Card, { title: "Sessions", value: String(data.records.length + data.open.length), note: `${data.open.length} open` })),
    data.open.length > 0 && h(Note, null, "Still open: ", data.open.map((row) => h(To, { key: row.id, to: `/plugin/ibm-quantum?session=${encodeURIComponent(row.id)}` }, `${row.id} (${row.task_id}) `))),
    data.records.length > 0 && h("div", null, h("h2", null, "By task and try"),
      h(Table, { names: ["Task", "Try", "Sessions", "QPU time", "Billed", "Cost"], right: ["Sessions", "QPU time", "Billed", "Cost"] },
        byTaskAndTry(data.records).map((group) => {
          const part = sum(group.records);
          return h("tr.row", { key: `${group.name}-${group.tryNumber}` },
            h("td", null, h(To, { to: place(group.owner) }, group.name)),
            h("td", null, group.tryNumber || "–"),
            h(Num, null, group.records.length),
            h(Num, null, duration(part.qpu)),
            h(Num, null, `${part.isFinal ? "" : "≥ "}${duration(part.billed)}`),
            h(Num, null, part.cost === null ? "–" : amount(part.cost, part.currency)));
        })),
      h("h2", null, "Sessions"), h(RecordTable, { records: data.records })),
    data.trend.length > 1 && h(Trend, { runs: data.trend, dagId, runId }));
}

function TaskTab({ owner }) {
  const { data, error } = useRoute(taskPath(owner));
  if (!data) return h(Waiting, { error, text: "Reading the task …" });
  const { results, previous } = data;
  if (!data.open.length && !data.records.length && !results.reports.length && !results.error) {
    return h(Quiet, null, "No IBM Quantum session: this task has neither opened one nor returned reports of jobs.");
  }
  const session = (id, title, polling) => h("div.panel", { key: id }, h("h3", null, title), h(Details, { owner, id, polling }));
  const hasBefore = previous && previous.reports.length > 0;
  return h(Fragment, null,
    data.open.map((row) => session(row.id, "Open session", true)),
    data.records.map((record) => session(record.session_id, record.try_number ? `Session of try ${record.try_number}` : "Ended session", false)).reverse(),
    (results.reports.length > 0 || results.error) && h("div", null, h("h2", null, "Results"),
      hasBefore && h(Small, null, "Compared with the run before: ",
        h(To, { to: place({ ...owner, run_id: previous.run_id }) }, previous.run_id)),
      h(Results, { results, previous: hasBefore ? previous : null })));
}

function Anywhere() {
  const { dagId, runId, taskId, mapIndex = "-1" } = useParams();
  const owner = { dag_id: dagId, run_id: runId, task_id: taskId, map_index: Number(mapIndex) };
  const key = JSON.stringify(owner);
  return h(Frame, null, taskId ? h(TaskTab, { key, owner }) : runId ? h(RunTab, { key, dagId, runId }) : h(Page));
}

// Airflow finds a component by the name of its app, and evaluates a module once.
globalThis["IBM Quantum"] = Anywhere;
globalThis["IBM Quantum cost"] = HomeCard;
