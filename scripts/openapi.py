# SPDX-License-Identifier: Apache-2.0
"""Print the OpenAPI description of the REST service, for one that requires a bearer token."""

from __future__ import annotations

import json

from airflow_provider_ibm_sessions.cli.sources import source_of
from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.security import Rules

_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab::"

if __name__ == "__main__":
    source = source_of(Credentials(api_key="not-used", crn=_CRN))
    print(json.dumps(rest_app(source, Rules(token="not-used-either")).openapi(), indent=2))
