# SPDX-License-Identifier: Apache-2.0
"""
What can go wrong between us and IBM Quantum, as one tree.

::

    IBMQuantumError
    ├── ConfigurationError          a field, an argument or an id is wrong; nothing was sent
    ├── RequestRejectedError        IBM refused the request (400 and the like)
    │   ├── AuthenticationError     the API key or its token is not accepted (IAM 400, 401)
    │   ├── PermissionDeniedError   the key may not do this (403)
    │   │   └── PlanError           the instance's plan may not do this (1352)
    │   ├── NotFoundError           no such session, job or instance (404)
    │   ├── ConflictError           the thing is in a state that forbids this (409, 423)
    │   │   └── SessionClosedError  the session takes no more jobs, or closed early (1217)
    │   └── RateLimitedError        too many requests (429)
    ├── ServerError                 IBM failed (5xx)
    ├── TransportError              no complete reply: connection, timeout, TLS, proxy
    ├── BadResponseError            a reply that is not what IBM documents
    ├── OutcomeUnknownError         a request that must not be repeated may have been carried out
    ├── JobFailedError              a job ended in failure or was cancelled
    └── DeadlineExceededError       the time allowed for waiting is over

Every error is safe to log: none holds the API key or a token.
"""

from __future__ import annotations

from typing import Any


class IBMQuantumError(Exception):
    """
    Base of all errors of this package.

    :param message: What went wrong, in words a person can act on.
    :param status: HTTP status of IBM's reply, if there was one.
    :param code: IBM's own error code (``1352``, ``"not_found"``, ``"BXNIM0415E"``), as text.
    :param trace: IBM's trace id; its support asks for it.
    :param retry_after: Seconds IBM asked to wait before the next request.
    :param sent: Whether the request may have reached IBM. False means: surely not carried out.
    """

    retryable: bool = False
    """Whether the same call can succeed later without anybody changing anything."""

    retry_immediately: bool = False
    """Whether it can succeed at once: only the renewal of a token that is valid still has failed."""

    from_iam: bool = False
    """Whether it is IAM's answer to the API key, and not IBM Quantum's to a request."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        trace: str | None = None,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.trace = trace
        self.retry_after = retry_after
        self.sent = sent

    def __str__(self) -> str:
        facts = {"HTTP": self.status, "code": self.code, "trace": self.trace}
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        return f"{self.message} ({known})" if known else self.message


class ConfigurationError(IBMQuantumError, ValueError):
    """A field, an argument or an id is wrong. Raised before anything is sent."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, sent=False)
        self.field = field


class RequestRejectedError(IBMQuantumError):
    """IBM understood the request and refused it; it was not carried out."""


class AuthenticationError(RequestRejectedError):
    """The API key, or the token made from it, is not accepted."""


class PermissionDeniedError(RequestRejectedError):
    """The API key is valid but may not do this."""


class PlanError(PermissionDeniedError):
    """The plan of the instance does not allow this (IBM's code 1352: no dedicated sessions on Open)."""


class NotFoundError(RequestRejectedError):
    """No such session, job or instance, or the instance lives in another region (code 1279)."""


class ConflictError(RequestRejectedError):
    """The session or job is in a state that forbids this."""


class SessionClosedError(ConflictError):
    """The session closed before its work was done, or takes no more jobs (IBM's code 1217)."""


class RateLimitedError(RequestRejectedError):
    """Too many requests. Not carried out; ``retry_after`` says how long to wait, if IBM said so."""

    retryable = True


class ServerError(IBMQuantumError):
    """IBM failed with a 5xx. Whether the request was carried out is not known."""

    retryable = True


class TransportError(IBMQuantumError):
    """No complete reply came. ``sent`` tells whether the request may have been carried out."""

    retryable = True


class BadResponseError(IBMQuantumError):
    """The reply is not what IBM documents: a web page, another shape, too large; or broken on its way."""


class OutcomeUnknownError(IBMQuantumError):
    """
    A request that must not be repeated was sent, and no reply tells whether it was carried out.

    :param candidates: Ids of the sessions or jobs that may be its outcome, as far as they are known.
    """

    def __init__(self, message: str, *, candidates: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.candidates = candidates


class JobFailedError(IBMQuantumError):
    """A job ended as failed or cancelled; ``code`` is IBM's ``reason_code``."""


class DeadlineExceededError(IBMQuantumError):
    """The time allowed for waiting is over."""


USER_ACTION_REQUIRED = (ConfigurationError, AuthenticationError, PermissionDeniedError)
"""Errors that stay until somebody changes the input, the key or its rights: even closing gives up on them."""
