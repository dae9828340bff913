"""`feedamp sellers import`: registers sellers with their grants from JSON Lines."""

import argparse
import asyncio
import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.engine import Connection

from feedamp.api.account_check import AccountCheck, Verdict, check_accounts
from feedamp.api.clock_check import doubt_by_state
from feedamp.errors import (
    AuthorizationError,
    ClientRefusedError,
    ConfigurationError,
    FeedAmpError,
    TransientError,
)
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.origin import contradicting, not_confirmed
from feedamp.run import Run
from feedamp.state import consents, grants, known_orders, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.enroll import (
    Enrollment,
    Outcome,
    Refusal,
    accepted_words,
    enroll,
    is_of_earlier,
    is_refused,
    is_set_aside,
    read_line,
    set_aside_words,
)
from feedamp.steps.refused_grants import decide_refusals
from feedamp_airflow.cli.accounts import names_who_is_read_again
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import DONE, REFUSED, known_connections, opened_resources
from feedamp_airflow.connections import looks_like_token

LINES_PER_TRANSACTION = 1_000  # each transaction reads all sellers first


def import_file(given: argparse.Namespace, out: Output) -> int:
    """Imports every valid line and names the others on stderr. Safe to repeat."""
    counts: Counter[str] = Counter()
    earlier: list[str] = []
    with _opened(given.file) as stream, opened_resources(stores_grants=True) as resources:
        doubt_by_state(resources.state)
        fault_of = _connection_check(resources)
        accounts = _Accounts(resources, out, force=given.force)
        lines = _lines(stream)
        with names_who_is_read_again(resources, out):
            while read := list(islice(lines, LINES_PER_TRANSACTION)):
                batch = [(number, read_line(line)) for number, line in read]
                _look_at_connections(resources, batch, fault_of)
                with resources.state.begin() as connection:
                    taken = list(_take(connection, resources, batch, fault_of, out, given, earlier))
                for number, verdict in accounts.compare(taken):
                    if isinstance(verdict, Refusal):
                        counts["refused"] += 1
                        out.complain(f"line {number}: {verdict}")
                    else:
                        counts[verdict] += 1
        if earlier:
            out.complain(
                f"{counted(len(earlier), 'refresh token', 'are')} of a grant before the one in use, which "
                f"stays (first: seller {earlier[0]})."
            )
        for sentence in accounts.left():
            out.complain(sentence)
        out.say(", ".join(f"{name} {counts[name]}" for name in (*Outcome, "refused")))
        accounts.end()
    return REFUSED if counts["refused"] else DONE


Taken = tuple[int, Outcome | Refusal, str]  # line number, outcome, seller


class _Accounts:
    """Compares the accounts of new grants with known orders, and reports those that could not be compared.

    With `force`, a grant whose account shows other orders is used all the same, with a message.
    """

    def __init__(self, resources: Resources, out: Output, *, force: bool) -> None:
        self._resources, self._out, self._force = resources, out, force
        self._run = Run("sellers", "import", resources.state.now())
        self._without_orders: set[str] = set()
        self._unread: dict[str, FeedAmpError] = {}
        self.client_refused: ClientRefusedError | None = None

    def compare(self, taken: Sequence[Taken]) -> Iterator[tuple[int, Outcome | Refusal]]:
        """The outcome of each line after the comparison; a seller on several lines is compared at the last accepted one."""
        last = {seller: line for line, outcome, seller in taken if isinstance(outcome, Outcome)}
        with self._resources.state.read() as connection:
            waiting = known_orders.to_compare(connection, last)
            named = [seller for seller, has_orders in waiting.items() if has_orders]
            found = sellers.find(connection, named) if named else []
        self._without_orders.update(seller for seller, has_orders in waiting.items() if not has_orders)
        checks = asyncio.run(self._check(found)) if found else {}
        for line, outcome, seller in taken:
            refusal = self._refusal(seller, checks.get(seller)) if last.get(seller) == line else None
            yield line, refusal or outcome

    async def _check(self, found: list[Seller]) -> dict[str, AccountCheck | FeedAmpError]:
        async with self._resources.clients(self._run) as clients:
            checks = await check_accounts(clients, found)
            _, refused_client = clients.newly_lost()
        self.client_refused = refused_client or self.client_refused
        return checks

    def _refusal(self, seller: str, check: AccountCheck | FeedAmpError | None) -> Refusal | None:
        if isinstance(check, AccountCheck) and check.is_set_aside:
            if self._force and not is_refused(check.reason):
                self._out.complain(f"seller {seller}: {accepted_words(check.reason)}")
                with self._resources.state.begin() as connection:
                    consents.take_set_aside(connection, seller, now=self._resources.state.now())
                return None
            before = "; the grant before it stays in use" if check.verdict is Verdict.KEPT_BEFORE else ""
            return Refusal("refresh_token", set_aside_words(check.reason) + before)
        if isinstance(check, AuthorizationError) and not isinstance(check, ClientRefusedError):
            return Refusal(
                "refresh_token", "is stored, but FeedAMP refuses it; the seller must authorize again"
            )
        if isinstance(check, FeedAmpError):
            self._unread[seller] = check
        return None

    def end(self) -> None:
        """Marks the sellers whose grants were refused; ClientRefusedError if the client is at fault."""
        if self.client_refused is not None:
            raise self.client_refused
        if problems := decide_refusals(self._resources.state, self._run):
            raise ClientRefusedError(" ".join(problems))

    def left(self) -> Iterator[str]:
        if self._unread:
            seller, error = next(iter(self._unread.items()))
            yield (
                f"The accounts of {counted(len(self._unread), 'seller')} could not be compared with known orders (first: "
                f"{seller}: {error}) Each is compared before its grant is first used."
            )
        if self._without_orders:
            yield (
                f"There is nothing to compare yet for {counted(len(self._without_orders), 'seller')}: none of their orders was "
                "placed. Until then two tokens for one account cannot be distinguished."
            )


def _connection_check(resources: Resources) -> Callable[[str], Refusal | None]:
    """A function that says why no new token is stored for a connection: unusable, or grants of another server."""

    known = known_connections(resources)

    @functools.cache
    def fault(conn_id: str) -> Refusal | None:
        if conn_id not in known and looks_like_token(conn_id):
            return Refusal("conn_id", "looks like a token, so no connection was looked up")
        try:
            origin = resources.connection(conn_id).endpoint.origin
        except (ConfigurationError, TransientError) as error:
            # An id that is not ours may be a token in the wrong column, which others would read in the log of a task.
            is_ours = conn_id == resources.default_conn_id
            return Refusal("conn_id", str(error) if is_ours else "names no connection that can be used")
        with resources.state.read() as connection:
            issued_by = contradicting(grants.origins(connection, conn_id), origin)
        if issued_by is None:
            return None
        return Refusal("refresh_token", not_confirmed(conn_id, issued_by=issued_by, origin=origin))

    return fault


def _look_at_connections(
    resources: Resources,
    lines: Sequence[tuple[int, Enrollment | Refusal]],
    fault_of: Callable[[str], Refusal | None],
) -> None:
    """Asks for the connections of these lines: a task waits a minute for a missing one, which no transaction should."""
    with resources.state.read() as connection:
        known = {seller.seller_id: seller.conn_id for seller in sellers.find(connection)}
    for _, given in lines:
        if not isinstance(given, Refusal):
            fault_of(given.conn_id or known.get(given.seller_id, resources.default_conn_id))


def _take(
    connection: Connection,
    resources: Resources,
    lines: Sequence[tuple[int, Enrollment | Refusal]],
    fault_of: Callable[[str], Refusal | None],
    out: Output,
    options: argparse.Namespace,
    earlier: list[str],
) -> Iterator[Taken]:
    """Stores the lines; `earlier` gets the sellers whose token is of an earlier grant than the one in use."""
    known = {seller.seller_id: seller for seller in sellers.find(connection)}
    changed: set[str] = set()
    for number, given in lines:
        if isinstance(given, Refusal):
            yield number, given, ""
            continue
        if given.seller_id in changed:  # an earlier line of this batch changed the seller
            [known[given.seller_id]] = sellers.find(connection, [given.seller_id])
        seller = known.get(given.seller_id)
        fault = fault_of(given.conn_id or (seller.conn_id if seller else resources.default_conn_id))
        # A connection that the line does not name may still be added.
        if fault is not None and (given.conn_id or fault.field != "conn_id"):
            yield number, fault, given.seller_id
            continue
        accepts = options.force and seller is not None and not is_refused(seller.grant_reason or "")
        if accepts and seller is not None and is_set_aside(connection, resources, given, seller):
            out.complain(f"line {number}: {accepted_words(seller.grant_reason or '')}")
        waits = (
            seller is not None
            and seller.grant_reason
            and not is_set_aside(connection, resources, given, seller)
        )
        outcome = enroll(connection, resources, given, seller, replace=options.replace, force=options.force)
        if (
            waits
            and isinstance(outcome, Outcome)
            and consents.set_aside_consent(connection, given.seller_id) is None
        ):
            out.complain(
                f"line {number}: the grant of seller {given.seller_id} that was set aside is dropped"
            )
        if outcome is Outcome.UNCHANGED and is_of_earlier(connection, resources, given):
            earlier.append(given.seller_id)
        if outcome in (Outcome.ADDED, Outcome.UPDATED):
            changed.add(given.seller_id)
        yield number, outcome, given.seller_id


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise ConfigurationError(f"{name} cannot be opened: {error.strerror}.") from error
        yield stream


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number, content) of every line that is not blank."""
    for number, line in enumerate(stream, start=1):
        content = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
        if content:
            yield number, content
