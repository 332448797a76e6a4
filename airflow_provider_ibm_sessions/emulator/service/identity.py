# SPDX-License-Identifier: Apache-2.0
"""API key, instance and user."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Identity:
    """The one user, API key and instance that a service knows."""

    api_key: str
    crn: str
    user_id: str

    @classmethod
    def random(cls) -> Self:
        """Return an identity that no other service has."""
        account, instance = secrets.token_hex(16), uuid.uuid4()
        return cls(
            api_key=secrets.token_urlsafe(33),
            crn=f"crn:v1:bluemix:public:quantum-computing:us-east:a/{account}:{instance}::",
            user_id=f"IBMid-{secrets.token_hex(5).upper()}",
        )

    @property
    def account_id(self) -> str:
        """Return the account of the instance, from its CRN."""
        return self.crn.split(":")[6].removeprefix("a/")
