"""Registers sellers and their grants, from a line of `feedamp sellers import` or from a single command."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from sqlalchemy.engine import Connection

from feedamp.errors import ConfigurationError
from feedamp.order_body import is_storable
from feedamp.order_body.reject_reasons import BadValueError
from feedamp.order_body.values import seller_id
from feedamp.resources import Resources
from feedamp.rules.origin import contradicting, others
from feedamp.rules.secret_words import looks_secret
from feedamp.state import consents, grants, sellers
from feedamp.state.sellers import ACTIVE, Seller

FIELDS = ("seller_id", "name", "sales_channel", "conn_id", "refresh_token")
_OPTION = re.compile(r"^-|\s--\w")


class Outcome(StrEnum):
    """The result of one enrollment."""

    ADDED = "added"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


_NAME = re.compile(r"[a-z]+(_[a-z]+)*")


@dataclass(frozen=True)
class Refusal:
    """Why nothing was changed; `reason` never contains the value."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


@dataclass(frozen=True)
class Enrollment:
    """A seller to register or change; None leaves a field as it is."""

    seller_id: str
    name: str | None = None
    sales_channel: str | None = None
    conn_id: str | None = None
    refresh_token: str | None = field(default=None, repr=False)


def read_line(line: bytes) -> Enrollment | Refusal:
    """Reads one line of an import file: `{"seller_id", "name"?, "sales_channel"?, "conn_id"?, "refresh_token"}`."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refusal("", "is not JSON")
    if not isinstance(row, dict):
        return Refusal("", "is not a JSON object")
    unknown = sorted(row.keys() - set(FIELDS))
    if unknown:
        # Only a string that looks like a field name is quoted: in a malformed line it may be a token.
        names = [name if _NAME.fullmatch(name) else "(not shown)" for name in unknown]
        return Refusal(", ".join(names), f"unknown field; the known fields are {', '.join(FIELDS)}")
    for name in FIELDS:
        fault = _fault(name, row.get(name))
        if fault is not None:
            return Refusal(name, fault)
    if looks_secret(row["seller_id"]) and not looks_secret(row["refresh_token"], may_be_hash=False):
        return Refusal("seller_id", "looks like a token, and refresh_token does not; correct the two")
    return Enrollment(**row)


def _fault(name: str, value: object) -> str | None:
    required = name in ("seller_id", "refresh_token")
    if value is None:
        return "is missing" if required else None
    if not isinstance(value, str):
        return "must be text"
    if not value.strip():
        return "is empty"
    if not is_storable(value):
        return "contains characters that cannot be stored"
    if name == "seller_id":  # as an order's seller is read, so that each registered seller can have orders
        try:
            return None if seller_id(value) == value else "must have no leading or trailing blanks"
        except BadValueError as error:
            return error.message
    if name == "refresh_token" and any(c.isspace() or not c.isprintable() for c in value):
        return "contains white space or unprintable characters"
    return None


def check(given: Enrollment) -> Refusal | None:
    """Why a seller that was entered by hand, without a token, cannot be enrolled; None if it can.

    An id that is or holds an option is a command line that was taken for one word.
    """
    if _OPTION.search(given.seller_id):
        return Refusal("seller_id", "holds an option of a command line; give each word by itself")
    faults = ((name, _fault(name, getattr(given, name))) for name in FIELDS if name != "refresh_token")
    return next((Refusal(name, fault) for name, fault in faults if fault is not None), None)


def enroll(
    connection: Connection,
    resources: Resources,
    given: Enrollment,
    known: Seller | None,
    *,
    replace: bool = False,
    force: bool = False,
) -> Outcome | Refusal:
    """Registers or changes a seller and stores a new grant; the next run tries the seller's waiting orders.

    `known` is the seller as registered now, None if it is new. A refresh token that was seen before, recognized by its
    fingerprint, is ignored, unless the grant that came after it cannot be used: then `replace` takes it again. A new
    token replaces a live grant only with `replace`; its account is compared with known orders before the token is used.
    `force` accepts a grant that was set aside. A refusal changes nothing. Safe to repeat.
    """
    if resources.erased(connection, [(given.seller_id, None)]).has_seller(given.seller_id):
        return Refusal("", "the seller was erased permanently; register it under another id")
    owner = (
        grants.token_owner(connection, resources.cipher, given.refresh_token) if given.refresh_token else None
    )
    if owner not in (None, given.seller_id):
        return Refusal("refresh_token", f"belongs to seller {owner} already; a token is for one seller only")
    has_grant = known is not None and known.grant is not None
    is_new_token = given.refresh_token is not None and not (owner and has_grant)
    is_put_back = False
    if (
        owner
        and given.refresh_token is not None
        and known is not None
        and known.grant not in (None, ACTIVE)
        and is_of_earlier(connection, resources, given)
    ):
        if not replace:
            return Refusal(
                "refresh_token",
                "is of a grant before the one that cannot be used now; --replace uses it again",
            )
        is_put_back = grants.is_of_kept(connection, resources.cipher, known.seller_id, given.refresh_token)
        is_new_token = not is_put_back
    if is_new_token and known is not None and known.grant == ACTIVE and not replace:
        return Refusal("refresh_token", "the seller has a live grant; --replace replaces it with this one")
    conn_id = given.conn_id or (known.conn_id if known else resources.default_conn_id)
    if (
        has_grant
        and known is not None
        and not is_new_token
        and _is_blocked_move(connection, resources, known, conn_id)
    ):
        return Refusal(
            "conn_id",
            f"the seller's grant was issued by another server than the one that {conn_id} points to, where no other seller is "
            "connected: only `feedamp sellers import --replace` with a refresh token of that server can move it",
        )
    if is_put_back:
        consents.take_replaced(connection, given.seller_id, now=resources.state.now())
    is_accepted = False
    if known is not None and replace and not is_new_token and given.refresh_token and not is_put_back:
        of_token = [one(given.refresh_token) for one in resources.cipher.fingerprints("token")]
        is_put_back = consents.drop_set_aside(connection, known.seller_id, of_token)
    if (
        known is not None
        and not is_new_token
        and not is_put_back
        and is_set_aside(connection, resources, given, known)
    ):
        if not force or is_refused(known.grant_reason or ""):
            return Refusal("refresh_token", set_aside_words(known.grant_reason or ""))
        is_accepted = consents.take_set_aside(connection, known.seller_id, now=resources.state.now())
    if known is not None and conn_id != known.conn_id:
        # The grant keeps its origin when it moves to another connection.
        left = _origin(resources, known.conn_id)
        if left is not None and None in grants.origins(connection, known.conn_id):
            grants.adopt_origin(connection, known.conn_id, left)
    origin = _origin(resources, conn_id) if is_new_token else None
    if known is None or _differs(given, known):
        now = resources.state.now()
        sellers.add(
            connection,
            given.seller_id,
            conn_id=conn_id,
            name=given.name,
            sales_channel=given.sales_channel,
            now=now,
        )
        sellers.wake(connection, given.seller_id, now=now)
    elif not is_new_token:
        return Outcome.UPDATED if is_accepted or is_put_back else Outcome.UNCHANGED
    if is_new_token and given.refresh_token is not None:
        # Not passed to `on_secret`: Airflow's masker takes seconds for thousands of tokens, and none is printed here.
        grants.put_grant(
            connection,
            resources.cipher,
            given.seller_id,
            conn_id,
            given.refresh_token,
            now=resources.state.now(),
            to_compare=True,
            origin=origin,
        )
    return Outcome.ADDED if known is None else Outcome.UPDATED


def _is_blocked_move(connection: Connection, resources: Resources, known: Seller, conn_id: str) -> bool:
    """Whether a grant that moves would block its new connection: no grant there was issued by the connection's server."""
    origin = _origin(resources, conn_id)
    if conn_id == known.conn_id or origin is None:
        return False
    left = _origin(resources, known.conn_id)
    moved = [one or left for one in sellers.grant_origins(connection, known.seller_id)]
    there = [one or origin for one in grants.origins(connection, conn_id)]
    return bool(others(moved, origin)) and contradicting([*moved, *there], origin) is not None


def _origin(resources: Resources, conn_id: str) -> str | None:
    """Where a connection leads; None if it cannot be used yet."""
    try:
        return resources.connection(conn_id).endpoint.origin
    except ConfigurationError:
        return None


def is_set_aside(connection: Connection, resources: Resources, given: Enrollment, known: Seller) -> bool:
    """Whether the given token is that of the seller's set-aside grant."""
    if given.refresh_token is None or known.grant_reason is None:
        return False
    consent = consents.set_aside_consent(connection, known.seller_id)
    return consent in [one(given.refresh_token) for one in resources.cipher.fingerprints("token")]


def is_of_earlier(connection: Connection, resources: Resources, given: Enrollment) -> bool:
    """Whether the given token is of a grant that a later one has replaced."""
    token = given.refresh_token
    return token is not None and grants.is_of_earlier(connection, resources.cipher, given.seller_id, token)


def is_refused(reason: str) -> bool:
    """Whether a grant was set aside because FeedAMP refuses its token: then no one can accept it."""
    return reason.removeprefix(consents.NEWER) == consents.REFUSED_BY_FEEDAMP


def set_aside_words(reason: str) -> str:
    """Says why a token is stored but not used, and how to use it anyway."""
    why = reason.removeprefix(consents.NEWER)
    if is_refused(reason):
        return f"is not used: {why}, which --force cannot change; the seller must authorize again"
    return f"is set aside and not used: {why}; --force accepts it anyway"


def accepted_words(reason: str) -> str:
    """Says what `--force` accepts."""
    return f"--force accepts the grant although {reason.removeprefix(consents.NEWER)}"


def _differs(given: Enrollment, known: Seller) -> bool:
    return any(
        getattr(given, name) not in (None, getattr(known, name))
        for name in ("name", "sales_channel", "conn_id")
    )
