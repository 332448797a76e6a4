# SPDX-License-Identifier: Apache-2.0
"""Waits with a trigger: in the triggerer if the task is deferrable, else in the worker, in the same way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from airflow.triggers.base import TriggerEvent

    from airflow_provider_ibm_sessions.hooks.ibm_quantum import IBMQuantumHook
    from airflow_provider_ibm_sessions.triggers.base import IBMQuantumTrigger


class Waiting(Protocol):
    """An operator that can wait in either way; it is resumed at ``execute_complete``."""

    deferrable: bool

    @property
    def hook(self) -> IBMQuantumHook:
        """Its hook."""

    @property
    def defer(self) -> Callable[..., Any]:
        """Airflow's."""


def wait_for(task: Waiting, trigger: IBMQuantumTrigger) -> dict[str, Any]:
    """
    Wait until the trigger fires.

    :returns: Its event; to a deferred task Airflow brings it.
    """
    if task.deferrable:
        # No timeout here: the deadline inside of the trigger holds, and tells what was awaited.
        task.defer(trigger=trigger, method_name="execute_complete", timeout=None)
    trigger.hook = task.hook
    return asyncio.run(_first_event(trigger))


async def _first_event(trigger: IBMQuantumTrigger) -> dict[str, Any]:
    async with aclosing(cast("AsyncGenerator[TriggerEvent]", trigger.run())) as events:
        event = await anext(events)
    return cast("dict[str, Any]", event.payload)
