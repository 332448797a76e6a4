# SPDX-License-Identifier: Apache-2.0
"""The form of a connection of the type ``ibm_quantum`` in Airflow's UI."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_ibm_sessions.client.credentials import (
    DEFAULT_API_VERSION,
    DEFAULT_CURRENCY,
    DEFAULT_IAM_URL,
    DEFAULT_TIMEOUT,
)

CONN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "crn": {
        "label": "Service CRN",
        "description": "Cloud Resource Name of the instance. Its region decides the host.",
        "schema": {"type": "string", "minLength": 1},
    },
    "api_version": {
        "label": "API version",
        "description": f"A date (YYYY-MM-DD); {DEFAULT_API_VERSION} if left empty.",
        "schema": {"type": ["string", "null"]},
    },
    "iam_url": {
        "label": "IAM URL",
        "description": f"Where the API key is exchanged for a token; {DEFAULT_IAM_URL} if left empty.",
        "schema": {"type": ["string", "null"]},
    },
    "private_endpoint": {
        "label": "Private endpoint",
        "description": "Use IBM Cloud's private network.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "proxy": {
        "label": "Proxy",
        "description": "URL of an HTTP proxy, such as http://proxy.example:3128. Not for hosts on loopback.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false or the path of a file of CA certificates; true if left empty.",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Timeout (s)",
        "description": f"Seconds one request may take; {DEFAULT_TIMEOUT:g} if left empty.",
        "schema": {"type": ["number", "null"], "minimum": 1},
    },
    "emulator": {
        "label": "Emulator",
        "description": "The host is an emulator: reports say so, and links lead to its own pages.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "price_per_second": {
        "label": "Price per second",
        "description": "What a billed second costs by your plan, such as 1.6. Left empty: unknown.",
        "schema": {"type": ["number", "null"], "minimum": 0},
    },
    "currency": {
        "label": "Currency",
        "description": f"Of the price: three capital letters; {DEFAULT_CURRENCY} if left empty.",
        "schema": {"type": ["string", "null"], "pattern": "^[A-Z]{3}$"},
    },
}
"""The form's own fields, in JSON Schema, as Airflow 3.2+ reads them from the provider's metadata."""

FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    "hidden-fields": ["login", "schema"],
    "relabeling": {"password": "IBM Cloud API key", "host": "API base URL"},
    "placeholders": {
        "host": "left empty: from the CRN, such as https://quantum.cloud.ibm.com/api",
        "password": "44 characters, from IBM Cloud's Access (IAM) page",
    },
}
"""Labels and placeholders of Airflow's own fields."""


def connection_form_widgets() -> dict[str, Any]:
    """Return the same form for Airflow 3.1, which builds it from widgets."""
    from wtforms import BooleanField, PasswordField, StringField

    # Airflow drops a connection type whose form has other fields than these, or its IntegerField.
    by_type = {"boolean": BooleanField}
    widgets = {}
    for name, field in CONN_FIELDS.items():
        schema = field["schema"]
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        widget = PasswordField if schema.get("format") == "password" else by_type.get(kinds[0], StringField)
        widgets[name] = widget(
            field["label"], description=field["description"], default=schema.get("default")
        )
    return widgets
