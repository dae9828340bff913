"""What a person changes from a page: the commands of `feedamp`, run in the API server for users who may edit connections.

Airflow has no token against forged forms, so a form of ours carries one, and the browser must say that it came from here.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from itsdangerous import BadData
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from feedamp.errors import StoreAwayError
from feedamp.rules.failure_summary import counted
from feedamp.state.reconnect import is_lock_timeout
from feedamp_airflow.cli import running
from feedamp_airflow.cli.output import Output
from feedamp_airflow.pages import page
from feedamp_airflow.pages.page import Refused, form_signer, may_change, render, split_address

FORM_LIFE_S = 8 * 3600
LONGEST_FIELD = 2_000
BEGIN = "authorizing:begin"  # of a consent
NOT_OUR_FORM = "This form is not one of ours; nothing was changed."
COMPLAINT = "feedamp: "


class Answer(NamedTuple):
    """What a command said, and its exit code; `is_part`: something was done although the code is not 0."""

    code: int
    lines: list[str]
    is_part: bool = False


# What a command says of the command line, and what the pages have instead.
IN_PAGES = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"; `feedamp \w+ list[^`]*` names all", ""),
        (
            r"Begin again with `feedamp sellers authorize-url [^`]*`",
            "Begin again on the page Connect a seller",
        ),
        (r"`feedamp sellers authorize-url [^`]*`", "the page Connect a seller"),
        (
            r"`feedamp sellers authorize [^`]* --force` uses this grant",
            "the button on the seller's page uses this grant",
        ),
        (
            r"run `feedamp sellers confirm-host[^`]*`",
            "confirm the new server on the page of one of its sellers",
        ),
        (r"register with `feedamp sellers add [^`]*`", "register it on the page Connect a seller"),
        (r"by --seller, --kind or both", "by seller, kind or both"),
        (r"\bthis state\b", "this link"),
        (
            r"try the same command again while the state is good",
            "paste the same address again while the link is good",
        ),
    )
]


def _one_of(form: FormData, name: str) -> list[str]:
    return [value] if (value := _field(form, name)) else []


def _each(form: FormData) -> list[dict[str, Any]]:
    return [{"seller": seller} for seller in _chosen(form)]


# By name in the address: the command as `cli/running.py` names it, and the arguments of each of its runs.
COMMANDS: dict[str, tuple[str, Callable[[FormData], list[dict[str, Any]]]]] = {
    "pause": ("sellers:pause", _each),
    "resume": ("sellers:resume", _each),
    "waive": ("findings:waive", lambda form: [{"ids": _chosen(form), "seller": None, "kind": None}]),
    "waive_all": (
        "findings:waive",
        lambda form: [
            {
                "ids": [],
                "seller": _one_of(form, "seller"),
                "kind": _one_of(form, "kind"),
                "count": int(_field(form, "count")),
            }
        ],
    ),
    "dismiss": ("rejected:dismiss", lambda form: [{"ids": _chosen(form)}]),
    "read-only": ("read_only:switch", lambda form: [{"to": to} for to in _chosen(form)]),
    "confirm_origin": (
        "sellers:confirm_host",
        lambda form: [{"conn_id": _field(form, "conn_id"), "origin": _field(form, "origin"), "yes": True}],
    ),
    "use_set_aside": (
        "authorizing:authorize",
        lambda form: [
            {"seller": one, "code": None, "state": None, "error": None, "force": True}
            for one in _chosen(form)
        ],
    ),
    "replay": ("rejected:replay_rows", lambda _form: [{"source": None}]),
    "test": ("doctor:test_connection", lambda form: [{"conn_id": _field(form, "conn_id")}]),
}


def check_form(request: Request, user: GetUserDep, token: Annotated[str, Form()] = "") -> None:
    """Refuses a form that is not one of our pages', made for this user, and sent by it."""
    site = request.headers.get("sec-fetch-site")
    origin = split_address(request.headers.get("origin", "")).netloc
    if site not in (None, "same-origin") or (site is None and origin != request.headers.get("host")):
        raise Refused(403, "This form was sent from another site; nothing was changed.")
    try:
        is_ours = form_signer().loads(token, max_age=FORM_LIFE_S) == str(user.get_id())
    except BadData:
        is_ours = False
    if not is_ours:
        raise Refused(403, "This form is too old or not yours; nothing was changed. Reload the page.")


came_back = APIRouter()
router = APIRouter(dependencies=[may_change, Depends(check_form)])


@came_back.get("/do/{name}")
@came_back.get("/connect/paste")
@came_back.get("/connect/extract")
def begin_again(request: Request) -> RedirectResponse:
    """Where a reload of an answer leads: the form is not sent again."""
    return RedirectResponse(f"{request.scope['root_path']}/", 303)


@router.post("/do/{name}", response_class=HTMLResponse)
async def act(request: Request, name: str, user: GetUserDep) -> HTMLResponse:
    """Runs one of the commands with the fields of the form, and shows what it said."""
    if name not in COMMANDS:
        raise Refused(404, "There is no such action.")
    command, arguments = COMMANDS[name]
    form = await request.form()
    try:
        given = arguments(form)
    except ValueError:
        raise Refused(400, NOT_OUR_FORM) from None
    reason = _field(form, "reason")
    by = str(user.get_name())
    answers: list[Answer] = []
    for one in given:
        try:
            answers.append(await run_in_threadpool(run, command, by=by, reason=reason, **one))
        except Refused as refused:
            if not answers:
                raise
            left = f"{len(answers)} of {counted(len(given), 'row')} {'was' if len(answers) == 1 else 'were'} done, as above; the others were not tried, or not to the end."
            answers.append(Answer(running.REFUSED, [left, str(refused.detail)]))
            break
    code = max(one.code for one in answers)
    is_part = code != running.DONE and any(one.is_part or one.code == running.DONE for one in answers)
    said = Answer(code, [line for one in answers for line in one.lines], is_part)
    return render(request, "said.html", said=said, status_code=200 if said.code == running.DONE else 409)


def _field(form: FormData, name: str) -> str:
    return _text(form.get(name, "")).strip()


def _chosen(form: FormData) -> list[str]:
    if not (chosen := [_text(value) for value in form.getlist("chosen")]):
        raise Refused(400, "Choose at least one row; nothing was changed.")
    return chosen


def _text(value: UploadFile | str) -> str:
    if not isinstance(value, str):  # a file has a name of its sender's, which the answer would repeat
        raise Refused(400, NOT_OUR_FORM)
    return value[:LONGEST_FIELD]


def run(command: str, *, by: str | None = None, patience_s: float | None = None, **given: Any) -> Answer:
    """Runs a command of `feedamp` in this process for a user, and says what it said in the words of the pages.

    A state that is missing or of another version stays so, which is then said: only the first consent may make one.

    `patience_s` is for who has locked the state, by default `page.LOCK_PATIENCE_S`.

    Raises:
        Refused: another process has locked the state for too long, or its server does not answer.
    """
    out = io.StringIO()
    patience = running.lock_wait_s.set(patience_s or page.LOCK_PATIENCE_S)
    unclear, is_part = "Nothing was changed.", False
    try:
        page.check_state(may_be_new=command == BEGIN)
        unclear = "Whether anything was changed is not known; look at the page again before you repeat it."
        output = Output(out, out, user=by)
        code = running.command(command)(argparse.Namespace(**given), output)
        is_part = code != running.DONE and bool(output.changes)
    except Exception as error:
        if isinstance(error, OperationalError) and is_lock_timeout(error):
            raise Refused(503, f"Nothing was changed. {page.LOCKED}") from error
        sentence, code = running.explain(error)
        if sentence is None:
            raise
        if isinstance(error, StoreAwayError | DBAPIError):
            raise Refused(503, f"{sentence.rstrip('.')}. {unclear}") from error
        out.write(f"{sentence}\n")
    finally:
        running.lock_wait_s.reset(patience)
    said = out.getvalue().replace(COMPLAINT, "")
    for pattern, words in IN_PAGES:
        said = pattern.sub(words, said)
    return Answer(code, said.splitlines(), is_part)
