"""PURE: to which server tokens and the client secret of a connection may be sent (docs/rules.md, Tokens).

An origin is `scheme://host:port` in lower case, the port always written out. A grant belongs to the origin that issued
it.
"""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def origin_of(base_url: str) -> str:
    """The origin of an http or https URL."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_same_origin(one: str, other: str) -> bool:
    """Whether both name the same server; all ports of this machine count as one."""
    return _server(one) == _server(other)


@lru_cache(256)  # every seller asks for those of a few connections
def _server(origin: str) -> tuple[str, str, int | None]:
    parts = urlsplit(origin)
    host = parts.hostname or ""
    return (parts.scheme, "loopback", None) if host in LOOPBACK else (parts.scheme, host, parts.port)


def others(known: Iterable[str | None], origin: str) -> list[str]:
    """Those of the known origins that are not this one; None, an origin not known yet, is left out."""
    return [one for one in known if one is not None and not is_same_origin(one, origin)]


def contradicting(known: Iterable[str | None], origin: str) -> str | None:
    """The origin of a connection's grants if none of them was issued by the connection's own; None if it may be used.

    A single grant of another origin, such as that of a seller who was moved to this connection, blocks only that seller.
    """
    origins = [one for one in known if one is not None]
    foreign = others(origins, origin)
    return foreign[0] if foreign and len(foreign) == len(origins) else None


def not_confirmed(conn_id: str, *, issued_by: str, origin: str) -> str:
    """Says why nothing is sent, and what to do."""
    return (
        f"Connection {conn_id} points to {origin}, but grants of its sellers were issued by {issued_by}, so neither their "
        "tokens nor the client secret are sent there. If Base URL is wrong, correct it. If FeedAMP has moved, run `feedamp "
        f"sellers confirm-host --conn-id {conn_id}`."
    )
