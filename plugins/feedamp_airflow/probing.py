"""What the Test button asks: is there a FeedAMP at this address, and does it take our client?"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from feedamp.errors import AuthorizationError, ClientRefusedError, FeedAmpError, TransientError
from feedamp.parts import Connection
from feedamp.token_endpoint import TokenEndpoint
from feedamp.transport import Transport

_TLS_WORDS = ("Certificate", "SSL")


async def probe(account: Connection, *, last_success: Callable[[], datetime | None]) -> tuple[bool, str]:
    """(works, sentence). Asks for a list without a token, then for tokens with a made-up one; spends no grant."""
    async with Transport(account.address) as transport:
        try:
            answer = await transport.send("GET", "/orders?page_size=10")
        except TransientError as error:
            part = "TLS" if any(word in str(error) for word in _TLS_WORDS) else "Address"
            return False, f"{part} fails: {error}"
        if answer.status != 401:
            return False, (
                f"Address fails: GET /orders without a token got {answer.status} instead of 401; Host must be the "
                "base URL up to and including /api/v1."
            )
        try:
            await TokenEndpoint(transport, account.credentials).refresh(f"connection-test-{uuid.uuid4().hex}")
        except ClientRefusedError:
            return False, "Address and TLS work; the token endpoint refuses client id or secret."
        except AuthorizationError:
            return True, f"Address, TLS and token endpoint work; credentials {_proof(last_success())}."
        except FeedAmpError as error:
            return False, f"Address and TLS work; the token endpoint fails: {error}"
    return False, "The token endpoint took a made-up refresh token; this is no FeedAMP."


def _proof(last_success: datetime | None) -> str:
    if last_success is None:
        return "are not proven until a seller is connected"
    minutes = int((datetime.now(UTC) - last_success).total_seconds() // 60)
    return f"are proven by a refresh {minutes} minutes ago"
