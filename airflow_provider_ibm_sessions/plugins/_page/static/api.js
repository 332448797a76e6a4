// SPDX-License-Identifier: Apache-2.0
// Requests to the page's own routes, and asking again while somebody looks.

import { path } from "./numbers.js";

const { useCallback, useEffect, useRef, useState } = globalThis.React;

const ROOT = new URL("../api/", import.meta.url);
let offset = 0;

/** Seconds since the epoch by the server's clock. */
export const now = () => Date.now() / 1000 + offset;

/** Sends a request; returns {status, body}. Throws an Error with a sentence for a person. */
export async function request(route, { method = "GET", body, signal } = {}) {
  const init = { method, signal, headers: { Accept: "application/json" } };
  if (body) {
    init.headers["Content-Type"] = "application/json";
    init.headers["X-IBM-Quantum-Page"] = "1";
    init.body = JSON.stringify(body);
  }
  const response = await fetch(new URL(route, ROOT), init);
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    throw new Error(`Airflow answered with status ${response.status} and no JSON`);
  }
  if (typeof answer.now === "number") offset = answer.now - Date.now() / 1000;
  if (!response.ok && answer.confirmed === undefined) {
    const detail = typeof answer.detail === "string" ? answer.detail : `status ${response.status}`;
    if (response.status === 401) throw new Error("You are signed out: load the page again");
    if (response.status === 403) throw new Error(`You may not see or do this (${detail})`);
    throw new Error(detail);
  }
  return { status: response.status, body: answer };
}

export const taskPath = ({ dag_id, run_id, task_id, map_index }) =>
  path("dags", dag_id, "runs", run_id, "tasks", task_id, map_index);
export const sessionPath = (owner, id) => `${taskPath(owner)}/${path("sessions", id)}`;

/**
 * What a route says: {data, error, reload}. Asked again every so many seconds, and not while the tab is hidden.
 * A null path asks nothing. What is in first stands behind the path of the first request.
 */
export function useRoute(route, seconds = 0, first = "") {
  const [state, setState] = useState({ data: null, error: null, route: null });
  const run = useRef(null);
  const reload = useCallback(() => run.current && run.current(), []);
  useEffect(() => {
    if (!route) return undefined;
    const controller = new AbortController();
    let timer = null;
    let asking = false;
    let query = first;
    const ask = async () => {
      if (document.hidden || asking) return;
      clearTimeout(timer);
      asking = true;
      try {
        const asked = route + query;
        query = "";
        const { body } = await request(asked, { signal: controller.signal });
        setState({ data: body, error: null, route });
      } catch (error) {
        if (controller.signal.aborted) return;
        setState((old) => ({ data: old.route === route ? old.data : null, error: error.message, route }));
      } finally {
        asking = false;
      }
      if (seconds && !controller.signal.aborted) timer = setTimeout(ask, seconds * 1000);
    };
    run.current = ask;
    document.addEventListener("visibilitychange", ask);
    ask();
    return () => {
      controller.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", ask);
    };
  }, [route, seconds, first]);
  return { ...state, reload };
}

/** The server's time; ticking draws again every second. */
export function useNow(ticking) {
  const [, draw] = useState(0);
  useEffect(() => {
    if (!ticking) return undefined;
    const timer = setInterval(() => !document.hidden && draw(now()), 1000);
    return () => clearInterval(timer);
  }, [ticking]);
  return now();
}
