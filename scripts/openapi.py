# SPDX-License-Identifier: Apache-2.0
"""Print the OpenAPI description of the REST service, for one that requires a bearer token."""

from __future__ import annotations

import json

from airflow_provider_ibm_sessions.client import Credentials
from airflow_provider_ibm_sessions.server.rest import rest_app
from airflow_provider_ibm_sessions.server.security import AccessPolicy
from airflow_provider_ibm_sessions.server.service import client_factory

_CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab::"

if __name__ == "__main__":
    factory = client_factory(Credentials(api_key="not-used", crn=_CRN))
    print(json.dumps(rest_app(factory, AccessPolicy(token="not-used-either")).openapi(), indent=2))
