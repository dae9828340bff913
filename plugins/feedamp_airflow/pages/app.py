"""The app of the pages: every route but the consent's callback needs a user of Airflow who may see plugins."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException

from feedamp.errors import FeedAmpError
from feedamp.state.reconnect import is_lock_timeout
from feedamp_airflow.audience import VIEWER
from feedamp_airflow.pages import actions, backfill, connect, orders, overview, reconciliation, sellers
from feedamp_airflow.pages.page import LOCKED, Refused, may_view, page_of_form, render, visitor
from feedamp_airflow.wiring import NoStateError

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {"feedamp.css": "text/css", "theme.js": "text/javascript", "copy.js": "text/javascript"}
# No script but our files, no style but ours, nothing from elsewhere; the frame is Airflow's own page.
POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
AWAY = (
    "The state database cannot be read now. Who may edit the connection of FeedAMP in Airflow sees here why."
)
NOTHING_YET = "There is no state here yet: nothing has run so far."
BEGIN_HERE = "On a new installation, connect a seller, or unpause a FeedAMP DAG in Airflow, whose first run makes it; on any other, the state is away."
SAID = {
    401: "Log in to Airflow first.",
    403: "Your role in Airflow may not see this page.",
    404: "There is no such page.",
}
NOT_DONE = {
    401: "Log in to Airflow first; nothing was changed.",
    403: "Your role in Airflow may not do this; nothing was changed.",
}
UNVERIFIED = "Invalid JWT token"  # Airflow's word, with 403, for a login that is signed with another key

router = APIRouter(dependencies=[may_view])
for part in (overview, sellers, orders, reconciliation, backfill, connect):
    router.include_router(part.router)
for part in (connect, backfill):
    actions.router.include_router(part.changing)
router.include_router(actions.router)
router.include_router(actions.came_back)


@connect.open_to_all.get("/static/{name}")
def static(name: str) -> Response:
    """The style sheet and the scripts."""
    if name not in MEDIA_TYPES:
        raise HTTPException(404)
    return FileResponse(STATIC / name, media_type=MEDIA_TYPES[name])


# No redirect of an address with a slash too many: it would lead to whatever host the request names, with the query.
app = FastAPI(title="FeedAMP", openapi_url=None, redirect_slashes=False)
app.include_router(router)
app.include_router(connect.open_to_all)  # the seller who comes back is no user of Airflow


@app.middleware("http")
async def with_headers(request: Request, call_next: Any) -> Any:
    """Adds the headers that every answer has; a form of someone who is not logged in is refused before it is read."""
    response = await _refuse_stranger(request) or await call_next(request)
    if request.url.path.rstrip("/").endswith("/callback"):  # its address has the code
        response.headers["Referrer-Policy"] = "no-referrer"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _refuse_stranger(request: Request) -> Response | None:
    if request.method in ("GET", "HEAD"):
        return None
    try:
        await get_user(request, None, await bearer_scheme(request))
    except HTTPException as error:
        return await refuse(request, error)
    return None


def _is_health(request: Request) -> bool:
    """Whether a monitor asks; a seller or an order may be called `health` too."""
    return request.scope.get("endpoint") is overview.health


@app.exception_handler(HTTPException)
async def refuse(request: Request, error: HTTPException) -> Response:
    """A page for what Airflow or a route refused."""
    if _is_health(request):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    status = HTTPStatus.UNAUTHORIZED if error.detail == UNVERIFIED else error.status_code
    known = SAID | NOT_DONE if request.method == "POST" else SAID
    said = error.detail if isinstance(error, Refused) else known.get(status, str(error.detail))
    login = _login_address(request) if status == HTTPStatus.UNAUTHORIZED else None
    page = render(request, "refused.html", status_code=status, said=said, login=login)
    page.headers.update(error.headers or {})
    return page


def _login_address(request: Request) -> str:
    """Where Airflow asks who it is, whatever its auth manager, and then leads to the page, or to that of the form."""
    base = request.scope.get("root_path", "").rstrip("/")
    asked = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
    query = urlencode({"next": asked if request.method == "GET" else page_of_form(request) or f"{base}/"})
    return f"{base.rpartition('/')[0]}/api/v2/auth/login?{query}"


@app.exception_handler(RequestValidationError)
async def refuse_value(request: Request, error: RequestValidationError) -> Response:
    """A page for a value that a route does not take; it is not repeated."""
    names = ", ".join(str(one["loc"][-1]) for one in error.errors())
    return await refuse(request, Refused(400, f"This cannot be used: {names}. Nothing was changed."))


@app.exception_handler(Exception)
async def say_it_failed(request: Request, _error: Exception) -> Response:
    """A page for a fault of ours; the traceback goes to the API server's log."""
    said = "This page failed. The log of Airflow's API server has the reason."
    page = render(request, "refused.html", status_code=500, said=said)
    page.headers.update(HEADERS)
    return page


@app.exception_handler(FeedAmpError)
@app.exception_handler(SQLAlchemyError)
async def say_state_is_away(request: Request, error: Exception) -> Response:
    """A page instead of the traceback: only the driver's first line, since SQLAlchemy quotes statements."""
    said = str(error)
    if isinstance(error, SQLAlchemyError):
        lines = str(getattr(error, "orig", None) or type(error).__name__).splitlines()
        said = f"The state database cannot be read: {lines[0] if lines else type(error).__name__}"
    who = await visitor(request)
    is_new = isinstance(error, NoStateError)
    if is_new and request.method == "GET" and not _is_health(request):
        said = f"{said} {BEGIN_HERE}"
    if isinstance(error, DBAPIError) and is_lock_timeout(error):
        said = LOCKED
    else:  # paths and hosts are for those who may edit the connection
        said = (who or VIEWER).said(said, NOTHING_YET if is_new else AWAY)
    # A form reads before it does anything; what a command could not do, `actions.run` says.
    if request.method == "POST":
        starts = request.url.path.endswith(("/backfill", "/extract"))
        said = f"{said.rstrip('.')}. Nothing was {'started' if starts else 'changed'}."
    if _is_health(request):
        return JSONResponse({"status": "unavailable", "detail": said}, 503)
    return render(request, "refused.html", status_code=503, said=said)
