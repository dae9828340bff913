"""`/feedamp/connect`: a seller's consent, from the link to the grant; `/feedamp/callback` is where FeedAMP sends the seller."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from feedamp.api.pair_storage import IN_JOURNAL
from feedamp.errors import FeedAmpError
from feedamp.rules.origin import others
from feedamp.state import consent_requests, grants, sellers
from feedamp_airflow.account import read_account
from feedamp_airflow.cli.authorizing import BEGIN_AGAIN, MAY_BE_SPENT, NOTHING_SPENT
from feedamp_airflow.cli.running import DONE, MISUSED, REFUSED
from feedamp_airflow.config import read_options
from feedamp_airflow.connections import connection_by_id
from feedamp_airflow.pages import airflow_api, page
from feedamp_airflow.pages.actions import BEGIN, Answer, run
from feedamp_airflow.pages.page import Reader, Refused, ThisReader, Visitor, reading, render, seller_address

router = APIRouter()  # for users who see the pages
changing = APIRouter()  # for those who may change connections
open_to_all = APIRouter()

EXTRACTION = "feedamp_extract_fulfillments"
NOT_OURS = ["This link was not made here, or long ago; nothing was changed."]
NO_CODE = ["This address has no code: open the link again and consent. Nothing was changed."]
DENIED = "You did not consent; nothing was changed."
AWAY = "The account could not be connected now: open this address again in a minute."
FAILED = "The account could not be connected: a link works once and for 15 minutes, and only for the account it was made for. If you saw that it is connected, or that access was given, all is well."
UNSURE = "It is not known whether this link still works: open this address again in a minute. If the account is not connected then, ask whoever sent you the link for a new one."
GIVEN = "You gave access to your account, and it will be connected soon. No new link is needed."

# Anyone may open the callback, and each waits some seconds for a state that is silent.
_callbacks = CapacityLimiter(4)

Text = Annotated[str, Form(max_length=2_000)]


@router.get("/connect", response_class=HTMLResponse)
def ask(request: Request, seller: str = "", reader: Reader = ThisReader) -> HTMLResponse:
    """The form that begins a consent, and the one that ends it by hand."""
    return _page(request, Answer(DONE, []), seller=seller, reader=reader)


@changing.post("/connect", response_class=HTMLResponse)
def begin(
    request: Request,
    seller: Text,
    name: Text = "",
    sales_channel: Text = "",
    conn_id: Text = "",
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """Registers the seller if it is new, and makes the link at which it consents; both or nothing."""
    seller = seller.strip()
    given: dict[str, Any] = {"name": name, "sales_channel": sales_channel, "conn_id": conn_id}
    said = run(BEGIN, seller=seller, **{key: text.strip() or None for key, text in given.items()})
    links = [line for line in said.lines if line.startswith(("https://", "http://"))]
    if said.code == DONE and links:
        return _page(request, Answer(DONE, []), seller=seller, reader=reader, url=links[0])
    return _page(request, said, seller=seller, reader=reader, typed=given)


@changing.post("/connect/paste", response_class=HTMLResponse)
def finish(request: Request, address: Text, reader: Reader = ThisReader) -> HTMLResponse:
    """Takes the address to which FeedAMP sent the seller, where that is no page of ours; it is not shown again."""
    try:
        query = parse_qs(urlsplit(address.strip()).query)
    except ValueError:
        query = {}
    found = {name: query.get(name, [""])[0] for name in ("code", "state", "error")}
    said, seller_id = _spend(**found)
    is_done = said.code == DONE
    connected = seller_id if is_done else None
    return _page(request, said, seller="" if is_done else seller_id, reader=reader, connected=connected)


@changing.post("/connect/extract", response_class=HTMLResponse)
async def extract(request: Request, seller: Text) -> HTMLResponse:
    """Has Airflow start a run that reads this seller's orders, if it lets this user."""
    if not await run_in_threadpool(_is_registered, seller):
        raise Refused(404, "There is no such seller.")
    path = f"/dags/{EXTRACTION}/dagRuns"
    body = {"logical_date": None, "conf": {"sellers": [seller]}}
    answered = await airflow_api.ask(request, "POST", path, body)
    if answered.is_good:
        run_id = answered.body["dag_run_id"]
        dag = await airflow_api.ask(request, "GET", f"/dags/{EXTRACTION}")
        paused = dag.is_good and dag.body["is_paused"]
        held = "The DAG is paused in Airflow: the run waits until it is unpaused." if paused else None
        lines = [
            f"Run {run_id} of {EXTRACTION} was started for seller {seller}.",
            *filter(None, [held]),
            "Its end is on the overview, under Last run of each DAG.",
        ]
        return render(request, "said.html", said=Answer(DONE, lines))
    lines = [airflow_api.refusal(answered, EXTRACTION), "Nothing was started."]
    return render(request, "said.html", said=Answer(REFUSED, lines), status_code=409)


def _is_registered(seller_id: str) -> bool:
    with reading() as read:
        return bool(sellers.find(read.connection, [seller_id]))


class MovedServer(NamedTuple):
    """A connection that leads to another server than the one that issued grants of its sellers."""

    conn_id: str
    grants: int
    old: str
    new: str


def moved_server(connection: Connection, conn_id: str) -> MovedServer | None:
    """What must be confirmed before anything is sent; None if nothing must, or the connection cannot be read."""
    try:
        origin = read_account(connection_by_id(conn_id)).endpoint.origin
    except FeedAmpError:
        return None
    known = grants.origins(connection, conn_id)
    old = others(known, origin)
    return (
        MovedServer(conn_id, sum(known[one] for one in old), ", ".join(sorted(old)), origin) if old else None
    )


@open_to_all.get("/callback", response_class=HTMLResponse)
@open_to_all.get("/callback/", response_class=HTMLResponse)  # as a connection's callback_url may have it
async def receive(
    request: Request,
    code: str = "",
    state: str = "",
    error: str = "",
    connected: bool = False,
    who: Reader | None = Visitor,
) -> Response:
    """Where FeedAMP sends a seller, who need not be a user of Airflow; accepts nothing without a `state` of this installation."""
    if connected and not (code or state or error):  # a `callback_url` may have it, too
        return render(request, "callback.html", said=Answer(DONE, []), is_over=True)
    try:
        with fail_after(page.LOCK_PATIENCE_S):
            await _callbacks.acquire()
    except TimeoutError:
        return _come_again(request)
    try:
        # A limit of its own: the threads that Airflow's server shares among all its requests stay free.
        work = partial(_receive, request, code, state, error, who)
        return await to_thread.run_sync(work, limiter=CapacityLimiter(1))
    finally:
        _callbacks.release()


def _receive(request: Request, code: str, state: str, error: str, who: Reader | None) -> Response:
    try:
        said, seller_id = _spend(code, state, error)
    except (FeedAmpError, SQLAlchemyError, Refused):
        said, seller_id = Answer(MISUSED, []), ""
    if said.code == DONE:  # a reload shows the same, and the code leaves the address
        base = request.scope["root_path"]
        # On the seller's page, a user can have its orders read.
        to = seller_address(base, seller_id) if who is not None and who.may_change else f"{base}/callback"
        return RedirectResponse(f"{to}{'&' if '?' in to else '?'}connected=true", 303)
    if said.code == REFUSED and who is not None and who.may_change:
        return _page(request, said, seller=seller_id, reader=who)
    if said.lines in (NOT_OURS, NO_CODE):
        return render(request, "callback.html", status_code=400, said=said, is_over=said.lines == NOT_OURS)
    # Only who sent the link reads why.
    told = "\n".join(said.lines)
    if MAY_BE_SPENT in told and not error:
        return _come_again(request, UNSURE)
    if NOTHING_SPENT in told or (said.code == MISUSED and BEGIN_AGAIN not in told):
        return _come_again(request)
    if IN_JOURNAL in told:
        given = Answer(said.code, [GIVEN])
        return render(
            request, "callback.html", status_code=202, said=given, is_over=False, head="Access was given"
        )
    why = Answer(said.code, [DENIED if error else FAILED])
    return render(request, "callback.html", status_code=400, said=why, is_over=True)


def _come_again(request: Request, words: str = AWAY) -> Response:
    return render(request, "callback.html", status_code=503, said=Answer(MISUSED, [words]), is_over=False)


def _spend(code: str, state: str, error: str) -> tuple[Answer, str]:
    """Turns the code into a grant, if the `state` is good; also whose `state` it is, empty if it is not ours."""
    with reading() as read:
        seller_id = consent_requests.seller_of(read.connection, state) if state else None
    if seller_id is None:
        return Answer(REFUSED, NOT_OURS), ""
    if not code and not error:
        return Answer(REFUSED, NO_CODE), seller_id
    given: dict[str, Any] = {"code": None if error else code, "error": error or None}
    given |= {"state": state, "force": False, "patience_s": page.CONSENT_PATIENCE_S}
    return run("authorizing:authorize", seller=seller_id, **given), seller_id


def _page(
    request: Request,
    said: Answer,
    *,
    seller: str,
    reader: Reader,
    url: str | None = None,
    connected: str | None = None,
    typed: Mapping[str, str] = MappingProxyType({}),
) -> HTMLResponse:
    return render(
        request,
        "connect.html",
        status_code=200 if said.code == DONE else 409,
        seller=seller,
        reader=reader,
        conn_id=read_options().conn_id,
        said=said,
        url=url,
        connected=connected,
        typed={"name": "", "sales_channel": "", "conn_id": "", **typed},
    )
