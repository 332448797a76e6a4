# SPDX-License-Identifier: Apache-2.0
"""The credentials of an IBM Quantum instance, and where to send them."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, NoReturn
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx

from airflow_provider_ibm_sessions.client._http import tls
from airflow_provider_ibm_sessions.client.errors import ConfigurationError
from airflow_provider_ibm_sessions.client.validation import (
    looks_like_secret,
    short_repr,
    validate_bool,
    validate_currency,
    validate_price,
    validate_seconds,
)

log = logging.getLogger(__name__)

DEFAULT_API_VERSION: Final = "2026-04-15"
DEFAULT_IAM_URL: Final = "https://iam.cloud.ibm.com"
DEFAULT_TIMEOUT: Final = 60.0
DEFAULT_CURRENCY: Final = "USD"
MAX_TIMEOUT: Final = 3600.0
PRIVATE_IAM_URL: Final = "https://private.iam.cloud.ibm.com"

ENV_API_KEY: Final = "IBM_CLOUD_API_KEY"
ENV_CRN: Final = "IBM_QUANTUM_CRN"
ENV_API_VERSION: Final = "IBM_QUANTUM_API_VERSION"

CRN_FORM: Final = "crn:v1:bluemix:public:quantum-computing:<region>:a/<account>:<instance>::"
_IBM_DOMAIN: Final = ".cloud.ibm.com"
_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\.?")
# Accounts and instances have 32 and 36 characters: what is as long as an API key is one in the wrong field.
_NAME: Final = r"[A-Za-z0-9._~-]{1,39}"
_CRN_PARTS: Final = {
    "the version": "v1",
    "the cloud's name": _NAME,
    "the cloud's type": _NAME,
    "the service, quantum-computing,": "quantum-computing",
    "the region": "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,37}[A-Za-z0-9_])?",
    "the account": f"a/{_NAME}",
    "the instance": _NAME,
}
_MAX_URL: Final = 1000


class Secret:
    """
    A string that is neither shown nor serialized: its value is had from :meth:`reveal` only.

    Equal and hashable by value, so that clients with equal credentials can be shared. Copies are the same
    object. Pickling, ``__getstate__`` and Airflow's ``serialize`` raise ``TypeError``.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, for a request and nothing else."""
        return self._value

    def serialize(self) -> NoReturn:
        """Refuse: Airflow calls this for what a task returns, to store it in its database."""
        raise TypeError(
            "Credentials are not serialized: hand on the connection id, and read them where needed"
        )

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        self.serialize()

    def __getstate__(self) -> NoReturn:
        self.serialize()

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Secret:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


@dataclass(frozen=True, slots=True, init=False)
class Credentials:
    """
    An API key, the service instance it is for, and how to reach it. Validated when made; hashable.

    No error shows the value of a field that can hold a secret: not of the key or the proxy, and not of the
    CRN or a URL either, because keys are pasted into the wrong field.

    :param api_key: IBM Cloud API key. Sent to IAM only; ``api_key.reveal()`` is its value.
    :param crn: Cloud Resource Name of the instance; its sixth field is the region.
    :param api_version: Sent as ``IBM-API-Version``, a date (``YYYY-MM-DD``).
    :param url: API base URL, to which ``/v1/...`` is added. By default it follows from the CRN's region.
    :param iam_url: Base URL of IAM, to which ``/identity/token`` is added.
    :param private_endpoint: Use IBM Cloud's private network endpoints.
    :param proxy: Proxy URL (``http://...`` or ``https://...``) for every request. May hold a password;
        ``proxy.reveal()`` is its value.
    :param verify: True, False (do not check certificates), or the path of a file of CA certificates.
    :param timeout: Seconds that one request may take, from connecting to the last byte of its response.
    :param emulator: True if they are an emulator's. Changes no request: reports and links tell of it.
    :param price_per_second: What a billed second costs, by the instance's plan; IBM's API tells no prices.
    :param currency: Code of the price's currency, such as USD.
    :raises ConfigurationError: Naming the field that is wrong and what is allowed.
    """

    api_key: Secret = field(repr=False)
    crn: str
    api_version: str
    url: str
    iam_url: str
    private_endpoint: bool
    proxy: Secret | None = field(repr=False)
    verify: bool | str
    timeout: float
    emulator: bool
    price_per_second: Decimal | None
    currency: str

    def __init__(
        self,
        api_key: str | Secret,
        crn: str,
        api_version: str = DEFAULT_API_VERSION,
        url: str = "",
        iam_url: str = "",
        private_endpoint: bool | str = False,
        proxy: str | Secret | None = None,
        verify: bool | str = True,
        timeout: float = DEFAULT_TIMEOUT,
        emulator: bool | str = False,
        price_per_second: Decimal | float | str | None = None,
        currency: str = DEFAULT_CURRENCY,
    ) -> None:
        key = api_key.reveal() if isinstance(api_key, Secret) else api_key
        proxy_url = proxy.reveal() if isinstance(proxy, Secret) else proxy
        values = {"api_key": key, "crn": crn, "api_version": api_version, "url": url, "iam_url": iam_url}
        pasted: dict[str, object] = {**values, "proxy": proxy_url, "verify": verify}
        for name, each in pasted.items():
            _check_pasted(each, name)
        _check_key(key)
        for name, each in pasted.items():
            if name != "api_key" and isinstance(each, str) and looks_like_secret(key) and key in each:
                raise _refusal(name, _HOLDS_KEY)
        _check_crn(crn)
        _check_version(api_version)
        _check_verify(verify)
        private = validate_bool(private_endpoint, "private_endpoint")
        checked = {
            "api_key": Secret(key),
            "crn": crn,
            "api_version": api_version,
            "url": _api_url(url, crn, private=private),
            "iam_url": _iam_url(iam_url, private=private),
            "private_endpoint": private,
            "proxy": None if proxy_url is None else Secret(_proxy_url(proxy_url)),
            "verify": verify,
            "timeout": validate_seconds(timeout, "timeout", at_most=MAX_TIMEOUT),
            "emulator": validate_bool(emulator, "emulator"),
            "price_per_second": None if price_per_second is None else validate_price(price_per_second),
            "currency": validate_currency(currency),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_emulator()
        self._check_plain_http()
        self._warn_of_risks()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Credentials:
        """
        Read ``IBM_CLOUD_API_KEY``, ``IBM_QUANTUM_CRN`` and, if set, ``IBM_QUANTUM_API_VERSION``.

        :raises ConfigurationError: Naming the variables that are missing or wrong.
        """
        missing = [name for name in (ENV_API_KEY, ENV_CRN) if not environ.get(name)]
        if missing:
            raise ConfigurationError(f"Set {' and '.join(missing)} in the environment", field=missing[0])
        version = environ.get(ENV_API_VERSION) or DEFAULT_API_VERSION
        try:
            return cls(api_key=environ[ENV_API_KEY], crn=environ[ENV_CRN], api_version=version)
        except ConfigurationError as error:
            variables = {"api_key": ENV_API_KEY, "crn": ENV_CRN, "api_version": ENV_API_VERSION}
            variable = variables.get(error.field or "", "the environment")
            raise ConfigurationError(f"{variable}: {error.message}", field=error.field) from None

    @property
    def region(self) -> str:
        """Return the region of the instance, from its CRN."""
        return self.crn.split(":")[5]

    def _check_emulator(self) -> None:
        """Refuse to call IBM's own host an emulator: its jobs are billed."""
        if self.emulator and f".{urlsplit(self.url).hostname}".endswith(_IBM_DOMAIN):
            raise ConfigurationError(
                "emulator must be false, or host the emulator's address: jobs at IBM's host are billed",
                field="emulator",
            )

    def _check_plain_http(self) -> None:
        """Refuse a proxy that would read the API key or a token: plain http is not tunnelled through it."""
        for name, url in (("iam_url", self.iam_url), ("url", self.url)):
            if self.proxy and url.startswith("http:"):
                raise ConfigurationError(
                    f"proxy must be empty where {name} is plain http, as on loopback: the proxy could read "
                    "the API key or its token",
                    field="proxy",
                )

    def _warn_of_risks(self) -> None:
        for name, url in (("iam_url", self.iam_url), ("url", self.url)):
            host = urlsplit(url).hostname or ""
            if is_loopback(host):
                continue
            if self.verify is False:
                _warn_once(
                    f"Certificates are not checked (verify=false): anyone between here and {host} can read "
                    "the API key. Set verify to the path of a file of CA certificates"
                )
            if name == "iam_url" and not f".{host}".endswith(_IBM_DOMAIN):
                _warn_once(
                    f"The API key is sent to {host}, which is not IBM's: check iam_url of the connection"
                )


@cache
def _warn_once(message: str) -> None:
    """Log a warning once in a process: credentials are made again for each hook and each short client."""
    log.warning("%s", message)


def default_url(crn: str, *, private: bool) -> str:
    """Return IBM's public or private API base URL for a CRN's region; ``us-east`` has no prefix."""
    region = crn.split(":")[5]
    if private:
        return f"https://private.{region}.quantum.cloud.ibm.com/api"
    return f"https://{'' if region == 'us-east' else region + '.'}quantum.cloud.ibm.com/api"


def is_loopback(host: str) -> bool:
    """Return True if a host name or address is this machine's own loopback."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _check_pasted(value: object, name: str) -> None:
    """Name what comes along when a value is copied: quotes, white space, invisible characters."""
    if not isinstance(value, str) or not value:
        return
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        raise _refusal(name, "stands in quotes, remove them")
    if value != value.strip():
        raise _refusal(name, "begins or ends with white space, remove it")
    # Cf: invisible, such as a zero-width space or a byte order mark.
    if hidden := [char for char in value if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]:
        raise _refusal(name, f"holds the invisible character U+{ord(hidden[0]):04X}, remove it")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key:
        raise _refusal("api_key", "is empty")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise _refusal("api_key", "holds a space or a character that no key has, copy it again")


def _check_crn(crn: object) -> None:
    """Check a CRN, and name the part that is wrong without showing it."""
    if crn is None or (isinstance(crn, str) and not crn):
        raise _refusal("crn", "is empty")
    if not isinstance(crn, str) or not crn.isascii() or not crn.startswith("crn:"):
        raise _refusal("crn", "does not begin with 'crn:'")
    parts = crn.split(":")[1:]
    for (name, pattern), part in zip(_CRN_PARTS.items(), parts + [""] * len(_CRN_PARTS), strict=False):
        if not re.fullmatch(pattern, part):
            raise _refusal("crn", f"lacks {name}, or has a wrong one")
    if parts[len(_CRN_PARTS) :] != ["", ""]:
        raise _refusal("crn", "does not end with '::' behind the instance")


def _check_version(version: object) -> None:
    try:
        if isinstance(version, str) and date.fromisoformat(version).isoformat() == version:
            return
    except ValueError:
        pass
    raise _refusal("api_version", f"is no date ({short_repr(version)})")


def _check_verify(verify: object) -> None:
    if isinstance(verify, bool):
        return
    if not isinstance(verify, str) or not verify:
        raise _refusal("verify", f"is no path ({short_repr(verify)})")
    tls.context(verify)


def _proxy_url(proxy: object) -> str:
    parts = split_url(proxy)
    if not isinstance(proxy, str) or parts is None:
        raise _refusal("proxy", _problem_of(proxy))
    if _holds_key(parts):
        raise _refusal("proxy", _HOLDS_KEY)
    return proxy


def _api_url(url: object, crn: str, *, private: bool) -> str:
    if isinstance(url, str) and not url:
        return default_url(crn, private=private)
    return _base_url(url, "url", drop="/v1")


def _iam_url(url: object, *, private: bool) -> str:
    if isinstance(url, str) and url in ("", DEFAULT_IAM_URL):
        return PRIVATE_IAM_URL if private else DEFAULT_IAM_URL
    return _base_url(url, "iam_url", drop="/identity/token")


def _base_url(url: object, name: str, drop: str) -> str:
    """Return a base URL in one form: no trailing slash, no ``drop`` that was pasted along."""
    parts = split_url(url)
    if parts is None:
        raise _refusal(name, _problem_of(url))
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _refusal(name, "must not hold a user, a password, a query or a fragment")
    if _holds_key(parts):
        raise _refusal(name, _HOLDS_KEY)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise _refusal(name, "must be https: plain http is allowed to loopback addresses only")
    path = parts.path.rstrip("/").removesuffix(drop).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _holds_key(url: SplitResult) -> bool:
    """
    Return True if the host or the path of a URL holds what looks like an API key.

    A host is asked for by name, and shown in errors. Names that long are rare, and written in lower case.
    """
    labels = url.netloc.rpartition("@")[2].partition(":")[0].split(".")
    return any(looks_like_secret(part) for part in url.path.split("/")) or any(
        looks_like_secret(label) and (len(labels) == 1 or label != label.lower()) for label in labels
    )


def _problem_of(url: object) -> str:
    """Say what is wrong with a URL without showing it: an API key or a password may stand in it."""
    if not isinstance(url, str):
        return f"is no URL ({type(url).__name__})"
    if not url:
        return "is empty"
    if len(url) > _MAX_URL:
        return f"has more than {_MAX_URL} characters"
    if not re.fullmatch(r"[!-~]+", url):
        return "holds a space or a character that is not ASCII"
    if not re.match("https?://", url, re.IGNORECASE):
        return "does not begin with https://"
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    return "has a wrong port" if port == 0 else "has a wrong host"


def split_url(url: object) -> SplitResult | None:
    """Split an http or https URL; return None if httpx, ssl or the resolver would refuse it later."""
    if not isinstance(url, str) or len(url) > _MAX_URL or not re.fullmatch(r"[!-~]+", url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # Brackets are for IPv6 alone: "[v1.x]" is valid by RFC 3986, and nothing can connect to it.
        valid = isinstance(_address(host), IPv6Address) if "[" in parts.netloc else _is_host(host)
        valid = valid and parts.scheme in ("http", "https") and parts.port != 0 and "%" not in host
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        return None
    return parts if valid else None


def _is_host(name: str) -> bool:
    return _address(name) is not None or (len(name) < 254 and _HOST.fullmatch(name) is not None)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _refusal(name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{name} {problem}. It {_ALLOWED[name]}", field=name)


_HOLDS_KEY: Final = "holds what looks like an API key; the key belongs into the password"
_QUOTES: Final = "\"'`\u201c\u201d\u2018\u2019"
_ALLOWED: Final = {
    "api_key": "must be an IBM Cloud API key: printable ASCII without spaces or line breaks",
    "crn": f"must look like {CRN_FORM}",
    "api_version": f"must be a date such as {DEFAULT_API_VERSION}",
    "url": "must be a URL such as https://host/api",
    "iam_url": f"must be a URL such as {DEFAULT_IAM_URL}",
    "proxy": "must be a URL such as http://proxy.example:3128",
    "verify": "must be true, false or the path of a readable file of CA certificates",
}
