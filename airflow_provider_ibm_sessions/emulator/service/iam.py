# SPDX-License-Identifier: Apache-2.0
"""IBM Cloud IAM: tokens in exchange for the API key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from .records import Token
from .responses import Response, error, ok

if TYPE_CHECKING:
    from .clock import Clock
    from .identity import Identity
    from .requests import Request
    from .settings import Settings

GRANT = "urn:ibm:params:oauth:grant-type:apikey"


class Iam:
    """IBM Cloud's identity service: exchanges the API key for a bearer token (IBM's IAM API reference)."""

    def __init__(self, settings: Settings, clock: Clock, identity: Identity) -> None:
        self.settings = settings
        self.clock = clock
        self.identity = identity
        self.tokens: list[Token] = []
        self._by_value: dict[str, Token] = {}
        self._secret = secrets.token_bytes(32)

    def exchange(self, request: Request) -> Response:
        """Answer POST /identity/token."""
        if "application/x-www-form-urlencoded" not in request.headers.get("content-type", ""):
            return _malformed("The content type must be application/x-www-form-urlencoded.")
        if "application/json" not in request.headers.get("accept", ""):
            return _malformed("The Accept header must name application/json.")
        form = parse_qs(request.body.decode("utf-8", "replace"), keep_blank_values=True)
        if form.get("grant_type") != [GRANT]:
            return _malformed("The grant_type is missing or not supported.")
        if len(form.get("apikey", [])) != 1 or not form["apikey"][0]:
            return _malformed("The property apikey is missing or empty.")
        known = form["apikey"][0] == self.identity.api_key
        return self._grant() if known else _unknown_key(request)

    def _grant(self) -> Response:
        token = self._issue()
        return ok(
            {
                "access_token": token.value,
                "refresh_token": "not_supported",
                "token_type": "Bearer",
                "expires_in": int(token.expires) - int(token.issued),
                "expiration": int(token.expires),
                "scope": "ibm openid",
            }
        )

    def _issue(self) -> Token:
        issued = int(self.clock.now())
        expires = issued + self.settings.token_lifetime
        claims = {
            "iam_id": self.identity.user_id,
            "jti": str(uuid.uuid4()),
            "iat": issued,
            "exp": expires,
            "iss": "https://iam.cloud.ibm.com/identity",
            "grant_type": GRANT,
            "scope": "ibm openid",
        }
        token = Token(_jwt(claims, self._secret), issued, expires)
        self.tokens.append(token)
        self._by_value[token.value] = token
        return token

    def valid(self, value: str) -> bool:
        """Return true for a token issued here that is neither expired nor revoked."""
        token = self._by_value.get(value)
        if token is None or token.revoked or self.clock.now() >= token.expires:
            return False
        token.uses += 1
        return True

    def revoke(self) -> None:
        """Make every token issued so far invalid."""
        for token in self.tokens:
            token.revoked = True


def _malformed(message: str) -> Response:
    return error(400, message, shape="iam")


def _unknown_key(request: Request) -> Response:
    context = {
        "requestId": uuid.uuid4().hex,
        "requestType": "incoming.Identity_Token",
        "userAgent": request.headers.get("user-agent", ""),
        "url": "https://iam.cloud.ibm.com",
        "locale": "en_US",
    }
    message = "Provided API key could not be found."
    body = {"errorCode": "BXNIM0415E", "errorMessage": message, "context": context}
    return Response(400, json.dumps(body).encode())


def _jwt(claims: dict[str, Any], secret: bytes) -> str:
    parts = [_b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{_b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
