// SPDX-License-Identifier: Apache-2.0
// The dialog that ends a session.

import { request } from "./api.js";
import { Button, Dialog, Note, Out, h } from "./parts.js";

const { useState } = globalThis.React;

const many = (count, noun) => (count ? `${count} ${noun} job${count === 1 ? "" : "s"}` : "");

/**
 * Asks how to end a session, ends it, and says what is confirmed.
 * target: {id, route, who, jobs: {queued, running} or null, console}
 */
export function EndDialog({ target, onClose }) {
  const [action, setAction] = useState("drain");
  const [state, setState] = useState({ step: "ask" });
  const { jobs } = target;
  const queued = jobs ? many(jobs.queued, "queued") : "queued jobs";
  const running = jobs ? many(jobs.running, "running") : "running jobs";
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
  const console = h(Out, { href: target.console }, "its console");
  const close = (text) => h("div.right", null, h(Button, { onClick: onClose, autoFocus: true }, text));
  let content;
  if (state.step === "ask" || state.step === "sent") {
    const isSent = state.step === "sent";
    content = [
      h("p", { key: "who" }, target.who),
      h("fieldset", { key: "choice", disabled: isSent },
        choice("drain", "Drain", `It takes no new jobs, and closes itself after its last one${left && `: ${left} will run, billed`}.`),
        choice("close", "Close", `It ends now: ${queued || "no queued job is lost"}${queued && " will never run"}${running && `, ${running} will finish`}.`)),
      h("div.right", { key: "buttons" },
        h(Button, { onClick: onClose }, "Cancel"),
        h(Button, { kind: action === "close" ? "danger" : "solid", onClick: end, disabled: isSent },
          isSent ? "Waiting for IBM …" : action === "close" ? "Close session" : "Drain session")),
    ];
  } else if (state.step === "refused") {
    content = [h(Note, { key: "note", kind: "bad" }, state.error), h("div", { key: "b" }, close("Back to the list"))];
  } else if (state.body.confirmed) {
    const said = state.body.state === "closed" ? "Confirmed: the session is closed."
      : `Confirmed: the session takes no more jobs; its state is ${state.body.state}.`;
    content = [h(Note, { key: "note", kind: "good" }, said), h("div", { key: "b" }, close("Done"))];
  } else {
    content = [
      h(Note, { key: "note", kind: "bad" }, h("b", null, "Not confirmed: it may be open still. "),
        state.body.error || "IBM has not answered yet; Airflow goes on trying.", " Look into ", console, "."),
      h("div", { key: "b" }, close("Back to the list")),
    ];
  }
  return h(Dialog, { title: `End session ${target.id}`, onClose }, content);
}
