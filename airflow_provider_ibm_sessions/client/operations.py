# SPDX-License-Identifier: Apache-2.0
"""
The one table of REST operations: method, path, models, and how safe each is to send again.

Pure: an operation builds an ``httpx.Request`` and reads an ``httpx.Response``. The client moves the bytes,
and the retry policy decides about sending again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, ValidationError, create_model

from airflow_provider_ibm_sessions.client import responses
from airflow_provider_ibm_sessions.client.errors import (
    BadResponseError,
    ConfigurationError,
    PermissionDeniedError,
)
from airflow_provider_ibm_sessions.client.exchange import (
    MAX_LIST_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_RESPONSE_BYTES,
)
from airflow_provider_ibm_sessions.client.models.base import PathId, RequestModel
from airflow_provider_ibm_sessions.client.models.instance import (
    BackendPropertiesQuery,
    BackendQuery,
    Backends,
    InstanceUsage,
    Versions,
    WorkloadFilter,
    WorkloadPage,
)
from airflow_provider_ibm_sessions.client.models.jobs import (
    GetJob,
    Job,
    JobFilter,
    JobMetrics,
    JobPage,
    SubmitJob,
)
from airflow_provider_ibm_sessions.client.models.sessions import CreateSession, Session, UpdateSession
from airflow_provider_ibm_sessions.client.validation import PATTERN_HINTS, validate_id

_MAX_ERRORS: Final = 5
_NOT_AN_OBJECT: Final = ("model_type", "model_attributes_type")

ResponseT = TypeVar("ResponseT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Safety(Enum):
    """Effect of sending a request a second time, in the words of RFC 9110."""

    SAFE = "changes nothing"
    IDEMPOTENT = "leaves the same state as sending it once"
    NON_IDEMPOTENT = "does the work twice"


@dataclass(frozen=True)
class Operation(Generic[ResponseT]):
    """
    One REST operation.

    :param name: IBM's name of it (``create-session``).
    :param summary: What it does, in a few words; begins every error message about it.
    :param response_model: Model of the response's JSON, or None for 204.
    :param reader: Reads the response where it is neither.
    :param accept: The media type that is asked for.
    :param id_field: Name of the id in the path, for errors about it.
    :param authenticated: False for the one operation that needs no token.
    :param large_payload: True if the request or the response carries a user's data, which may take long.
    :param max_bytes: Most bytes that a response may have.
    :param iam_action: The IAM action behind it, if a key that may do the rest often lacks that.
    """

    name: str
    method: str
    path: str
    summary: str
    safety: Safety
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    response_model: type[BaseModel] | None = None
    reader: Callable[[httpx.Response, str], ResponseT] | None = None
    accept: str = "application/json"
    id_field: str = "session_id"
    authenticated: bool = True
    large_payload: bool = False
    max_bytes: int = MAX_RESPONSE_BYTES
    iam_action: str | None = None

    @property
    def has_id(self) -> bool:
        """Return True if the path holds an id."""
        return "{id}" in self.path

    @property
    def id_description(self) -> str:
        """Return a description of the id in the path."""
        return f"The {self.id_field.removesuffix('_id')}'s id"

    @cached_property
    def arguments(self) -> type[BaseModel]:
        """Return the model of all arguments: ``id``, the fields of the query, ``body``."""
        fields: dict[str, Any] = (
            {"id": (PathId, Field(description=self.id_description))} if self.has_id else {}
        )
        if self.body:
            fields["body"] = (self.body, ...)
        name = "".join(word.title() for word in self.name.split("-"))
        return create_model(f"{name}Arguments", __base__=self.query or RequestModel, **fields)

    def parse_arguments(self, arguments: Mapping[str, Any]) -> OperationCall:
        """
        Return a call with the arguments of the model above.

        :raises ConfigurationError: Naming the argument that is wrong.
        """
        given = validate(self.arguments, arguments).model_dump(exclude_none=True)
        path_id = given.pop("id", None)
        body = given.pop("body", None)
        return OperationCall(self, path_id, given if body is None else body)

    def call(self, path_id: object = None, **values: Any) -> OperationCall:
        """Return a call with these arguments, for ``client.run_flow``."""
        return OperationCall(self, path_id, values)

    def build(
        self, base_url: str, headers: Mapping[str, str], *, path_id: object = None, **values: Any
    ) -> httpx.Request:
        """
        Build the request.

        :param path_id: The id in the path, if the path has one.
        :param values: Fields of the body or of the query.
        :raises ConfigurationError: Naming the field that is wrong.
        """
        path = self.path
        if self.has_id:
            path = path.replace("{id}", quote(validate_id(path_id, self.id_field), safe=""))
        fields = {
            model: validate(model, values).model_dump(mode="json", exclude_none=True)
            for model in (self.body, self.query)
            if model
        }
        return httpx.Request(
            self.method,
            base_url + path,
            headers={**headers, "Accept": self.accept},
            json=fields[self.body] if self.body else None,
            # httpx repeats a key for each item of a list, which is the only array style IBM reads.
            params=fields[self.query] if self.query else None,
        )

    def read(self, response: httpx.Response, path_id: object = None) -> ResponseT:
        """
        Read the response.

        :param path_id: The id that was asked for: a response about another one is refused.
        :raises IBMQuantumError: The one that fits the response, if it is not as documented.
        """
        if self.reader is not None:
            return self.reader(response, self.summary)
        if self.response_model is None:
            return cast("ResponseT", responses.read_empty(response, self.summary))
        try:
            body = responses.read_json(response, self.summary)
        except PermissionDeniedError as error:
            if self.iam_action:
                error.message = (
                    f"{self.summary}: the API key lacks the IAM action {self.iam_action}. Grant it on the "
                    f"instance. {error.message}"
                )
            raise
        try:
            model = self.response_model.model_validate(body)
        except ValidationError as error:
            raise BadResponseError(
                f"{self.summary}: the response is not as documented: {format_errors(error)}",
                status=response.status_code,
            ) from error
        if path_id is not None and getattr(model, "id", path_id) != path_id:
            mixed_up = BadResponseError(
                f"{self.summary}: the response is about another id than {path_id}",
                status=response.status_code,
            )
            mixed_up.retryable = True  # responses were mixed up on their way
            raise mixed_up
        return cast("ResponseT", model)


@dataclass(frozen=True, slots=True)
class OperationCall:
    """An operation and its arguments."""

    operation: Operation[Any]
    path_id: object
    values: Mapping[str, Any]

    def as_flow(self) -> Flow[Any]:
        """Return the flow of this one call, which returns its response."""
        return (yield self)


Flow: TypeAlias = Generator[OperationCall, Any, ResponseT]
"""
Calls that belong together, written once for the blocking and the async client.

A generator: it yields a call, is sent the response (or thrown the error), and returns the flow's result.
"""


def validate(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return the values as a model, or raise ``ConfigurationError`` naming the field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        field = field_path(error.errors(include_url=False, include_input=False)[0])
        raise ConfigurationError(format_errors(error), field=field) from error


def format_errors(errors: ValidationError | Iterable[Mapping[str, Any]]) -> str:
    """Return at most five of pydantic's errors in words: the field, and what is wrong with it."""
    if isinstance(errors, ValidationError):
        errors = errors.errors(include_url=False, include_input=False)
    parts = []
    for item, _ in zip(errors, range(_MAX_ERRORS), strict=False):
        # Our own messages stay as they are, pydantic's get the style of an error message.
        ours = item.get("ctx", {}).get("error")
        message = str(item["msg"])
        if item["type"] in _NOT_AN_OBJECT:
            message = "must be a JSON object"
        elif (
            item["type"] == "string_pattern_mismatch"
            and item["loc"][-1:]
            and item["loc"][-1] in PATTERN_HINTS
        ):
            message = PATTERN_HINTS[item["loc"][-1]]
        elif isinstance(ours, ConfigurationError):  # it names the field
            message = ours.message.removeprefix(f"{item['loc'][-1]} ")
        elif ours:
            message = str(ours)
        else:
            message = message[:1].lower() + message[1:]
        parts.append(f"{field_path(item) or 'the body'}: {message}")
    return "; ".join(parts)


def field_path(item: Mapping[str, Any]) -> str:
    """Return the name of the field that one of pydantic's errors is about."""
    return ".".join(map(str, item["loc"]))


SAFE, IDEMPOTENT, NON_IDEMPOTENT = Safety.SAFE, Safety.IDEMPOTENT, Safety.NON_IDEMPOTENT

# fmt: off
CLOSE_SESSION: Final = Operation[None](
    "delete-session-close", "DELETE", "/v1/sessions/{id}/close", "Close a session", IDEMPOTENT,
)
CREATE_SESSION: Final = Operation[Session](
    "create-session", "POST", "/v1/sessions", "Create a session", NON_IDEMPOTENT,
    body=CreateSession, response_model=Session,
)
GET_SESSION: Final = Operation[Session](
    "get-session", "GET", "/v1/sessions/{id}", "Get a session", SAFE, response_model=Session,
)
UPDATE_SESSION: Final = Operation[None](
    "update-session", "PATCH", "/v1/sessions/{id}", "Update a session", IDEMPOTENT, body=UpdateSession,
)
LIST_WORKLOADS: Final = Operation[WorkloadPage](
    "list-workloads", "GET", "/v1/workloads", "List workloads", SAFE,
    query=WorkloadFilter, response_model=WorkloadPage, max_bytes=MAX_LIST_BYTES,
)
LIST_VERSIONS: Final = Operation[Versions](
    "list-versions", "GET", "/v1/versions", "List API versions", SAFE,
    response_model=Versions, authenticated=False,
)
LIST_BACKENDS: Final = Operation[Backends](
    "list-backends", "GET", "/v1/backends", "List backends", SAFE,
    query=BackendQuery, response_model=Backends, max_bytes=MAX_LIST_BYTES,
)
INSTANCE_USAGE: Final = Operation[InstanceUsage](
    "get-instance-usage", "GET", "/v1/instances/usage", "Read the instance's usage", SAFE,
    response_model=InstanceUsage, iam_action="quantum-computing.instance-usage.read",
)
BACKEND_PROPERTIES: Final = Operation[Any](
    "get-backend-properties", "GET", "/v1/backends/{id}/properties", "Read a backend's properties", SAFE,
    query=BackendPropertiesQuery, reader=responses.read_json, id_field="backend",
    large_payload=True, max_bytes=MAX_PAYLOAD_BYTES,
)
SUBMIT_JOB: Final = Operation[Job](
    "create-job", "POST", "/v1/jobs", "Submit a job", NON_IDEMPOTENT,
    body=SubmitJob, response_model=Job, large_payload=True,
)
GET_JOB: Final = Operation[Job](
    "get-job", "GET", "/v1/jobs/{id}", "Get a job", SAFE,
    query=GetJob, response_model=Job, id_field="job_id",
)
LIST_JOBS: Final = Operation[JobPage](
    "list-jobs", "GET", "/v1/jobs", "List jobs", SAFE,
    query=JobFilter, response_model=JobPage, max_bytes=MAX_LIST_BYTES,
)
JOB_RESULTS: Final = Operation[Any](
    "get-job-results", "GET", "/v1/jobs/{id}/results", "Get a job's results", SAFE, id_field="job_id",
    reader=responses.read_results, accept="application/json, text/plain",
    large_payload=True, max_bytes=MAX_PAYLOAD_BYTES,
)
JOB_METRICS: Final = Operation[JobMetrics](
    "get-job-metrics", "GET", "/v1/jobs/{id}/metrics", "Get a job's metrics", SAFE, id_field="job_id",
    response_model=JobMetrics,
)
JOB_LOGS: Final = Operation[str](
    "get-job-logs", "GET", "/v1/jobs/{id}/logs", "Get a job's logs", SAFE, id_field="job_id",
    reader=responses.read_text, accept="text/plain, application/json",
    large_payload=True, max_bytes=MAX_PAYLOAD_BYTES,
)
CANCEL_JOB: Final = Operation[None](
    "cancel-job", "POST", "/v1/jobs/{id}/cancel", "Cancel a job", IDEMPOTENT, id_field="job_id",
)
DELETE_JOB: Final = Operation[None](
    "delete-job", "DELETE", "/v1/jobs/{id}", "Delete a job", IDEMPOTENT, id_field="job_id",
)
# fmt: on
