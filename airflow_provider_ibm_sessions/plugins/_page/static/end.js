// SPDX-License-Identifier: Apache-2.0
// The dialog that ends a session.

import { request, useRoute } from "./api.js";
import { plural } from "./numbers.js";
import { Button, Dialog, Note, Out, Small, clock, h } from "./parts.js";

const { useState } = globalThis.React;

const COUNT_SECONDS = 15;

/** Asks how to end a session, ends it, and says what is confirmed. target: {id, route, who} */
export function EndDialog({ target, onClose }) {
  const [action, setAction] = useState("drain");
  const [state, setState] = useState({ step: "ask" });
  // The list may be minutes old: jobs are counted again before they are said to be lost.
  const { data, error: unread } = useRoute(state.step === "ask" ? `${target.route}/jobs` : null, COUNT_SECONDS);
  const jobs = data ? data.jobs : {};
  const some = (kind) => (!jobs.at ? `${kind} jobs` : jobs[kind] ? plural(jobs[kind], `${kind} job`) : "");
  const queued = some("queued");
  const running = some("running");
  const left = [queued, running].filter(Boolean).join(" and ");
  const end = async () => {
    setState({ step: "sent" });
    try {
      const { status, body } = await request(target.route, { method: "POST", body: { action, session_id: target.id } });
      setState({ step: "done", status, body });
    } catch (error) {
      setState({ step: "refused", error: error.message });
    }
  };
  const choice = (value, title, text) => h("label.choice", null,
    h("input", { type: "radio", name: "ibmq-action", value, checked: action === value, onChange: () => setAction(value) }),
    h("span", null, h("b", null, title), h("br"), text));
  const isConfirmed = Boolean(state.body && state.body.confirmed);
  const dialog = (...content) => h(Dialog, { title: `End session ${target.id}`, onClose, isOver: isConfirmed }, ...content);
  const over = (kind, text, ...note) => dialog(h(Note, { kind }, ...note), h("div.right", null, h(Button, { onClick: onClose, autoFocus: true }, text)));
  if (state.step === "refused") return over("bad", "Back to the list", state.error);
  if (isConfirmed) {
    return over("good", "Done", state.body.state === "closed" ? "Confirmed: the session is closed."
      : `Confirmed: the session takes no more jobs; its state is ${state.body.state}.`);
  }
  if (state.step === "done") {
    return over("bad", "Back to the list", h("b", null, "Not confirmed: it may be open still. "),
      state.body.error || "IBM has not answered yet; Airflow goes on trying.",
      " Look into ", h(Out, { href: state.body.console }, "its console"), ".");
  }
  const isSent = state.step === "sent";
  return dialog(
    h("p", null, target.who),
    h("fieldset", { disabled: isSent },
      choice("drain", "Drain", `It takes no new jobs, and closes itself after its last one${left && `: ${left} will run, billed`}.`),
      choice("close", "Close", `It ends now: ${queued || "no queued job is lost"}${queued && " will never run"}${running && `, ${running} will finish`}.`)),
    h(Small, null, jobs.at ? `Jobs as of ${clock(jobs.at)}. ` : "", jobs.error || unread || (jobs.at ? "" : "Counting the jobs …")),
    h("div.right", null,
      h(Button, { onClick: onClose }, "Cancel"),
      h(Button, { kind: action === "close" ? "danger" : "solid", onClick: end, disabled: isSent },
        isSent ? "Waiting for IBM …" : action === "close" ? "Close session" : "Drain session")));
}
