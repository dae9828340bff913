"""The check behind the Test button: is there a FeedAMP at this address, and does it accept the client?"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from feedamp import errors
from feedamp.api.account import FeedAmpAccount
from feedamp.api.oauth import TokenEndpoint
from feedamp.api.transport import Transport
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.origin import contradicting, is_same_origin
from feedamp.state import grants, sellers
from feedamp.state.sellers import ACTIVE

_TLS_WORDS = ("Certificate", "SSL")


async def probe(account: FeedAmpAccount, resources: Callable[[], Resources]) -> tuple[bool, str]:
    """(works, sentence). Requests orders without a token, then tokens with an invalid refresh token; spends no grant.

    While grants of these credentials belong to another server, the second request, which has the client secret, is not
    sent.
    """
    has_tls = account.endpoint.base_url.lower().startswith("https:")
    reached = "Address and TLS work" if has_tls else "Address works"
    async with Transport(account.endpoint) as transport:
        try:
            answer = await transport.send("GET", "/orders?page_size=10")
        except errors.TransientError as error:
            part = "TLS" if any(word in str(error) for word in _TLS_WORDS) else "Address"
            return False, f"{part} fails: {error}"
        if answer.status != 401:
            return False, (
                f"Address fails: GET /orders without a token got {answer.status} instead of 401; Base URL must be "
                "the address up to and including /api/v1."
            )
        withheld = _why_withheld(account, resources())
        if withheld is not None:
            return False, f"{reached}. The client secret was not sent: {withheld}"
        try:
            await TokenEndpoint(transport, account.credentials).refresh(f"connection-test-{uuid.uuid4().hex}")
        except errors.ClientRefusedError:
            return False, f"{reached}; the token endpoint refuses client id or secret."
        except errors.AuthorizationError:
            parts = "Address, TLS and token endpoint" if has_tls else "Address and token endpoint"
            return True, f"{parts} work; credentials {_proof(account, resources())}."
        except errors.FeedAmpError as error:
            return False, f"{reached}; the token endpoint fails: {error}"
    return False, "The token endpoint accepted an invalid refresh token, so this is not FeedAMP."


def _why_withheld(account: FeedAmpAccount, resources: Resources) -> str | None:
    """Why the client secret may not be sent: the grants of its sellers were issued by another server; None if it may.

    The button gives the connection under test a random id: it then stands for each saved connection with the same client
    id or the same secret, since Airflow fills in the saved secret while Base URL is unchanged.
    """
    conn_id, origin = account.credentials.conn_id, account.endpoint.origin
    known: list[str | None] = []
    with resources.state.read() as connection:
        conn_ids = {resources.default_conn_id, *(seller.conn_id for seller in sellers.find(connection))}
        is_saved = conn_id in conn_ids
        for each in {conn_id} if is_saved else conn_ids:
            saved = _saved(resources, each)
            if saved is not None and not _is_akin(account, saved):
                continue
            found = grants.origins(connection, each)
            leads_to = saved.endpoint.origin if saved is not None else None
            if not found and leads_to is not None and is_same_origin(leads_to, origin):
                # Saved with this host, and without grants: its first seller will be connected there.
                return None
            known += [one or leads_to for one in found]
    issued_by = contradicting(known, origin)
    if issued_by is None:
        return None
    id_text = conn_id if is_saved else "ID"
    return (
        f"grants obtained with this client id or secret were issued by {issued_by}. If FeedAMP has moved to {origin}, save "
        f"the connection and run `feedamp sellers confirm-host --conn-id {id_text}`."
    )


def _is_akin(account: FeedAmpAccount, saved: FeedAmpAccount) -> bool:
    """Whether a connection has the client id or the secret of a saved one."""
    mine, theirs = account.credentials, saved.credentials
    return mine.client_id == theirs.client_id or mine.client_secret == theirs.client_secret


def _saved(resources: Resources, conn_id: str) -> FeedAmpAccount | None:
    """A saved connection; None if it cannot be used."""
    try:
        return resources.connection(conn_id)
    except errors.ConfigurationError:
        return None


def _proof(account: FeedAmpAccount, resources: Resources) -> str:
    """Since when these credentials are proven at this address. The Test button's own connection id is random."""
    tested = (account.endpoint.base_url, account.credentials)
    with resources.state.read() as connection:
        known = sellers.find(connection)
        conn_ids = {
            conn_id
            for conn_id in {seller.conn_id for seller in known}
            if (saved := _saved(resources, conn_id)) is not None
            and (saved.endpoint.base_url, replace(saved.credentials, conn_id=tested[1].conn_id)) == tested
        }
        moments = [grants.last_success(connection, conn_id) for conn_id in conn_ids]
    if last_success := max(filter(None, moments), default=None):
        minutes = int((datetime.now(UTC) - last_success).total_seconds() // 60)
        return f"are proven by a refresh {counted(minutes, 'minute')} ago"
    if any(seller.grant == ACTIVE and seller.conn_id in conn_ids for seller in known):
        return "are not proven until the first run refreshes the token of a connected seller"
    return "are not proven until a seller is connected"
