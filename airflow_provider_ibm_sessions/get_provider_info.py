# SPDX-License-Identifier: Apache-2.0
"""What Airflow discovers about this provider. Read by every Airflow process: imports nothing heavy."""

from __future__ import annotations

from typing import Any

PACKAGE = "airflow_provider_ibm_sessions"
INTEGRATION = "IBM Quantum"
SOURCE = "https://github.com/airflow-provider-ibm-sessions/airflow-provider-ibm-sessions"
HOWTO_PAGES = (
    "backend-sensor",
    "close-session",
    "create-session",
    "events",
    "hook",
    "job-results",
    "job-sensor",
    "jobs-decorator",
    "run-jobs",
    "select-backend",
    "session-decorator",
    "session-sensor",
    "submit-job",
    "sweep-sessions",
    "update-session",
)


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, by the schema ``provider_info.schema.json`` of Airflow."""
    from airflow_provider_ibm_sessions import __version__
    from airflow_provider_ibm_sessions.hooks.connection_form import CONN_FIELDS, FIELD_BEHAVIOUR

    return {
        "package-name": "airflow-provider-ibm-sessions",
        "name": INTEGRATION,
        "description": "IBM Quantum sessions and jobs: run exactly once, waited for without a worker.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://quantum.cloud.ibm.com/docs",
                "logo": f"{SOURCE}/raw/main/docs/_static/logo.svg",
                "how-to-guide": [f"/docs/howto/{page}.md" for page in HOWTO_PAGES],
                "tags": ["service"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "ibm_quantum",
                "hook-class-name": f"{PACKAGE}.hooks.ibm_quantum.IBMQuantumHook",
                "hook-name": INTEGRATION,
                "conn-fields": CONN_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
        "hooks": [_modules("hooks.ibm_quantum")],
        "operators": [_modules("operators.backend", "operators.job", "operators.session", "operators.sweep")],
        "sensors": [_modules("sensors.backend", "sensors.job", "sensors.session")],
        "triggers": [
            _modules(
                "triggers.backend", "triggers.event", "triggers.job", "triggers.session", "triggers.usage"
            )
        ],
        "task-decorators": [
            {
                "name": "ibm_quantum_session",
                "class-name": f"{PACKAGE}.decorators.session.ibm_quantum_session_task",
            },
            {
                "name": "ibm_quantum_jobs",
                "class-name": f"{PACKAGE}.decorators.jobs.ibm_quantum_jobs_task",
            },
        ],
        "plugins": [
            {"name": "ibm_quantum", "plugin-class": f"{PACKAGE}.plugins.ibm_quantum.IBMQuantumPlugin"}
        ],
        "config": {
            "ibm_quantum": {
                "description": "Options of the provider for IBM Quantum sessions.",
                "options": {
                    "record_retention_days": {
                        "description": "Days for which the record of an ended session is kept: what it was "
                        "for, and what was billed. 0: as long as its Dag run. Needs Airflow 3.3.",
                        "version_added": __version__,
                        "type": "integer",
                        "example": "90",
                        "default": "400",
                    },
                    "ui_live": {
                        "description": "Let the API server ask IBM for what the page in Airflow shows, and "
                        "end sessions from there.",
                        "version_added": __version__,
                        "type": "boolean",
                        "example": "False",
                        "default": "True",
                    },
                    "ui_tabs": {
                        "description": "Show a tab of IBM Quantum on Dag runs and tasks. Before 3.4, Airflow "
                        "shows it on each of them.",
                        "version_added": __version__,
                        "type": "boolean",
                        "example": "False",
                        "default": "True",
                    },
                },
            }
        },
        "cli": [f"{PACKAGE}.cli.airflow.commands"],
        "extra-links": [
            f"{PACKAGE}.links.{name}"
            for name in ("IBMQuantumJobLink", "IBMQuantumPageLink", "IBMQuantumSessionLink")
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": INTEGRATION, "python-modules": [f"{PACKAGE}.{name}" for name in names]}
