# SPDX-License-Identifier: Apache-2.0
"""
The proxy of a connection, or that of the environment.

The environment is read here and not by httpx, which refuses valid values of ``NO_PROXY`` (such as
``fd00::/8``) and raises untyped errors for proxies that it cannot use.
"""

from __future__ import annotations

import ssl
import urllib.request
from typing import Any

import httpx

from airflow_provider_ibm_sessions.client.credentials import Credentials, is_loopback, split_url
from airflow_provider_ibm_sessions.client.errors import ConfigurationError


def proxy_options(credentials: Credentials, context: ssl.SSLContext) -> dict[str, Any]:
    """
    Return httpx's arguments for the proxy of requests, and for the hosts that are reached without it.

    Loopback is always direct: plain http is allowed there because it stays on the machine.

    :param context: The TLS context, which holds for a proxy spoken to by TLS as well.
    :raises ConfigurationError: If the environment names a proxy that cannot be used, naming the variable.
    """
    if credentials.proxy:
        return {"proxy": _proxy(credentials.proxy.reveal(), context), "mounts": None, "trust_env": False}
    environment = urllib.request.getproxies_environment()
    # All that is not loopback is https.
    name = next((name for name in ("https", "all") if environment.get(name)), None)
    if name is None:
        return {"proxy": None, "mounts": None, "trust_env": False}
    hosts = [httpx.URL(url).host for url in (credentials.url, credentials.iam_url)]
    direct = [host for host in hosts if is_loopback(host) or urllib.request.proxy_bypass(host)]
    if len(direct) == len(hosts):
        return {"proxy": None, "mounts": None, "trust_env": False}
    value = environment[name]
    url = value if "://" in value else f"http://{value}"
    if split_url(url) is None:
        variable = f"{name}_proxy".upper()
        raise ConfigurationError(
            f"{variable} of the environment must be a URL such as http://proxy.example:3128; others, such as "
            "socks5://, are not supported. Change it, or add the hosts to NO_PROXY",
            field=variable,
        )
    mounts = {f"all://[{host}]" if ":" in host else f"all://{host}": None for host in direct}
    return {"proxy": _proxy(url, context), "mounts": mounts, "trust_env": False}


def _proxy(url: str, context: ssl.SSLContext) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=context if url.startswith("https") else None)
