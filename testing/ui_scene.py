# SPDX-License-Identifier: Apache-2.0
"""What there is to see on the page in Airflow's UI: sessions at the fake IBM, and who has opened them."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from airflow_provider_ibm_sessions.client import IBMQuantumClient
from airflow_provider_ibm_sessions.client.credentials import Credentials
from airflow_provider_ibm_sessions.hooks.session_owner import SessionOwner
from airflow_provider_ibm_sessions.hooks.session_registry import PREFIX
from testing.airflow_standalone import Airflow
from testing.connections import connection_to
from testing.fake_ibm import FakeIBM

CONNECTION = "ibm_quantum_default"
PRICE = 1.6
DAGS = {"vqe_h2", "bell_pairs", "hostile"}


@dataclass
class Scene:
    """Arranges runs, sessions, records and results in a running Airflow and a fake IBM."""

    airflow: Airflow
    service: FakeIBM
    names: dict[str, str] = field(default_factory=dict)
    """Ids of sessions, by what they are for."""
    first: dict[str, Any] = field(default_factory=dict)
    """The newest record."""

    def connect(self) -> None:
        """Store the connection, with a price."""
        fields = json.loads(connection_to(self.service, price_per_second=PRICE, currency="USD"))
        self.airflow.put_connection(
            {"connection_id": CONNECTION, **fields, "extra": json.dumps(fields["extra"])}
        )

    def client(self) -> IBMQuantumClient:
        """Return a client of the fake."""
        service = self.service
        return IBMQuantumClient(
            Credentials(service.api_key, service.crn, url=service.url, iam_url=service.iam_url)
        )

    def run(self, dag_id: str, run_id: str, state: str | None = None) -> None:
        """Create a run, queued unless a state is given."""
        base = f"/dags/{quote(dag_id)}/dagRuns"
        self.airflow._json("POST", base, json={"dag_run_id": run_id, "logical_date": None})
        if state:
            self.airflow._json("PATCH", f"{base}/{quote(run_id, safe='')}", json={"state": state})

    def owner(self, dag_id: str, run_id: str, task_id: str = "run_jobs", **fields: Any) -> SessionOwner:
        """Return a task as the owner of a session."""
        opened = fields.pop("opened", self.service.clock.now())
        return SessionOwner(CONNECTION, dag_id, run_id, task_id, dag_run_scoped=True, opened=opened, **fields)

    def register(self, entries: dict[str, SessionOwner]) -> None:
        """Write entries of the registry."""
        variables = [
            {
                "key": PREFIX + session_id,
                "value": owner.signed(session_id, self.service.api_key).to_json(),
                "description": "Open session, and its owner",
            }
            for session_id, owner in entries.items()
        ]
        actions = [{"action": "create", "entities": variables, "action_on_existence": "overwrite"}]
        self.airflow._json("PATCH", "/variables", json={"actions": actions})

    def record(self, session_id: str, owner: SessionOwner, **fields: Any) -> dict[str, Any]:
        """Write the record of a past session, in the place where its task does."""
        opened = fields.pop("opened", time.time() - 7200)
        billed = fields.pop("billed", 60.0)
        record = {
            "v": 1,
            "session_id": session_id,
            "conn_id": CONNECTION,
            "backend": "ibm_fez",
            "mode": "dedicated",
            "owner": {
                "dag_id": owner.dag_id,
                "run_id": owner.run_id,
                "task_id": owner.task_id,
                "map_index": owner.map_index,
            },
            "try_number": 1,
            "opened": opened,
            "spans": [["open", opened], ["active", opened + 20], ["closed", opened + 20 + billed]],
            "max_ttl": 3600,
            "billed": billed,
            "billed_is_final": True,
            "jobs": {"Completed": 3},
            "qpu_seconds": round(billed * 0.7, 1),
            "price_per_second": PRICE,
            "currency": "USD",
            "reason": "closed by its last job",
            "closed_by": str(owner),
            **fields,
        }
        place = f"/dags/{quote(owner.dag_id)}/dagRuns/{quote(owner.run_id, safe='')}/taskInstances"
        self.airflow.http.put(
            f"{self.airflow.url}/api/v2{place}/{owner.task_id}/state-store/ibm_quantum_record_{session_id}",
            json={"value": record, "expires_at": None},
        ).raise_for_status()
        return record

    def returned(self, owner: SessionOwner, value: Any) -> None:
        """Write what a task has returned."""
        place = f"/dags/{quote(owner.dag_id)}/dagRuns/{quote(owner.run_id, safe='')}/taskInstances"
        body = {"key": "return_value", "value": value}
        self.airflow._json("POST", f"{place}/{owner.task_id}/xcomEntries", json=body)

    def use_session(
        self, backend: str, jobs: list[tuple[float, float]], *, mode: str = "dedicated", max_ttl: int = 7200
    ) -> str:
        """
        Open a session and run jobs in it, one after the other; return its id.

        :param jobs: For each job, seconds that it runs and seconds until the next one is submitted.
        """
        with self.client() as client:
            session = client.create_session(backend, mode=mode, max_ttl=max_ttl)
            for seconds, pause in jobs:
                self.service.next_jobs([{"seconds": seconds}])
                client.submit_job(
                    "sampler",
                    backend=backend,
                    session_id=session.id,
                    params={"pubs": [["OPENQASM 3.0; bit[2] c;", None, 100]]},
                )
                self.service.clock.advance(pause)
                self.service.service.catch_up()
        return session.id

    def add(self, dag_id: str, run_id: str) -> str:
        """Open a session that is active and has no job, and register it; return its id."""
        session_id: str = self.service.add_session(state="active").id
        self.register({session_id: self.owner(dag_id, run_id)})
        return session_id

    def submit(self, session_id: str, seconds: float | None = None) -> None:
        """
        Submit a job to a session.

        :param seconds: How long it runs.
        """
        self.service.next_jobs([{"seconds": seconds}] if seconds else [])
        with self.client() as client:
            client.submit_job("sampler", backend="ibm_fez", session_id=session_id, params=_PARAMS)

    def remove(self, session_id: str) -> None:
        """Close a session, and take it out of the registry."""
        with self.client() as client:
            client.close_session(session_id)
        self.airflow.http.delete(f"{self.airflow.url}/api/v2/variables/{PREFIX}{session_id}")

    def build(self) -> None:
        """Arrange all that a person may see."""
        self.connect()
        self.airflow.wait_for_dags(DAGS)
        now, clock = time.time(), self.service.clock
        clock._offset = -2400.0  # sessions have a history up to now
        dice = random.Random(5)
        for week in range(30, 43):
            run_id, failed = f"weekly_{week}", week in (34, 39)
            self.run("vqe_h2", run_id, "failed" if failed else "success")
            owner = self.owner("vqe_h2", run_id)
            at = now - (43 - week) * 604_800
            if failed:
                self.record(
                    f"cx4{week}-lost", owner, opened=at, billed=310.0, jobs={"Completed": 2, "Failed": 1}
                )
            self.record(
                f"cx4{week}",
                owner,
                opened=at + 900,
                billed=round(dice.uniform(120, 260), 1),
                try_number=2 if failed else 1,
            )
            self.returned(owner, vqe_reports(dice))
        self.run("vqe_h2", "weekly_43")
        self.run("hostile", "evil")
        self.run("hostile", "no_session")
        self.run("bell_pairs", "nightly_1125", "failed")
        self.run("bell_pairs", "nightly_1126")
        vqe, bell = self.owner("vqe_h2", "weekly_43"), self.owner("bell_pairs", "nightly_1126")
        lost = self.owner("bell_pairs", "nightly_1125")
        orphan = self.use_session("ibm_torino", [(12.0, 15.0)])
        clock.advance(1500)
        active = self.use_session(
            "ibm_fez", [(40, 45), (38, 70), (52, 53), (35, 50), (44, 95), (30, 40), (41, 42), (600, 0.1)]
        )
        for _ in range(3):
            self.submit(active)
        batch = self.use_session("ibm_kingston", [(25, 60), (20, 30)], mode="batch", max_ttl=3600)
        idle = self.use_session("ibm_marrakesh", [(20, 30), (15, 22)])
        clock._offset = 0.0
        self.service.service.catch_up()
        stranger = self.service.add_session(age=4000, state="active", backend="ibm_torino").id
        self.names = {
            "active": active,
            "idle": idle,
            "batch": batch,
            "orphan": orphan,
            "stranger": stranger,
        }
        owners = {
            active: self.owner("vqe_h2", "weekly_43"),
            idle: self.owner("bell_pairs", "nightly_1126"),
            batch: self.owner("bell_pairs", "nightly_1126", "analyse"),
            orphan: self.owner("bell_pairs", "nightly_1125"),
        }
        self.register(
            {
                each: replace(owner, opened=self.service.sessions[each].created)
                for each, owner in owners.items()
            }
        )
        self.first = self.record(
            "cx443-first", vqe, opened=now - 2000, billed=188.4, jobs={"Completed": 4, "Failed": 1}
        )
        self.returned(vqe, vqe_reports(dice))
        self.returned(bell, bell_reports(dice))
        self.returned(lost, bell_reports(dice))


_PARAMS = {"pubs": [["OPENQASM 3.0; bit[2] c;", None, 100]]}


def vqe_reports(dice: random.Random) -> list[dict[str, Any]]:
    """Return reports of a variational sweep: one expectation value for each angle."""
    return [
        {
            "id": f"d4vqe{step:02}{dice.randrange(10**6)}",
            "state": "Completed",
            "program_id": "estimator",
            "backend": "ibm_fez",
            "tags": [f"theta={step * 0.3:.1f}"],
            "usage": {"qpu_charge_time_seconds": 4.0, "status": "complete"},
            "format": "estimator",
            "results": [{"evs": -1.1 * math.cos(step * 0.3 - 0.6) + dice.gauss(0, 0.04), "stds": 0.04}],
        }
        for step in range(14)
    ]


def bell_reports(dice: random.Random) -> list[dict[str, Any]]:
    """Return reports of samplers: two registers, and 127 qubits."""
    shots = 4096
    ones = round(shots * dice.uniform(0.46, 0.52))
    joint = {"00 ": ones, "11 ": shots - ones - 130, "01 ": 70, "10 ": 60}
    joint = {bits.strip(): n for bits, n in joint.items()}
    wide: dict[str, int] = {}
    ideal = [f"{dice.getrandbits(127):0127b}" for _ in range(40)]
    for index, bits in enumerate(ideal):
        wide[bits] = max(1, int(1200 * 0.8**index))
    for _ in range(600):
        wide[f"{dice.getrandbits(127):0127b}"] = 1
    return [
        {
            "id": f"d4bell{dice.randrange(10**6)}",
            "state": "Completed",
            "program_id": "sampler",
            "backend": "ibm_marrakesh",
            "format": "sampler",
            "usage": {"qpu_charge_time_seconds": 2.1, "status": "complete"},
            "results": [
                {
                    "counts": {
                        "alice": {"0": ones + 70, "1": shots - ones - 70},
                        "bob": {"0": ones + 60, "1": shots - ones - 60},
                    },
                    "joint_counts": joint,
                    "num_shots": shots,
                },
                {
                    "evs": [0.91, -0.43, 0.12, 0.88],
                    "stds": [0.03, 0.05, 0.04, 0.03],
                },
            ],
        },
        {
            "id": f"d4wide{dice.randrange(10**6)}",
            "state": "Completed",
            "program_id": "sampler",
            "backend": "ibm_marrakesh",
            "format": "sampler",
            "results": [{"counts": {"meas": wide}, "joint_counts": wide, "num_shots": sum(wide.values())}],
        },
        {
            "id": "d4failed",
            "state": "Failed",
            "program_id": "sampler",
            "backend": "ibm_marrakesh",
            "error": "Job d4failed: Failed. The circuit is too deep for this QPU",
        },
    ]
