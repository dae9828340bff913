"""`/feedamp/connect`: a seller's consent, from the link to the grant; `/feedamp/callback` is where FeedAMP sends the seller."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from feedamp.errors import FeedAmpError
from feedamp.state import consent_requests
from feedamp_airflow.cli.running import DONE, MISUSED, REFUSED
from feedamp_airflow.pages.actions import Answer, run
from feedamp_airflow.pages.page import Reader, ThisReader, reading, render

router = APIRouter()  # for users who see the pages
changing = APIRouter()  # for those who may change connections
open_to_all = APIRouter()

NOT_OURS = ["This link was not made here, or long ago; nothing was changed."]
NO_CODE = ["This address has no code: open the link again and consent. Nothing was changed."]
DENIED = "You did not consent; nothing was changed."
AWAY = "The account could not be connected now: open this address again in a minute."
FAILED = "The account could not be connected: a link works once and for 15 minutes, and only for the account it was made for. If you saw that it is connected, all is well."

Text = Annotated[str, Form(max_length=2_000)]


@router.get("/connect", response_class=HTMLResponse)
def ask(request: Request, seller: str = "", reader: Reader = ThisReader) -> HTMLResponse:
    """The form that begins a consent, and the one that ends it by hand."""
    return render(request, "connect.html", seller=seller, token=reader.token, said=None, url=None)


@changing.post("/connect", response_class=HTMLResponse)
def begin(
    request: Request,
    seller: Text,
    name: Text = "",
    sales_channel: Text = "",
    conn_id: Text = "",
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """Registers the seller if it is new, and makes the link at which it consents."""
    seller = seller.strip()
    new = {"name": name.strip() or None, "sales_channel": sales_channel.strip() or None}
    said = run("sellers:add", seller=seller, conn_id=conn_id.strip() or None, **new)
    url = None
    if said.code == DONE:
        said = run("authorizing:make_url", seller=seller)
        links = [line for line in said.lines if line.startswith(("https://", "http://"))]
        url = links[0] if said.code == DONE and links else None
        said = Answer(said.code, [] if url else said.lines)
    return _page(request, said, seller=seller, reader=reader, url=url)


@changing.post("/connect/paste", response_class=HTMLResponse)
def finish(request: Request, address: Text, reader: Reader = ThisReader) -> HTMLResponse:
    """Takes the address to which FeedAMP sent the seller, where that is no page of ours."""
    try:
        query = parse_qs(urlsplit(address.strip()).query)
    except ValueError:
        query = {}
    found = {name: query.get(name, [""])[0] for name in ("code", "state", "error")}
    return _page(request, _spend(**found), seller="", reader=reader, url=None)


@open_to_all.get("/callback", response_class=HTMLResponse)
def receive(
    request: Request, code: str = "", state: str = "", error: str = "", connected: bool = False
) -> Response:
    """Where FeedAMP sends a seller, who need not be a user of Airflow; accepts nothing without a `state` of this installation."""
    if connected:
        return render(request, "callback.html", said=Answer(DONE, []), is_over=True)
    try:
        said = _spend(code, state, error)
    except (FeedAmpError, SQLAlchemyError):
        said = Answer(MISUSED, [])
    if said.code == DONE:  # a reload shows the same, and the code leaves the address
        return RedirectResponse(f"{request.scope['root_path']}/callback?connected=true", 303)
    if said.lines in (NOT_OURS, NO_CODE):
        return render(request, "callback.html", status_code=400, said=said, is_over=True)
    # Only who sent the link reads why.
    if said.code == MISUSED or any("Nothing was spent" in line for line in said.lines):
        return render(
            request, "callback.html", status_code=503, said=Answer(said.code, [AWAY]), is_over=False
        )
    why = Answer(said.code, [DENIED if error else FAILED])
    return render(request, "callback.html", status_code=400, said=why, is_over=True)


def _spend(code: str, state: str, error: str) -> Answer:
    """Turns the code into a grant, if the `state` is good."""
    with reading() as read:
        seller_id = consent_requests.seller_of(read.connection, state) if state else None
    if seller_id is None:
        return Answer(REFUSED, NOT_OURS)
    if not code and not error:
        return Answer(REFUSED, NO_CODE)
    given = {"code": None if error else code, "error": error or None}
    return run("authorizing:authorize", seller=seller_id, state=state, force=False, **given)


def _page(request: Request, said: Answer, *, seller: str, reader: Reader, url: str | None) -> HTMLResponse:
    status_code = 200 if said.code == DONE else 409
    return render(
        request,
        "connect.html",
        status_code=status_code,
        seller=seller,
        token=reader.token,
        said=said,
        url=url,
    )
