# SPDX-License-Identifier: Apache-2.0
"""
The proxy of a connection, or that of the environment.

The environment is read here and not by httpx, which refuses valid values of ``NO_PROXY`` (such as
``fd00::/8``) and raises untyped errors for proxies that it cannot use.
"""

from __future__ import annotations

import urllib.request

import httpx

from airflow_provider_ibm_sessions.client.credentials import Credentials, is_loopback, split_url
from airflow_provider_ibm_sessions.client.errors import ConfigurationError


def proxy_url(credentials: Credentials, url: str) -> str | None:
    """
    Return the URL of the proxy that requests to a URL go through: the connection's, or the environment's.

    Plain http is for loopback addresses only, and stays on this machine: it would show a proxy the API key.

    :raises ConfigurationError: If the environment names a proxy that cannot be used, naming the variable.
    """
    target = httpx.URL(url)
    if credentials.proxy:
        address = credentials.proxy.reveal()
        leaves_machine = target.scheme == "http" and not is_loopback(httpx.URL(address).host)
        return None if leaves_machine else address
    environment = urllib.request.getproxies_environment()
    name = next((name for name in (target.scheme, "all") if environment.get(name)), None)
    if name is None or is_loopback(target.host) or urllib.request.proxy_bypass(target.host):
        return None
    value = environment[name]
    address = value if "://" in value else f"http://{value}"
    if split_url(address) is None:
        variable = f"{name}_proxy".upper()
        raise ConfigurationError(
            f"{variable} of the environment must be a URL such as http://proxy.example:3128; others, such as "
            "socks5://, are not supported. Change it, or add the hosts to NO_PROXY",
            field=variable,
        )
    return address
