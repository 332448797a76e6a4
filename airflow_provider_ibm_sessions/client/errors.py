# SPDX-License-Identifier: Apache-2.0
"""
The tree of errors that this package raises.

::

    IBMQuantumError
    ├── ConfigurationError          a field, an argument or an id is wrong; nothing was sent
    ├── RequestRejectedError        IBM refused the request (400 and the like)
    │   ├── AuthenticationError     the API key or its token is not accepted (IAM 400, 401)
    │   ├── PermissionDeniedError   the key may not do this (403)
    │   │   └── PlanError           the instance's plan may not do this (1352)
    │   ├── NotFoundError           no such session, job or instance (404)
    │   ├── ConflictError           the session or job is in a state that forbids this (409, 423)
    │   │   └── SessionClosedError  the session takes no more jobs, or closed early (1217)
    │   └── RateLimitedError        too many requests (429)
    ├── ServerError                 IBM failed (5xx)
    ├── TransportError              no complete response: connection, timeout, TLS, proxy
    ├── BadResponseError            a response that is not what IBM documents
    ├── NoBackendError              no QPU meets the requirements
    ├── OutcomeUnknownError         a request that must not be repeated may have been carried out
    └── JobFailedError              a job failed or was cancelled

Every error is safe to log: none holds the API key or a token.
"""

from __future__ import annotations

from typing import Any, Final

SESSION_CLOSED_CODE: Final = "1217"
"""IBM's code where a session is closed: of a job that it has ended, or of a submission."""


class IBMQuantumError(Exception):
    """
    Base of all errors of this package.

    :param message: The problem, and what a person can do about it.
    :param status: HTTP status of IBM's response, if there was one.
    :param code: IBM's own error code (``1352``, ``"not_found"``, ``"BXNIM0415E"``), as a string.
    :param trace: IBM's trace id; its support asks for it.
    :param retry_after: Seconds that IBM asked to wait before the next request.
    :param sent: True if the request may have reached IBM, False if it cannot have been carried out.
    """

    retryable: bool = False
    """True if the same call can succeed later without a change of input, key or rights."""

    retry_immediately: bool = False
    """True if it can succeed without a delay: only the refresh of a token that is still valid has failed."""

    from_iam: bool = False
    """True if IAM refused the API key, as opposed to IBM Quantum refusing a request."""

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


class ConfigurationError(IBMQuantumError, ValueError, TypeError):
    """
    A wrong field, argument or id. Raised before anything is sent.

    Also a ``TypeError``: before Airflow 3.4, any other error in a trigger's constructor stops the triggerer,
    and another version of this package may have stored arguments that this one refuses.

    :param message: The problem, and what is allowed.
    :param field: Name of the field, argument or environment variable that is wrong.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, sent=False)
        self.field = field


class RequestRejectedError(IBMQuantumError):
    """A request that IBM understood and refused; it was not carried out."""


class AuthenticationError(RequestRejectedError):
    """An API key, or a token made from it, that is not accepted."""


class PermissionDeniedError(RequestRejectedError):
    """A valid API key without the right to do this."""


class PlanError(PermissionDeniedError):
    """An instance whose plan does not allow this (IBM's code 1352: no dedicated sessions on Open)."""


class NotFoundError(RequestRejectedError):
    """No such session, job or instance, or the instance lives in another region (code 1279)."""


class ConflictError(RequestRejectedError):
    """A session or job in a state that forbids this."""


class SessionClosedError(ConflictError):
    """A session that closed before its work was done, or takes no more jobs (IBM's code 1217)."""


class RateLimitedError(RequestRejectedError):
    """Too many requests. Not carried out; ``retry_after`` is the delay that IBM asked for, if it did."""

    retryable = True


class ServerError(IBMQuantumError):
    """A 5xx from IBM. The request may have been carried out."""

    retryable = True


class TransportError(IBMQuantumError):
    """No complete response. ``sent`` is True if the request may have been carried out."""

    retryable = True


class BadResponseError(IBMQuantumError):
    """A response that IBM does not document: a web page, another shape, too large, or broken on its way."""


class NoBackendError(IBMQuantumError):
    """
    No QPU that meets the requirements.

    :param retryable: True if one may meet them later: it may come back online, or its queue get shorter.
    :param reasons: By the name of the QPU, why not.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        reasons: dict[str, str] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.retryable = retryable
        self.reasons = reasons or {}


class OutcomeUnknownError(IBMQuantumError):
    """
    A request that must not be repeated, with no response that says if it was carried out.

    :param candidates: Ids of the sessions or jobs that may be its outcome, as far as they are known.
    :param facts: The other arguments of :class:`IBMQuantumError`.
    """

    def __init__(self, message: str, *, candidates: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.candidates = candidates


class JobFailedError(IBMQuantumError):
    """A job that failed or was cancelled; ``code`` is IBM's ``reason_code``."""


USER_ACTION_REQUIRED = (ConfigurationError, AuthenticationError, PermissionDeniedError)
"""Errors that stay until a person changes the input, the key or its rights: closing gives up on them too."""
