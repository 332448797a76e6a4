# SPDX-License-Identifier: Apache-2.0
"""Airflow connections to the fake IBM."""

from __future__ import annotations

import json

from testing.fake_ibm import FakeIBM


def connection_to(ibm: FakeIBM, **extra: object) -> str:
    """Return an Airflow connection to the fake, as JSON; ``extra`` are more fields of the connection."""
    return json.dumps(
        {
            "conn_type": "ibm_quantum",
            "host": ibm.url,
            "password": ibm.api_key,
            "extra": {"crn": ibm.crn, "iam_url": ibm.iam_url, **extra},
        }
    )
