# SPDX-License-Identifier: Apache-2.0
"""Web pages of sessions and jobs, in place of IBM's console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from airflow_provider_ibm_sessions.client.results import decode_results

from .service.responses import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .service.records import JobRecord, SessionRecord
    from .service.requests import Request
    from .service.service import QuantumService

MAX_SHOWN = 10_000
"""Characters of a job's parameters or results that a page shows."""
MAX_ROWS = 200
MAX_BARS = 32
"""Outcomes that a histogram shows, the most frequent ones."""
MAX_DECODED = 1_000_000
"""Bytes of results up to which a page shows histograms."""
REFRESH_SECONDS = 5

_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:72em;padding:0 1em}"
    "h1{font-size:1.5em;overflow-wrap:anywhere}h2{font-size:1.15em;margin-top:1.5em}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{border-bottom:1px solid #8885;padding:.25em 1.2em .25em 0;text-align:left;vertical-align:top}"
    "pre{background:#8882;padding:1em;white-space:pre-wrap;overflow-wrap:anywhere}"
    ".bar{background:#0f62fe;height:1em;min-width:1px}.bars{width:30em}"
)


class Pages:
    """Plain HTML without scripts. All text is escaped: tags and circuits are other people's."""

    def __init__(self, service: QuantumService) -> None:
        self.service = service
        self.scheduler = service.scheduler

    def handle(self, request: Request) -> Response:
        """
        Answer GET of ``/``, ``/sessions/{id}``, ``/jobs/{id}`` and ``/workloads?search={id}``.

        The last is the form of IBM's console, so that a link to it leads here by another host.
        """
        if request.method != "GET":
            return _page("Not found", "<p>Pages can be read only.</p>", status=404)
        match request.segments:
            case [""]:
                name = None
            case ["workloads"]:
                name = request.first("search") or None
            case ["sessions" | "jobs", str(name)]:
                pass
            case _:
                return _page("Not found", "<p>There is no such page.</p>", status=404)
        self.service.catch_up()
        histograms = self._histograms(name)  # may load Qiskit: no other request waits for it
        with self.service.lock:
            return self._home() if name is None else self._workload(name, histograms)

    def _home(self) -> Response:
        devices = [
            [name, device.status, device.qubits] for name, device in self.service.settings.backends.items()
        ]
        alone = [job for job in self.scheduler.jobs.values() if not job.session_id and not job.deleted]
        sessions = list(self.scheduler.sessions.values())
        content = [
            f"<p>Emulated time: {_time(self.service.clock.now())}</p>",
            "<h2>Sessions and batches</h2>",
            _table(["id", "mode", "backend", "state", "created", "billed (s)"], map(_session_row, sessions)),
            "<h2>Jobs outside of sessions</h2>",
            _table(_JOB_HEADINGS, map(_job_row, alone)),
            "<h2>Backends</h2>",
            _table(["name", "status", "qubits"], devices),
        ]
        return _page("IBM Quantum emulator", "".join(content))

    def _workload(self, name: str, histograms: str) -> Response:
        if session := self.scheduler.sessions.get(name):
            return self._session(session)
        job = self.scheduler.jobs.get(name)
        if job is None or job.deleted:
            text = (
                f"<p>The emulator has no session and no job {escape(name)}. It forgets all when it ends.</p>"
            )
            return _page("Not found", text, status=404)
        return self._job(job, histograms)

    def _session(self, session: SessionRecord) -> Response:
        facts = {
            "mode": session.mode,
            "backend": session.backend,
            "state": f"{session.state} ({session.state_reason})",
            "accepting jobs": "yes" if session.accepts_jobs else "no",
            "max TTL (s)": session.max_ttl,
            "interactive TTL (s)": f"{session.interactive_ttl:g}",
            "billed (s)": f"{session.billed_seconds:.3f}",
        }
        jobs = [self.scheduler.jobs[job] for job in session.jobs]
        content = [
            _facts(facts),
            "<h2>States</h2>",
            _table(["state", "since"], ([state, _time(when)] for state, when in session.transitions)),
            "<h2>Jobs</h2>",
            _table(_JOB_HEADINGS, map(_job_row, jobs)),
        ]
        kind = "Batch" if session.mode == "batch" else "Session"
        return _page(f"{kind} {session.id}", "".join(content), final=session.final)

    def _job(self, job: JobRecord, histograms: str) -> Response:
        facts = {
            "program": job.program_id,
            "backend": job.backend,
            "session": job.session_id and _Link(f"/sessions/{job.session_id}", job.session_id),
            "status": job.status,
            "reason": job.reason and f"{job.reason} (code {job.reason_code})",
            "tags": ", ".join(job.tags),
            "created": _time(job.created),
            "started": _time(job.started),
            "finished": _time(job.finished),
            "usage (s)": f"{job.charged(self.service.clock.now()):.3f}",
        }
        content = [_facts(facts)]
        if job.private:
            content.append("<p>The job is private: parameters and results are not shown.</p>")
        else:
            if job.status == "Completed":
                body = self.scheduler.runner.results(job)
                content += [histograms, "<h2>Results</h2>", _pre(body.decode())]
            # Circuits have their lines again.
            text = json.dumps(job.params, indent=1).replace("\\n", "\n").replace('\\"', '"')
            content += ["<h2>Parameters</h2>", _pre(text)]
        return _page(f"Job {job.id}", "".join(content), final=job.final)

    def _histograms(self, name: str | None) -> str:
        """Return the counts of a sampler's job as bars, one histogram for each pub and register."""
        job = self.scheduler.jobs.get(name or "")
        if job is None or job.status != "Completed" or job.private:
            return ""
        body = self.scheduler.runner.results(job)
        if len(body) > MAX_DECODED:
            return ""
        decoded = decode_results(json.loads(body))
        if decoded.format != "sampler":
            return ""
        return "".join(
            f"<h2>Counts of pub {index}, register {escape(register)}</h2>{_bars(counts)}"
            for index, pub in enumerate(decoded.results)
            for register, counts in pub.get("counts", {}).items()
            if isinstance(counts, Mapping)
        )


_JOB_HEADINGS = ["id", "program", "status", "reason", "tags", "created", "ran (s)"]


def _job_row(job: JobRecord) -> list[Any]:
    ran = "" if job.finished is None else f"{job.ran(job.finished):.3f}"
    return [
        _Link(f"/jobs/{job.id}", job.id),
        job.program_id,
        job.status,
        job.reason or "",
        ", ".join(job.tags),
        _time(job.created),
        ran,
    ]


def _session_row(session: SessionRecord) -> list[Any]:
    return [
        _Link(f"/sessions/{session.id}", session.id),
        session.mode,
        session.backend or "",
        session.state,
        _time(session.created),
        f"{session.billed_seconds:.3f}",
    ]


class _Link:
    def __init__(self, path: str, text: str) -> None:
        self.html = f'<a href="{escape(path)}">{escape(text)}</a>'


def _time(when: float | None) -> str:
    return "" if when is None else f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def _cell(value: Any) -> str:
    return value.html if isinstance(value, _Link) else escape(str(value))


def _table(headings: list[str], rows: Iterable[list[Any]]) -> str:
    """Return a table of the newest rows."""
    shown = list(rows)
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>"
        for row in reversed(shown[-MAX_ROWS:])
    )
    more = f"<p>{len(shown) - MAX_ROWS} older ones are not shown.</p>" if len(shown) > MAX_ROWS else ""
    return f"<table><tr>{head}</tr>{body}</table>{more}" if shown else "<p>None.</p>"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f"<table>{''.join(rows)}</table>"


def _bars(counts: Mapping[str, int]) -> str:
    shown = sorted(counts, key=lambda bits: -counts[bits])[:MAX_BARS]
    most = max(counts.values())
    rows = "".join(
        f"<tr><td>{escape(bits)}</td><td>{counts[bits]}</td>"
        f'<td class="bars"><div class="bar" style="width:{100 * counts[bits] / most:.1f}%"></div></td></tr>'
        for bits in sorted(shown)
    )
    more = f"<p>The {MAX_BARS} most frequent of {len(counts)}.</p>" if len(counts) > MAX_BARS else ""
    return f"<table>{rows}</table>{more}"


def _pre(text: str) -> str:
    cut = f"{text[:MAX_SHOWN]}\n... ({len(text)} characters)" if len(text) > MAX_SHOWN else text
    return f"<pre>{escape(cut)}</pre>"


def _page(title: str, content: str, *, status: int = 200, final: bool = False) -> Response:
    refresh = "" if final or status != 200 else f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    html = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><p><a href="/">IBM Quantum emulator</a>: simulated, nothing is billed</p>'
        f"<h1>{escape(title)}</h1>{content}</body></html>"
    )
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(status, html.encode(), "text/html; charset=utf-8", headers)
