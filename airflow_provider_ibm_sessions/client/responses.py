# SPDX-License-Identifier: Apache-2.0
"""Reads IBM's responses: the content type, the JSON, and every shape of error it is known to send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, Final

import httpx

from airflow_provider_ibm_sessions.client.error_hints import ERROR_HINTS
from airflow_provider_ibm_sessions.client.errors import (
    SESSION_CLOSED_CODE,
    AuthenticationError,
    BadResponseError,
    ConflictError,
    IBMQuantumError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    PlanError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    SessionClosedError,
)
from airflow_provider_ibm_sessions.client.exchange import exchange_of
from airflow_provider_ibm_sessions.client.models.base import single_line

_BACKEND_RESERVED: Final = "1233"
_BY_CODE: Final[Mapping[str, type[IBMQuantumError]]] = {
    SESSION_CLOSED_CODE: SessionClosedError,
    _BACKEND_RESERVED: RequestRejectedError,
    # Not a NotFoundError: the instance is missing, which says nothing of the session that was asked for.
    "1279": PermissionDeniedError,
    "1352": PlanError,
}
_BY_STATUS: Final[Mapping[int, type[IBMQuantumError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    409: ConflictError,
    423: ConflictError,
    429: RateLimitedError,
    # What a server does not implement it has not carried out, and will not when it is asked again.
    501: RequestRejectedError,
}
_MAX_MESSAGE: Final = 500
MAX_VALUES: Final = 32_000_000
"""
Values in the JSON of a response, which take about 60 bytes each when they are read.

IBM runs at most 10 million shots in a sampler's job.
"""
_MAX_DEPTH: Final = 100
"""Levels of JSON in a response. IBM's have five; from 250 on, pydantic cannot write it as JSON again."""
_ERROR_KEYS: Final = frozenset(
    {"errors", "error", "message", "code", "trace", "status_code", "errorCode", "errorMessage", "context"}
)


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """Content of an error response, whatever its shape."""

    message: str
    code: str | None = None
    trace: str | None = None

    @classmethod
    def find_in(cls, body: object) -> ErrorDetails | None:
        """Read ``errors``, one ``error``, IAM's ``errorMessage`` or a bare ``message``; None without any."""
        if not isinstance(body, Mapping):
            return None
        errors = body.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else body.get("error")
        if isinstance(first, Mapping):
            entry: Mapping[str, Any] = first
        elif "errorMessage" in body:
            entry = {"message": body["errorMessage"], "code": body.get("errorCode")}
        elif first is not None or ("message" in body and "id" not in body):
            entry = {"message": body.get("message") or first, "code": body.get("code")}
        else:
            return None
        sentences = [_plain(entry.get(key)).rstrip(".") for key in ("message", "solution")]
        return cls(
            ". ".join(sentence for sentence in sentences if sentence) or "no message",
            _plain(entry.get("code")) or None,
            _plain(body.get("trace")) or None,
        )


def read_json(response: httpx.Response, action: str) -> Any:
    """
    Return the JSON of a successful response, without the secrets that were sent with its request.

    What IBM says of a job or a QPU stands in errors and logs. Results, which are a user's data, are not read
    here.

    :param action: The operation's summary, for messages.
    :raises IBMQuantumError: The one that fits, if the response is an error, no JSON or nested too deep.
    """
    content = response.content
    for secret in _secrets_of(response.request):
        content = content.replace(secret.encode(), b"***")
    body = _parse_json(response, action, content)
    details = ErrorDetails.find_in(body)
    if details and "id" not in body:
        raise _error(response, details, action)
    if _is_deeper_than(body, _MAX_DEPTH):
        raise BadResponseError(
            f"{action}: the response is nested more than {_MAX_DEPTH} levels deep",
            status=response.status_code,
        )
    return body


def read_results(response: httpx.Response, action: str) -> Any:
    """
    Return the JSON of a job's results as it came, or None if there are none (204).

    :raises JobFailedError: If there is plain text in their place: the traceback of a job that failed.
    """
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    if response.is_success and _media_type(response) == "text/plain":
        # The last lines of a traceback say most.
        text = _text(response)[-10 * _MAX_MESSAGE :]
        raise JobFailedError(f"{action}: {redact(text, response.request, None)[-_MAX_MESSAGE:]}")
    body = _parse_json(response, action, response.content)
    if isinstance(body, Mapping) and set(body) <= _ERROR_KEYS and (details := ErrorDetails.find_in(body)):
        raise _error(response, details, action)
    return body


def read_text(response: httpx.Response, action: str) -> str:
    """Return a response of plain text."""
    raise_for_status(response, action)
    if _media_type(response) not in ("text/plain", ""):
        raise BadResponseError(f"{action}: the response is not plain text", status=response.status_code)
    return _text(response)


def read_empty(response: httpx.Response, action: str) -> None:
    """Accept a successful response without content (204), or with an object of JSON; not a web page."""
    raise_for_status(response, action)
    if response.content and not isinstance(read_json(response, action), Mapping):
        raise BadResponseError(f"{action}: the response is not a JSON object", status=response.status_code)


def raise_for_status(response: httpx.Response, action: str) -> None:
    """Raise the error that an unsuccessful response stands for."""
    if response.is_success:
        return
    if response.status_code == 404 and not _is_json(response):
        # IBM says "no such session" in JSON. A proxy's or load balancer's 404 proves nothing.
        raise _not_json_error(response, action)
    if response.status_code < 400:
        raise BadResponseError(f"{action}: unexpected redirect or status", status=response.status_code)
    try:
        details = ErrorDetails.find_in(json.loads(response.content)) if _is_json(response) else None
    except (ValueError, RecursionError):
        details = None
    if details is None:
        media_type = _media_type(response) or "no content type"
        details = ErrorDetails(
            f"no explanation in the response ({media_type}, {len(response.content)} bytes)"
        )
    raise _error(response, details, action)


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of the ``Retry-After`` header, given as a number or as a date."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def redact(text: str, request: httpx.Request, max_length: int | None = _MAX_MESSAGE) -> str:
    """Return the text on one line, cut, and without the secrets that were sent with a request."""
    for secret in _secrets_of(request):
        text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)  # media types are in lower case
    return single_line(text)[:max_length]


def _secrets_of(request: httpx.Request) -> list[str]:
    """Return the token, the API key and the proxy's credentials, in all forms in which they are sent."""
    token = request.headers.get("authorization", "").partition(" ")[2]
    exchange = exchange_of(request)
    return [secret for secret in (token, *(exchange.secrets if exchange else ())) if secret]


class _SharingDecoder(json.JSONDecoder):
    """
    JSON decoder that lets other threads run meanwhile.

    The one of the standard library is written in C and holds Python's global lock until it is done, so that
    in a thread it blocks an event loop all the same. Its Python counterpart is five to ten times as slow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scan_once = py_make_scanner(self)


def _parse_json(response: httpx.Response, action: str, content: bytes) -> Any:
    raise_for_status(response, action)
    if not _is_json(response):
        raise _not_json_error(response, action)
    if _holds_more_values(content, MAX_VALUES):
        raise BadResponseError(
            f"{action}: the response holds more than {MAX_VALUES:,} values, too many to be read here. Its "
            f"{len(content):,} bytes are at {response.request.url.path}",
            status=response.status_code,
        )
    exchange = exchange_of(response.request)
    try:
        return json.loads(content, cls=_SharingDecoder if exchange and exchange.in_thread else None)
    except RecursionError as error:
        raise BadResponseError(
            f"{action}: the response is nested too deep to be read", status=response.status_code
        ) from error
    except ValueError as error:
        broken = BadResponseError(
            f"{action}: the response is broken JSON ({len(response.content)} bytes)",
            status=response.status_code,
        )
        broken.retryable = True  # unlike a web page or a wrong shape, it was cut on its way
        raise broken from error


def _holds_more_values(content: bytes, most: int) -> bool:
    """
    Return True if JSON holds more values, by what begins a list or an object, or ends one of their items.

    A long one is counted in parts, between which other threads have their turn.
    """
    if len(content) <= most:
        return False
    found = 0
    for start in range(0, len(content), 2**20):
        found += sum(content.count(sign, start, start + 2**20) for sign in (b",", b"[", b"{"))
    return found > most


def _plain(value: object) -> str:
    """Return a string or a number, or a list of them, as one string; nothing for anything else."""
    items = value if isinstance(value, list) else [value]
    return ", ".join(str(item) for item in items if isinstance(item, str | int | float))


def _is_deeper_than(value: object, depth: int) -> bool:
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _error(response: httpx.Response, details: ErrorDetails, action: str) -> IBMQuantumError:
    status, code, request = response.status_code, details.code or "", response.request
    kind = _BY_CODE.get(code) if status < 500 else None
    if kind is None:
        by_class = (
            ServerError if status >= 500 else RequestRejectedError if status >= 400 else BadResponseError
        )
        kind = _BY_STATUS.get(status, by_class)
    # The hint comes first: Airflow's log view cuts long lines, and IBM's messages are long.
    hint = f"{ERROR_HINTS[code]}. IBM says: " if code in ERROR_HINTS else ""
    error = kind(
        f"{action}: {hint}{redact(details.message, request)}",
        status=status,
        code=details.code and redact(details.code, request, 64),
        trace=details.trace and redact(details.trace, request, 64),
        retry_after=retry_after(response),
    )
    error.retryable = error.retryable or code == _BACKEND_RESERVED
    return error


def _not_json_error(response: httpx.Response, action: str) -> BadResponseError:
    media_type = redact(_media_type(response), response.request, 64) or "nothing"
    url = response.request.url
    host = f"{url.scheme}://{url.netloc.decode('ascii')}"
    return BadResponseError(
        f"{action}: answered with {media_type} instead of JSON. Is {host} the right host? The base URL of "
        "IBM Quantum's API ends in /api",
        status=response.status_code,
    )


def _media_type(response: httpx.Response) -> str:
    """Return the content type in lower case without its parameters; empty if there is none."""
    content_type: str = response.headers.get("content-type", "")
    return content_type.split(";")[0].strip().lower()


def _is_json(response: httpx.Response) -> bool:
    media_type = _media_type(response)
    return media_type == "application/json" or media_type.endswith("+json")


def _text(response: httpx.Response) -> str:
    """Return the content as UTF-8: a charset that a server names may be any of Python's codecs, even zip."""
    return response.content.decode("utf-8", "replace")
