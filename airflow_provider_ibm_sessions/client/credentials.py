# SPDX-License-Identifier: Apache-2.0
"""Who calls IBM Quantum, and where it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

from airflow_provider_ibm_sessions.client._http import tls
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import short_repr, validate_bool, validate_seconds

DEFAULT_API_VERSION: Final = "2026-04-15"
DEFAULT_IAM_URL: Final = "https://iam.cloud.ibm.com"
DEFAULT_TIMEOUT: Final = 60.0
MAX_TIMEOUT: Final = 3600.0
PRIVATE_IAM_URL: Final = "https://private.iam.cloud.ibm.com"

ENV_API_KEY: Final = "IBM_CLOUD_API_KEY"
ENV_CRN: Final = "IBM_QUANTUM_CRN"
ENV_API_VERSION: Final = "IBM_QUANTUM_API_VERSION"

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
_NAME = r"[A-Za-z0-9._~-]{1,100}"
_CRN = re.compile(rf"crn:v1:{_NAME}:{_NAME}:quantum-computing:{_LABEL}:a/{_NAME}:{_NAME}::")
_MAX_URL = 1000


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    An API key, the service instance it is for, and how to reach it. Checked when made; hashable.

    :param api_key: IBM Cloud API key. Sent to IAM only; never shown in a repr.
    :param crn: Cloud Resource Name of the instance; its sixth field is the region.
    :param api_version: Sent as ``IBM-API-Version``, a date (``YYYY-MM-DD``).
    :param url: API base URL, to which ``/v1/...`` is added. By default it follows from the CRN's region.
    :param iam_url: Base URL of IAM, to which ``/identity/token`` is added.
    :param private_endpoint: Use IBM Cloud's private network endpoints.
    :param proxy: Proxy URL (``http://...`` or ``https://...``) for every request. May hold a password, so
        it is not shown either.
    :param verify: True, False (do not check certificates), or the path of a CA bundle.
    :param timeout: Seconds one request may take, from connecting to the last byte of its reply.
    :raises ConfigurationError: Naming the field that is wrong and what is allowed.
    """

    api_key: str = field(repr=False)
    crn: str
    api_version: str = DEFAULT_API_VERSION
    url: str = ""
    iam_url: str = ""
    private_endpoint: bool = False
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True
    timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        _check_key(self.api_key)
        _check_crn(self.crn)
        _check_version(self.api_version)
        _check_verify(self.verify)
        _check_proxy(self.proxy)
        self._set("timeout", validate_seconds(self.timeout, "timeout", at_most=MAX_TIMEOUT))
        self._set("private_endpoint", validate_bool(self.private_endpoint, "private_endpoint"))
        self._set("url", _base_url(self.url, "url", drop="/v1") if self.url else self._default_url())
        self._set("iam_url", self._checked_iam_url())

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Credentials:
        """
        Read ``IBM_CLOUD_API_KEY``, ``IBM_QUANTUM_CRN`` and, if set, ``IBM_QUANTUM_API_VERSION``.

        :raises ConfigurationError: Naming the variables that are missing.
        """
        missing = [name for name in (ENV_API_KEY, ENV_CRN) if not environ.get(name)]
        if missing:
            raise ConfigurationError(f"Set {' and '.join(missing)} in the environment", field=missing[0])
        version = environ.get(ENV_API_VERSION) or DEFAULT_API_VERSION
        return cls(api_key=environ[ENV_API_KEY], crn=environ[ENV_CRN], api_version=version)

    @property
    def region(self) -> str:
        """The region of the instance, from its CRN."""
        return self.crn.split(":")[5]

    def _default_url(self) -> str:
        """IBM's public or private host for the region; ``us-east`` is the host without a prefix."""
        if self.private_endpoint:
            return f"https://private.{self.region}.quantum.cloud.ibm.com/api"
        prefix = "" if self.region == "us-east" else f"{self.region}."
        return f"https://{prefix}quantum.cloud.ibm.com/api"

    def _checked_iam_url(self) -> str:
        default = PRIVATE_IAM_URL if self.private_endpoint else DEFAULT_IAM_URL
        if self.iam_url in ("", DEFAULT_IAM_URL):
            return default
        return _base_url(self.iam_url, "iam_url", drop="/identity/token")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _check_key(key: object) -> None:
    # The key itself must not be shown, however wrong it is.
    if not isinstance(key, str) or not key:
        raise ConfigurationError("api_key is empty: give an IBM Cloud API key", field="api_key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "api_key must be printable ASCII without spaces or line breaks: copy the IBM Cloud API key again",
            field="api_key",
        )


def _check_crn(crn: object) -> None:
    if not isinstance(crn, str) or not _CRN.fullmatch(crn):
        raise ConfigurationError(
            "crn must look like crn:v1:bluemix:public:quantum-computing:<region>:a/<account>:<instance>::, "
            f"got {short_repr(crn) if str(crn).startswith('crn:') else 'something else'}",
            field="crn",
        )


def _check_version(version: object) -> None:
    try:
        if isinstance(version, str) and date.fromisoformat(version).isoformat() == version:
            return
    except ValueError:
        pass
    raise ConfigurationError(
        f"api_version must be a date such as {DEFAULT_API_VERSION}, got {short_repr(version)}",
        field="api_version",
    )


def _check_verify(verify: object) -> None:
    if isinstance(verify, bool):
        return
    try:
        if isinstance(verify, str) and verify:
            tls.context(verify)
            return
    except (OSError, ValueError):  # not there, not readable, no certificate in it, no path at all
        pass
    raise ConfigurationError(
        "verify must be true, false or the path of a readable file of CA certificates, "
        f"got {short_repr(verify)}",
        field="verify",
    )


def _check_proxy(proxy: object) -> None:
    if proxy is not None and _split(proxy) is None:
        # Not shown: a proxy URL may hold a password.
        raise ConfigurationError("proxy must be a URL such as http://proxy.example:3128", field="proxy")


def _base_url(url: object, field: str, drop: str) -> str:
    """Check a base URL and write it in one form: no trailing slash, no ``drop`` that was pasted along."""
    parts = _split(url)
    # Not shown where it may hold a password.
    got = "one with a user" if "@" in str(url) else short_repr(url)
    if parts is None:
        raise ConfigurationError(f"{field} must be a URL such as https://host/api, got {got}", field=field)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{field} must not hold a user, a password, a query or a fragment", field=field
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            f"{field} must be https: plain http is for loopback addresses only, got {got}", field=field
        )
    path = parts.path.rstrip("/").removesuffix(drop).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _split(url: object) -> SplitResult | None:
    """The parts of an http or https URL, or None if httpx, ssl or the resolver would refuse it later."""
    if not isinstance(url, str) or len(url) > _MAX_URL or not re.fullmatch(r"[!-~]+", url):
        return None
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        return None
    return parts if valid else None


def _is_host(name: str) -> bool:
    return _address(name) is not None or (len(name) < 254 and _HOST.fullmatch(name) is not None)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
