# SPDX-License-Identifier: Apache-2.0
"""What people, programs and assistants outside of Airflow are told of an operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Face:
    """
    How an operation is offered by REST, by MCP and on the command line.

    :param verb: Its name on the command line.
    :param description: What a caller must know. Assistants decide by it whether to call.
    :param destructive: Whether it takes something away that cannot be had back.
    :param repeatable: Whether calling it again with the same arguments changes nothing more.
    """

    verb: str
    description: str
    destructive: bool = False
    repeatable: bool = False


CREATE_SESSION: Final = Face(
    verb="create",
    description=(
        "Open a session or a batch on a QPU. COSTS MONEY: a dedicated session is billed by the second, idle"
        " time included, from the start of its first job until it closes or goes inactive; max_ttl bounds "
        "the bill. Sent once: an error that leaves the outcome open names the sessions that it may have "
        "opened, as far as IBM lists them; look at them before trying again. Whoever opens a session has to"
        " close it, or drain it by updating it."
    ),
)
GET_SESSION: Final = Face(
    verb="get",
    description=(
        "Read a session or batch: its state (open, active, inactive or closed; only closed is final), "
        "whether it takes jobs, its limits, and the seconds it has used. Changes nothing and costs "
        "nothing."
    ),
    repeatable=True,
)
UPDATE_SESSION: Final = Face(
    verb="update",
    description=(
        "Drain a session or batch, or let it take jobs again. accepting_jobs false drains: no new job is "
        "taken, queued jobs run, and the session closes itself with its last job. True takes jobs again, "
        "unless the session has closed."
    ),
)
CLOSE_SESSION: Final = Face(
    verb="close",
    description=(
        "Close a session or batch now, for good. Jobs that run finish; queued jobs NEVER RUN: they end as "
        "failed, with IBM's code 1217. To let them run, update the session with accepting_jobs false "
        "instead: it then closes itself with its last job. Closing a closed session changes nothing."
    ),
    destructive=True,
    repeatable=True,
)
