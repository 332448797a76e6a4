# SPDX-License-Identifier: Apache-2.0
"""Devices in every state in which IBM lists them."""

from __future__ import annotations

from airflow_provider_ibm_sessions.emulator.service.settings import Device


def devices_in_all_states() -> dict[str, Device]:
    """
    Return devices of which two can be chosen at once: `ibm_fez`, which is busy, and `ibm_kingston`.

    `ibm_marrakesh` is online without waiting times, `ibm_torino` paused, `ibm_miami` offline; `mock_fez` and
    `ibm_simulator` are none that one would run an experiment on, although nobody waits for them.
    """
    return {
        "ibm_fez": Device(156, queue_length=12, wait_seconds=5400.0),
        "ibm_kingston": Device(156, queue_length=3, wait_seconds=420.0),
        "ibm_marrakesh": Device(156, queue_length=1, shows_wait=False),
        "ibm_torino": Device(133, "paused", "calibration"),
        "ibm_miami": Device(120, "offline"),
        "mock_fez": Device(156, wait_seconds=0.0),
        "ibm_simulator": Device(
            32, wait_seconds=0.0, is_simulator=True, processor_type={"family": "Simulator"}, clops=1
        ),
    }
