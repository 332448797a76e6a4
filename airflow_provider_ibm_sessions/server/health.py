# SPDX-License-Identifier: Apache-2.0
"""``GET /health``, which both services have. It needs no token and tells nothing secret."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from airflow_provider_ibm_sessions.server.service import Desk


class Health(BaseModel):
    """Whether the service works."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"live": True, "ready": True}]})

    live: bool = Field(description="This process serves")
    ready: bool = Field(description="IBM accepts its key and its instance")


async def health_of(desk: Desk) -> Response:
    """200 if it is ready, else 503."""
    health = Health(live=True, ready=await desk.is_ready())
    status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(health.model_dump_json(), status, media_type="application/json")
