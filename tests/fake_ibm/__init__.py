# SPDX-License-Identifier: Apache-2.0
"""A strict fake of IBM Quantum's REST service and of IAM, over a real socket, on a clock that tests move."""

from __future__ import annotations

from .clock import Clock
from .fake import FakeIBM
from .faults import Fault
from .settings import Outcome

__all__ = ["Clock", "FakeIBM", "Fault", "Outcome"]
