"""What every page is made of: who may see it, the state it reads, and the template that shows it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import jinja2
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, ConnectionDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view, resolve_user_from_token
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from itsdangerous import URLSafeTimedSerializer
from markupsafe import Markup
from sqlalchemy.engine import Connection

from feedamp.rules import failure_summary
from feedamp.rules.reconciled_days import DAY
from feedamp.state import sellers
from feedamp.state.overview import CountedItems
from feedamp_airflow.audience import Audience, Shown
from feedamp_airflow.config import Options, read_options
from feedamp_airflow.connections import team_of
from feedamp_airflow.moments import moment
from feedamp_airflow.wiring import NoStateError, existing_state

MENU = (
    ("", "Overview"),
    ("sellers", "Sellers"),
    ("orders", "Orders"),
    ("findings", "Findings"),
    ("rejected", "Rejected"),
    ("reconciliation", "Reconciliation"),
    ("connect", "Connect a seller"),
)
DOTS = (".", "..")  # a browser takes them out of a path, however they are written
BY_HAND = "by hand"
LOCK_PATIENCE_S = 4.0  # meanwhile a request holds a thread of the API server
# After a code was spent, the answer must not be lost for a lock.
CONSENT_PATIENCE_S = 30.0
LOCKED = "Another process has locked the state database for some seconds; try again in a minute."
ROWS = 50  # of a table that is cut into pages
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
LONG_WORD = 24  # as many letters as a phone has room for beside a title
Offset = Annotated[int, Query(ge=0, le=10_000_000)]

may_view = Depends(requires_access_view(AccessView.PLUGINS))


class Refused(HTTPException):
    """What a page of ours says itself, other than what Airflow or FastAPI refuse."""


@dataclass(frozen=True, kw_only=True)
class Reader(Audience):
    """Who looks at a page, and what a form of this user carries, since Airflow has no token against forged ones."""

    token: str

    @property
    def may_change(self) -> bool:
        """Whether forms are for this user: who reads words may change things."""
        return self.reads_words


def reader(user: GetUserDep) -> Reader:
    """What this user may see and do: those who may edit the connection do everything."""
    conn_id = Options().conn_id
    allowed = get_auth_manager().is_authorized_connection(
        method="PUT", details=ConnectionDetails(conn_id=conn_id, team_name=team_of(conn_id)), user=user
    )
    return Reader(reads_words=allowed, token=form_signer().dumps(str(user.get_id())))


ThisReader = Depends(reader)


def _check_may_change(who: Annotated[Reader, ThisReader]) -> None:
    if not who.may_change:
        raise HTTPException(403)


# Not Airflow's own dependency: it asks about no connection at all, and an auth manager may decide by connection.
may_change = Depends(_check_may_change)


async def visitor(request: Request) -> Reader | None:
    """Who looks at a page that needs no login; None if it is no user of Airflow."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = token if scheme.lower() == "bearer" else request.cookies.get(COOKIE_NAME_JWT_TOKEN)
    try:
        return reader(await resolve_user_from_token(given))
    except HTTPException:
        return None


def form_signer() -> URLSafeTimedSerializer:
    """Signs the tokens of forms, with the key that all API servers of an installation share."""
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="feedamp-form")


Visitor = Depends(visitor)


@dataclass(frozen=True)
class Reading:
    """A view of the state at one moment."""

    connection: Connection
    now: datetime
    options: Options

    def registered(self, rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        """Which of the sellers of these rows have a page: an order outlives its seller, or waits for one."""
        ids = {row["seller_id"] for row in rows if row["seller_id"]}
        return frozenset(one.seller_id for one in sellers.find(self.connection, ids)) if ids else frozenset()


@contextlib.contextmanager
def reading() -> Iterator[Reading]:
    """The state as it is now; nothing is made or upgraded for a page.

    Raises:
        ConfigurationError: an option or connection cannot be used, or the state is missing or of another version.
        OperationalError: it has been locked for `LOCK_PATIENCE_S`, or cannot be read.
    """
    with contextlib.closing(existing_state(lock_wait_s=LOCK_PATIENCE_S)) as state, state.read() as connection:
        yield Reading(connection, state.now(ask=False), read_options())


def check_state(*, may_be_new: bool) -> None:
    """Raises as `reading`; with `may_be_new`, a state that is not there is none of these errors."""
    with contextlib.suppress(*([NoStateError] if may_be_new else [])):
        existing_state(lock_wait_s=LOCK_PATIENCE_S).close()


def ago(then: datetime | None, now: datetime) -> str:
    """How long before or after `now`: what was in the largest unit that is whole, what comes as `whole_days` from two on."""
    if then is None:
        return "never"
    if then <= now:
        return f"{span(now - then)} ago"
    return f"in {span(then - now if then - now < 2 * DAY else whole_days(then - now) * DAY)}"


def whole_days(length: timedelta) -> int:
    """The nearest number of days: a grant of this minute has 365 left, not 364."""
    return round(length / DAY)


def counted(count: int, noun: str, verb: str = "") -> str:
    """As in logs, with a comma after each three digits."""
    return failure_summary.counted(count, noun, verb, form=",")


def span(length: timedelta) -> str:
    """A length of time in one unit, rounded down."""
    seconds = int(length.total_seconds())
    for noun, of_one in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= of_one * (2 if noun == "day" else 1):
            return counted(seconds // of_one, noun)
    return counted(max(seconds, 0), "second")


def _shown(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f}\N{NO-BREAK SPACE}%"


def _moment(value: datetime) -> Markup:
    """A moment within a sentence: a line does not end at one of its hyphens."""
    return Markup('<span class="when">{}</span>').format(_shown(value))


def _breakable(name: str) -> Markup:
    """A name that a narrow screen breaks after an underscore, and a moment in it between date and time."""
    parts = re.split(r"(\d{4}-\d\d-\d\d)(?=T)", name)  # text, date, text, date, ..., text
    shown = [
        Markup('<span class="when">{}</span><wbr>').format(part)
        if n % 2
        else Markup("<wbr>").join(re.split("(?<=_)(?!_)", part))
        for n, part in enumerate(parts)
    ]
    return Markup().join(shown)


def _softened(text: str) -> Markup:
    """A text of which a narrow screen breaks long words at their joints: paths of fields, addresses."""
    return Markup(" ").join(
        Markup("<wbr>").join(re.split(r"(?<=[_.\]/&=])(?=\w)", word)) if len(word) > LONG_WORD else word
        for word in text.split(" ")
    )


def _unturned(value: Any) -> Any:
    """What a template shows; of a text that would turn the words after it around, a mark stands for the characters that do."""
    if not isinstance(value, str) or not _TURNING.search(value):
        return value
    return type(value)(_TURNING.sub("\N{REPLACEMENT CHARACTER}", value))


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_unturned,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _refuse_unhidden(rows: object) -> str:
    """Raises a TypeError if rows that a template is about to show went through no `Audience`."""
    if not isinstance(rows, Shown):
        raise TypeError("these rows were not read as the reader may see them")
    return ""


_templates.filters |= {
    "shown": _shown,
    "moment": _moment,
    "ago": ago,
    "percent": _percent,
    "breakable": _breakable,
    "softened": _softened,
}
_templates.globals |= {"menu": MENU, "counted": counted, "limit": ROWS, "refuse_unhidden": _refuse_unhidden}


def render(request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """A page of the template; `base` is where the pages begin, behind a proxy too.

    Rows must be as the reader may see them: a list or table of others is refused. If `registered` is given, only those sellers
    are links.
    """
    for value in values.values():
        if isinstance(value, CountedItems):
            _refuse_unhidden(value.items)
    base = request.scope.get("root_path", "").rstrip("/")
    here = request.url.path.removeprefix(base).strip("/").partition("/")[0]

    def seller_link(row: Mapping[str, Any]) -> str | None:
        if row["seller_id"] not in values.get("registered", (row["seller_id"],)):
            return None
        return row["seller_id"] and seller_address(base, row["seller_id"])

    def order_link(row: Mapping[str, Any]) -> str | None:
        if not row["seller_id"] or not row["mp_order_number"]:  # a rejected row may name neither
            return None
        if row.get("is_known") is False:  # a difference may be of an order that the ledger does not have
            return None
        if row["seller_id"] in DOTS or row["mp_order_number"] in DOTS:
            given = {"seller": row["seller_id"], "number": row["mp_order_number"]}
            return f"{base}/orders/?{urlencode(given)}"
        return f"{base}/orders/{quote(row['seller_id'], safe='')}/{quote(row['mp_order_number'], safe='')}"

    def run_path(key: str | None) -> str | None:
        """Where Airflow shows a run (`Run.key`); None for what was done by hand."""
        dag_id, _, run_id = (key or "").partition("/")
        if not dag_id.startswith("feedamp_") or run_id in ("", BY_HAND):
            return None
        above = base.rpartition("/")[0]  # the pages are mounted just below Airflow
        return f"{above}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe=':+')}"

    def link(**changed: object) -> str:
        """The address of this page with other query parameters; None drops one."""
        kept = {name: value for name, value in request.query_params.items() if name not in changed}
        query = urlencode(kept | {name: value for name, value in changed.items() if value is not None})
        return f"?{query}" if query else request.url.path

    back = page_of_form(request)
    links = {"seller_link": seller_link, "order_link": order_link, "run_path": run_path, "link": link}
    text = _templates.get_template(template).render(base=base, here=here, back=back, **links, **values)
    return HTMLResponse(text, status_code=status_code)


def page_of_form(request: Request) -> str | None:
    """Where the form was that is sent, with the filters that were chosen there; None if on no page of ours."""
    base = request.scope.get("root_path", "").rstrip("/")
    sent_from = split_address(request.headers.get("referer", ""))
    is_ours = request.method == "POST" and sent_from.path.startswith(f"{base}/")
    return sent_from._replace(scheme="", netloc="", fragment="").geturl() if is_ours else None


def split_address(text: str) -> SplitResult:
    """The parts of an address that a browser sent; all empty if it is none."""
    try:
        return urlsplit(text)
    except ValueError:
        return urlsplit("")


def seller_address(base: str, seller_id: str) -> str:
    """Where a seller's page is; `base` is where the pages begin."""
    if seller_id in DOTS:
        return f"{base}/sellers/?{urlencode({'seller': seller_id})}"
    return f"{base}/sellers/{quote(seller_id, safe='')}"
