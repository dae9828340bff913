"""`feedamp sellers authorize-url` and `authorize`: turn a seller's consent into a grant (contract 2.1, 2.2)."""

import argparse
import asyncio
import re
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from feedamp import errors
from feedamp.api.account import FeedAmpAccount, check_origin
from feedamp.api.account_check import AccountCheck, Verdict
from feedamp.api.clock_check import ClockCheck
from feedamp.api.oauth import TokenEndpoint
from feedamp.api.token_journal import JournaledPair, Reservation
from feedamp.api.transport import Transport
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state import consent_requests, consents, overview, sellers
from feedamp.state.reconnect import STATE_ERRORS
from feedamp.state.sellers import Seller
from feedamp.steps.enroll import Enrollment, Refusal, accepted_words, check, enroll, is_refused
from feedamp_airflow.cli.accounts import names_who_is_read_again
from feedamp_airflow.cli.output import Output
from feedamp_airflow.cli.running import (
    DONE,
    REFUSED,
    check_given_connection,
    explain,
    lock_wait_s,
    opened_resources,
)
from feedamp_airflow.connections import connection_by_id
from feedamp_airflow.moments import moment

SHORT_PAUSE_S = 10.0  # a person waits for it rather than coming again
LONGEST_CALLBACK = 1 << 14  # characters of a callback's address
NOTHING_SPENT = "Nothing was spent"  # the same address works again
MAY_BE_SPENT = "may or may not be spent"  # a `state`: the database fell silent while it was noted
BEGIN_AGAIN = "Begin again"  # with a new link: the old one works no longer
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WHOLE_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S+")


def make_url(given: argparse.Namespace, out: Output) -> int:
    """Prints an authorize URL; only a digest of its `state` is stored."""
    with opened_resources() as resources:
        seller = _registered(resources, given.seller)
        url, good_until = _link(resources, seller.seller_id, seller.conn_id)
    out.say(url)
    out.complain(
        f"The URL is good until {moment(good_until)}. Then run `feedamp sellers authorize "
        f"{seller.seller_id} --code - --state -`, and paste the address to which FeedAMP sends the seller."
    )
    return DONE


def begin(given: argparse.Namespace, out: Output) -> int:
    """Registers or changes a seller and prints its authorize URL, for the page; changes nothing if either cannot be done."""
    enrollment = Enrollment(given.seller, given.name, given.sales_channel, given.conn_id)
    if misuse := check(enrollment):
        raise errors.ConfigurationError(str(misuse))

    def register(connection: Connection) -> None:
        known = next(iter(sellers.find(connection, [given.seller])), None)
        outcome = enroll(connection, resources, enrollment, known)
        if isinstance(outcome, Refusal):
            raise errors.FeedAmpError(str(outcome))

    if given.conn_id:
        check_given_connection(given.conn_id)
        connection_by_id(given.conn_id)  # before a state is made for it
    with opened_resources() as resources:
        with resources.state.read() as connection:
            known = next(iter(sellers.find(connection, [given.seller])), None)
        conn_id = given.conn_id or (known.conn_id if known else resources.default_conn_id)
        out.say(_link(resources, given.seller, conn_id, before=register)[0])
    return DONE


def _link(
    resources: Resources,
    seller_id: str,
    conn_id: str,
    *,
    before: Callable[[Connection], None] = lambda _: None,
) -> tuple[str, datetime]:
    """An authorize URL, and until when it is good; `before` is written in the same transaction."""
    account = resources.connection(conn_id)
    check_origin(resources.state, conn_id, account.endpoint)
    if not account.callback_url:
        raise errors.ConfigurationError(
            f"Connection {conn_id}: extra callback_url is missing; FeedAMP sends the seller there."
        )
    if not _WHOLE_ADDRESS.fullmatch(account.callback_url):
        raise errors.ConfigurationError(
            f"Connection {conn_id}: extra callback_url must be a whole address, such as https://…/feedamp/callback."
        )
    state = _new_state()
    with resources.state.begin() as connection:
        before(connection)
        now = resources.state.now()
        good_until = consent_requests.hand_out(connection, state, seller_id, conn_id, now=now)
    query = {
        "response_type": "code",
        "client_id": account.credentials.client_id,
        "state": state,
        "redirect_url": account.callback_url,
    }
    return f"{account.endpoint.base_url.rstrip('/')}/authorize?{urlencode(query)}", good_until


def authorize_from_shell(given: argparse.Namespace, out: Output) -> int:
    """As `authorize`; with `-` code and state come from stdin, because every user of a machine can list arguments."""
    if "-" in (given.code, given.state):
        if {given.code, given.state, given.error} - {"-", None}:
            raise errors.ConfigurationError("Give both --code and --state as -; stdin has both then.")
        if sys.stdin.isatty():
            out.complain("Paste the address to which FeedAMP sent the seller, then Enter and Ctrl-D:")
        text = sys.stdin.buffer.read(LONGEST_CALLBACK + 1).decode("utf-8", "replace")
        if (said := _read_callback(text)) is None:
            raise errors.ConfigurationError(
                "Stdin has no code and state: give them on a line each, as a JSON object, or the whole address to which "
                "FeedAMP sent the seller. Nothing was changed."
            )
        given = argparse.Namespace(**(vars(given) | said))
    return authorize(given, out)


def _read_callback(text: str) -> dict[str, str | None] | None:
    """What the callback was given, from an address, a JSON object or two lines; None if it is none of them."""
    text = text.strip()
    found: Mapping[str, object] = {}
    if len(text) > LONGEST_CALLBACK:
        return None
    if text.startswith("{"):
        with suppress(msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            found = msgspec.json.decode(text, type=dict[str, object])
    elif "state=" in text:
        with suppress(ValueError):
            query = parse_qs(urlsplit(text).query or text)
            found = {name: values[0] for name, values in query.items() if len(values) == 1}
    elif len(lines := text.split()) == 2:
        found = dict(zip(("code", "state"), lines, strict=True))
    said = {
        name: value
        for name in ("code", "state", "error")
        if isinstance(value := found.get(name), str) and value
    }
    is_whole = "state" in said and ("code" in said) != ("error" in said)
    return {"code": None, "error": None, **said} if is_whole else None


def authorize(given: argparse.Namespace, out: Output) -> int:
    """Spends the `state`, exchanges the code, stores the grant and compares its account with known orders.

    With `--force` a grant that is set aside is used: the new one or, without a code, the one set aside earlier.
    """
    is_callback = given.code is not None or given.error is not None
    if is_callback != (given.state is not None) or not (is_callback or given.force):
        raise errors.ConfigurationError(
            "Give --code and --state as the callback has them, or --force alone for a grant that is set aside."
        )
    with opened_resources(stores_grants=True) as resources:
        seller = _registered(resources, given.seller)
        with _nothing_spent():
            resources.pairs.take_in(seller.seller_id)  # an earlier consent comes first
        with names_who_is_read_again(resources, out):
            return _connect(resources, seller, given, out, is_callback=is_callback)


def _connect(
    resources: Resources, seller: Seller, given: argparse.Namespace, out: Output, *, is_callback: bool
) -> int:
    if not is_callback:
        return _take_set_aside(resources, seller, out)
    account = resources.connection(seller.conn_id)
    check_origin(resources.state, seller.conn_id, account.endpoint)  # before the `state` is spent
    if given.error is not None:
        _spend_state(resources, seller, given.state)
        word = given.error if _WORD.fullmatch(given.error) else "no readable reason"
        raise errors.FeedAmpError(
            f"The seller did not consent ({word}); nothing was changed. {_new_url(seller)}"
        )
    with _nothing_spent():
        _wait_out_pause(resources, seller.seller_id)
        # From the moment at which the `state` is spent, nothing asks the database, which may fall silent, until FeedAMP answers.
        clock = ClockCheck(resources.state)
        reservation = resources.pairs.reserve(seller.seller_id, is_consent=True)
        try:
            _spend_state(resources, seller, given.state)
        except BaseException:
            reservation.release()
            raise
    asked = partial(
        _ask_and_store,
        resources,
        account,
        seller,
        given.code,
        reservation,
        clock,
        tried_for_s=lock_wait_s.get(),  # here, as the thread that asks does not know it
    )
    if not _exchange(resources, seller, asked, given.code, given.state, out):
        return REFUSED
    compared = _compare(resources, seller, out, force=given.force)
    if compared is not None and compared.is_set_aside:
        accepts = given.force and not is_refused(compared.reason)
        return _take_set_aside(resources, seller, out) if accepts else REFUSED
    waiting = 0
    # The grant is stored, whatever becomes of the state now.
    with suppress(errors.FeedAmpError, SQLAlchemyError), resources.state.read() as connection:
        waiting = overview.waiting_by_seller(connection).get(seller.seller_id, 0)
    orders = f"; the next run sends {counted(waiting, 'waiting order')}" if waiting else ""
    out.say(f"seller {seller.seller_id}: connected{orders}")
    return DONE


def _take_set_aside(resources: Resources, seller: Seller, out: Output) -> int:
    with resources.state.begin() as connection:
        [known] = sellers.find(connection, [seller.seller_id])
        if is_refused(known.grant_reason or ""):
            raise errors.FeedAmpError(
                f"The grant that is set aside cannot be used: {consents.REFUSED_BY_FEEDAMP}. {_new_url(seller)}"
            )
        if known.grant_reason is not None:
            out.complain(f"seller {seller.seller_id}: {accepted_words(known.grant_reason)}")
        is_taken = consents.take_set_aside(connection, seller.seller_id, now=resources.state.now())
    if not is_taken:
        raise errors.FeedAmpError(f"No grant of seller {seller.seller_id} is set aside. {_new_url(seller)}")
    out.say(f"seller {seller.seller_id}: connected with the grant that was set aside")
    return DONE


def _compare(resources: Resources, seller: Seller, out: Output, *, force: bool) -> AccountCheck | None:
    """The result of comparing the new grant's account with known orders; None if it could not be read."""
    try:
        check = asyncio.run(_check(resources, seller))
    except (errors.FeedAmpError, DBAPIError) as error:  # the grant is stored
        why = error if isinstance(error, errors.FeedAmpError) else explain(error)[0]
        out.complain(
            f"The account could not be compared with known orders: {why} "
            "This is done before the grant is first used."
        )
        return None
    cannot_work = is_refused(check.reason)
    if check.is_set_aside and (cannot_work or not force):
        before = (
            "the grant before it stays in use"
            if check.verdict is Verdict.KEPT_BEFORE
            else "nothing is sent or read for the seller"
        )
        forced = f" If the account is right, `feedamp sellers authorize {seller.seller_id} --force` uses this grant."
        out.complain(
            f"The new grant of seller {seller.seller_id} is set aside: {check.reason}; {before}. Was the seller signed "
            f"in to FeedAMP with the right account? If not, sign out there and use a new link from `feedamp sellers "
            f"authorize-url {seller.seller_id}`.{'' if cannot_work else forced}"
        )
    elif check.verdict is Verdict.NOTHING_TO_COMPARE:
        out.complain(
            f"There is nothing to compare the account of seller {seller.seller_id} with yet: no order was placed."
        )
    return check


async def _check(resources: Resources, seller: Seller) -> AccountCheck:
    async with resources.clients(Run("sellers", "authorize", resources.state.now())) as clients:
        return await clients.check_account(seller)


def _new_state() -> str:
    """256 random bits, without a leading dash, which a command line would take for an option."""
    while (state := secrets.token_urlsafe(32)).startswith("-"):
        pass
    return state


def _registered(resources: Resources, seller_id: str) -> Seller:
    with resources.state.read() as connection:
        found = sellers.find(connection, [seller_id]) if seller_id else []
    if not found:
        raise errors.FeedAmpError(
            f"There is no seller {seller_id}; register with `feedamp sellers add {seller_id}`."
        )
    return found[0]


def _new_url(seller: Seller) -> str:
    return f"{BEGIN_AGAIN} with `feedamp sellers authorize-url {seller.seller_id}`."


@contextmanager
def _nothing_spent() -> Iterator[None]:
    """Says of what may succeed later that the same address works again. A state that is away is left to the caller."""
    try:
        yield
    except errors.StoreAwayError:
        raise
    except errors.TransientError as error:
        raise errors.FeedAmpError(_same_again(str(error))) from error


def _wait_out_pause(resources: Resources, seller_id: str) -> None:
    """Waits for a pause of the seller's token calls to end; a ThrottledError says until when if it is not a short one."""
    while True:
        with resources.state.read() as connection:
            left_s = resources.state.rates.token_pause_left_s(connection, seller_id)
        if not left_s:
            return
        if left_s > SHORT_PAUSE_S:
            raise errors.ThrottledError(
                f"FeedAMP asked for a pause for seller {seller_id}{_until(resources, left_s)}."
            )
        time.sleep(left_s)


def _keep_pause(resources: Resources, seller: Seller, error: errors.TransientError) -> str:
    """Lets all processes obey the `Retry-After` of a token call; says until when."""
    if not error.retry_after_s:
        return ""
    with suppress(*STATE_ERRORS):  # what became of the code is said in any case
        resources.state.rates.pause_token_calls(seller.seller_id, error.retry_after_s)
    return f" It asks for a pause{_until(resources, error.retry_after_s)}."


def _until(resources: Resources, seconds: float) -> str:
    return f" until {moment(resources.state.now(ask=False) + timedelta(seconds=seconds))}"


def _same_again(why: str) -> str:
    return f"{why} {NOTHING_SPENT}; try the same command again while the state is good."


def _spend_state(resources: Resources, seller: Seller, state: str) -> None:
    """Spends the `state`; a FeedAmpError says why it is refused, or that the database did not say whether it is spent."""
    now, why, is_noted = resources.state.now(), "", False
    try:
        with resources.state.begin() as connection:
            conn_id = consent_requests.use(connection, state, seller.seller_id, now=now)
            if conn_id is None:
                why = consent_requests.why_refused(connection, state, seller.seller_id, now=now)
            is_noted = True
    except (errors.StoreAwayError, DBAPIError) as error:
        if not is_noted:
            raise
        raise errors.FeedAmpError(  # the database may still commit what it was sent
            f"{explain(error)[0]} Nothing was sent to FeedAMP, and this state {MAY_BE_SPENT}: try the same again in a minute. If it is "
            f"refused then: {_new_url(seller)}"
        ) from error
    if conn_id is not None and conn_id != seller.conn_id:
        why = f"the seller's connection has changed from {conn_id} to {seller.conn_id} since"
    if why:
        raise errors.FeedAmpError(f"Refused: {why}. {_new_url(seller)}")


def _exchange(
    resources: Resources,
    seller: Seller,
    asked: Callable[[], Coroutine[Any, Any, errors.TransientError | None]],
    code: str,
    state: str,
    out: Output,
) -> bool:
    """Exchanges the code and stores the grant with its first access token; says why if that did not succeed."""
    resources.on_secret(code)
    try:
        # In a thread: an interruption of the command does not come between FeedAMP's answer and storing it.
        with ThreadPoolExecutor(1) as thread:
            problem = thread.submit(asyncio.run, asked()).result()
    except errors.ClientRefusedError as error:
        raise errors.ClientRefusedError(f"{error} {_new_url(seller)}") from error
    except errors.AuthorizationError:
        out.complain(
            f"FeedAMP refuses the code: it works only once, and only for a short time. {_new_url(seller)}"
        )
    except errors.UnclearError as error:
        pause = _keep_pause(resources, seller, error)
        out.complain(f"{error}{pause} The code may be spent. {_new_url(seller)}")
    except (errors.ThrottledError, errors.TransientError) as error:
        # Nothing reached FeedAMP: the seller need not consent again.
        try:
            with resources.state.begin() as connection:
                consent_requests.give_back(connection, state)
        except (errors.StoreAwayError, DBAPIError) as silent:
            raise errors.FeedAmpError(
                f"{error} {explain(silent)[0]} This state is spent. {_new_url(seller)}"
            ) from silent
        out.complain(_same_again(f"{error}{_keep_pause(resources, seller, error)}"))
    else:
        if problem is not None:  # raised, as the state, which takes nothing now, should be asked nothing more
            raise errors.FeedAmpError(f"seller {seller.seller_id}: {problem}")
        return True
    return False


async def _ask_and_store(
    resources: Resources,
    account: FeedAmpAccount,
    seller: Seller,
    code: str,
    reservation: Reservation,
    clock: ClockCheck,
    *,
    tried_for_s: float | None,
) -> errors.TransientError | None:
    """The error if FeedAMP issued tokens that could not be stored; raises as `TokenEndpoint.exchange`."""
    asked_at = resources.state.now(ask=False)
    try:
        async with Transport(account.endpoint, on_answer=clock.saw) as transport:
            answer = await TokenEndpoint(transport, account.credentials).exchange(code)
    except BaseException:
        reservation.release()
        raise
    resources.on_secret(answer.access_token)
    pair = JournaledPair(
        seller_id=seller.seller_id,
        generation=0,
        used_token=answer.refresh_token,
        refresh_token=answer.refresh_token,
        access_token=answer.access_token,
        expires_in_s=answer.expires_in_s,
        asked_at=clock.corrected(asked_at),  # stored although the clock may be refused: nothing may be lost
        conn_id=seller.conn_id,
        origin=account.endpoint.origin,
    )
    try:
        await resources.pairs.store(None, pair, reservation, tried_for_s=tried_for_s)
    except errors.TransientError as error:
        return error
    return None
