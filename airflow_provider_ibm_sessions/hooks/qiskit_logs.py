# SPDX-License-Identifier: Apache-2.0
"""The levels of Qiskit's loggers in a task's log."""

from __future__ import annotations

import logging
from typing import Final

CHATTY_LOGGERS: Final = (
    "qiskit.passmanager",
    "qiskit_ibm_runtime.api.rest.runtime",
    "qiskit_ibm_runtime.base_primitive",
    "qiskit_ibm_runtime.decoders",
    "qiskit_ibm_runtime.executor_estimator",
    "qiskit_ibm_runtime.executor_sampler",
)
"""Write a line at INFO for each pass over each circuit, a thousand in a task's log, and five for each job."""


def quiet_chatty_loggers() -> None:
    """
    Let the loggers that write too much begin at WARNING, unless a user has chosen their level.

    Called before Qiskit is imported: it compiles circuits while it is.
    """
    for name in CHATTY_LOGGERS:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)
