# SPDX-License-Identifier: Apache-2.0
"""
The one table of REST operations: method, path, models, and how safe each is to send again.

Pure: an operation builds an ``httpx.Request`` and reads an ``httpx.Response``; moving bytes is the client's
work, and whether to send again is the retry policy's.
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
from airflow_provider_ibm_sessions.client.errors import BadResponseError, ConfigurationError
from airflow_provider_ibm_sessions.client.models import instance, jobs, sessions
from airflow_provider_ibm_sessions.client.models.base import PathId, Request
from airflow_provider_ibm_sessions.client.validation import validate_id

_NO_OBJECT: Final = ("model_type", "model_attributes_type")
LARGE_PAYLOAD: Final = "ibm_quantum_bulky"
"""Name of the request's extension that says so."""

ReplyT = TypeVar("ReplyT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Safety(Enum):
    """What sending a request a second time does."""

    SAFE = "changes nothing"
    IDEMPOTENT = "leaves the same state as sending it once"
    NON_IDEMPOTENT = "does the work twice"


@dataclass(frozen=True)
class Operation(Generic[ReplyT]):
    """
    One REST operation.

    :param name: Its name in the capability this project implements (``create-session``).
    :param summary: What it does, in a few words; begins every error message about it.
    :param reply: Model of the reply's JSON, or None for 204.
    :param reader: Reads the reply where it is neither.
    :param accept: The media type that is asked for.
    :param id_field: What the id in the path is called, for errors about it.
    :param authenticated: False for the one call that needs no token.
    :param bulky: Whether the request or the reply carries a user's data, which may be large.
    """

    name: str
    method: str
    path: str
    summary: str
    safety: Safety
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    reply: type[BaseModel] | None = None
    reader: Callable[[httpx.Response, str], ReplyT] | None = None
    accept: str = "application/json"
    id_field: str = "session_id"
    authenticated: bool = True
    large_payload: bool = False

    @property
    def has_id(self) -> bool:
        """Whether its path holds an id."""
        return "{id}" in self.path

    @property
    def id_description(self) -> str:
        """What the id in its path is."""
        return f"The {self.id_field.removesuffix('_id')}'s id"

    @cached_property
    def arguments(self) -> type[BaseModel]:
        """Model of all that it takes: ``id``, the query's fields, ``body``."""
        fields: dict[str, Any] = (
            {"id": (PathId, Field(description=self.id_description))} if self.has_id else {}
        )
        if self.body:
            fields["body"] = (self.body, ...)
        name = "".join(word.title() for word in self.name.split("-"))
        return create_model(f"{name}Arguments", __base__=self.query or Request, **fields)

    def parse_arguments(self, arguments: Mapping[str, Any]) -> Call:
        """
        The operation with the arguments of the model above.

        :raises ConfigurationError: Naming the argument that is wrong.
        """
        given = checked(self.arguments, arguments).model_dump(exclude_none=True)
        path_id, body = given.pop("id", None), given.pop("body", None)
        return Call(self, path_id, given if body is None else body)

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
        return httpx.Request(
            self.method,
            base_url + path,
            headers={**headers, "Accept": self.accept},
            json=_dump(self.body, values) if self.body else None,
            # httpx repeats a key for each item of a list, which is the only array style IBM reads.
            params=_dump(self.query, values) if self.query else None,
            extensions={LARGE_PAYLOAD: self.large_payload},
        )

    def call(self, path_id: object = None, **values: Any) -> Call:
        """The operation with its arguments, for ``client.follow``."""
        return Call(self, path_id, values)

    def read(self, response: httpx.Response) -> ReplyT:
        """
        Read the reply.

        :raises IBMQuantumError: The one that fits the reply, if it is not the documented answer.
        """
        if self.reader is not None:
            return self.reader(response, self.summary)
        if self.reply is None:
            return cast("ReplyT", responses.read_empty(response, self.summary))
        body = responses.read_json(response, self.summary)
        try:
            return cast("ReplyT", self.reply.model_validate(body))
        except ValidationError as error:
            raise BadResponseError(
                f"{self.summary}: the reply is not as documented: {format_errors(error.errors())}",
                status=response.status_code,
            ) from error


@dataclass(frozen=True, slots=True)
class Call:
    """An operation and what to call it with."""

    operation: Operation[Any]
    path_id: object
    values: Mapping[str, Any]


Calls: TypeAlias = Generator[Call, Any, ReplyT]
"""Calls one after another, each made in the knowledge of the replies so far, and what follows from them."""


def alone(call: Call) -> Calls[Any]:
    """One call and its reply, for ``client.follow``."""
    return (yield call)


@dataclass(frozen=True, slots=True)
class Done(Generic[ReplyT]):
    """What follows, when there is nothing more to call."""

    value: ReplyT


def advanced(step: Callable[[Any], Call], with_: Any) -> Call | Done[Any]:
    """The next call after a reply (``calls.send``) or an error (``calls.throw``), or the end."""
    try:
        return step(with_)
    except StopIteration as end:
        return Done(end.value)


def _dump(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    return checked(model, values).model_dump(mode="json", exclude_none=True)


def checked(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    """Return the values as a model, or raise ``ConfigurationError`` naming the field that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        items = error.errors()
        raise ConfigurationError(format_errors(items), field=field_path(items[0])) from error


def format_errors(items: Iterable[Mapping[str, Any]]) -> str:
    """Say what is wrong where, for at most five of pydantic's errors."""
    return "; ".join([f"{field_path(item) or 'the body'}: {_said(item)}" for item in items][:5])


def field_path(item: Mapping[str, Any]) -> str:
    """The name of the field that one of pydantic's errors is about."""
    return ".".join(map(str, item["loc"]))


def _said(item: Mapping[str, Any]) -> str:
    """Our own validators' words as they are, pydantic's in the style of an error message."""
    if item["type"] in _NO_OBJECT:
        return "must be a JSON object"
    ours, message = item.get("ctx", {}).get("error"), str(item["msg"])
    return str(ours) if ours else message[:1].lower() + message[1:]


CLOSE_SESSION: Final = Operation[None](
    name="delete-session-close",
    method="DELETE",
    path="/v1/sessions/{id}/close",
    summary="Close a session",
    safety=Safety.IDEMPOTENT,
)
CREATE_SESSION: Final = Operation[sessions.Session](
    name="create-session",
    method="POST",
    path="/v1/sessions",
    summary="Create a session",
    safety=Safety.NON_IDEMPOTENT,
    body=sessions.CreateSession,
    reply=sessions.Session,
)
GET_SESSION: Final = Operation[sessions.Session](
    name="get-session",
    method="GET",
    path="/v1/sessions/{id}",
    summary="Get a session",
    safety=Safety.SAFE,
    reply=sessions.Session,
)
UPDATE_SESSION: Final = Operation[None](
    name="update-session",
    method="PATCH",
    path="/v1/sessions/{id}",
    summary="Update a session",
    safety=Safety.IDEMPOTENT,
    body=sessions.UpdateSession,
)
LIST_WORKLOADS: Final = Operation[instance.WorkloadPage](
    name="list-workloads",
    method="GET",
    path="/v1/workloads",
    summary="List workloads",
    safety=Safety.SAFE,
    query=instance.WorkloadFilter,
    reply=instance.WorkloadPage,
)
LIST_VERSIONS: Final = Operation[instance.Versions](
    name="list-versions",
    method="GET",
    path="/v1/versions",
    summary="List API versions",
    safety=Safety.SAFE,
    reply=instance.Versions,
    authenticated=False,
)
LIST_BACKENDS: Final = Operation[instance.Backends](
    name="list-backends",
    method="GET",
    path="/v1/backends",
    summary="List backends",
    safety=Safety.SAFE,
    reply=instance.Backends,
)
SUBMIT_JOB: Final = Operation[jobs.Job](
    name="create-job",
    method="POST",
    path="/v1/jobs",
    summary="Submit a job",
    safety=Safety.NON_IDEMPOTENT,
    body=jobs.SubmitJob,
    reply=jobs.Job,
    large_payload=True,
)
GET_JOB: Final = Operation[jobs.Job](
    name="get-job",
    method="GET",
    path="/v1/jobs/{id}",
    summary="Get a job",
    safety=Safety.SAFE,
    query=jobs.GetJob,
    reply=jobs.Job,
    id_field="job_id",
)
LIST_JOBS: Final = Operation[jobs.JobPage](
    name="list-jobs",
    method="GET",
    path="/v1/jobs",
    summary="List jobs",
    safety=Safety.SAFE,
    query=jobs.JobFilter,
    reply=jobs.JobPage,
)
JOB_RESULTS: Final = Operation[Any](
    name="get-job-results",
    method="GET",
    path="/v1/jobs/{id}/results",
    summary="Get a job's results",
    safety=Safety.SAFE,
    reader=responses.read_results,
    accept="application/json, text/plain",
    id_field="job_id",
    large_payload=True,
)
JOB_METRICS: Final = Operation[jobs.JobMetrics](
    name="get-job-metrics",
    method="GET",
    path="/v1/jobs/{id}/metrics",
    summary="Get a job's metrics",
    safety=Safety.SAFE,
    reply=jobs.JobMetrics,
    id_field="job_id",
)
JOB_LOGS: Final = Operation[str](
    name="get-job-logs",
    method="GET",
    path="/v1/jobs/{id}/logs",
    summary="Get a job's logs",
    safety=Safety.SAFE,
    reader=responses.read_text,
    accept="text/plain, application/json",
    id_field="job_id",
    large_payload=True,
)
CANCEL_JOB: Final = Operation[None](
    name="cancel-job",
    method="POST",
    path="/v1/jobs/{id}/cancel",
    summary="Cancel a job",
    safety=Safety.IDEMPOTENT,
    id_field="job_id",
)
DELETE_JOB: Final = Operation[None](
    name="delete-job",
    method="DELETE",
    path="/v1/jobs/{id}",
    summary="Delete a job",
    safety=Safety.IDEMPOTENT,
    id_field="job_id",
)
