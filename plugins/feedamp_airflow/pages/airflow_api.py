"""Airflow's own REST API, asked in this process as the user of a page: Airflow decides what the user may do, and logs it."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx
from fastapi import Request

_OF_THE_USER = ("authorization", "cookie", "referer")


class Answered(NamedTuple):
    """The status and the JSON document of an answer; None if it is not JSON."""

    status: int
    body: Any

    @property
    def is_good(self) -> bool:
        """Whether Airflow did what it was asked for."""
        return self.status < 300


async def ask(request: Request, method: str, path: str, body: dict[str, Any] | None = None) -> Answered:
    """Airflow's answer to this user; `path` begins after `/api/v2`.

    The app of the API server is called directly: its address may be a proxy's, which this process need not reach.
    """
    carried = {name: request.headers[name] for name in _OF_THE_USER if name in request.headers}
    transport = httpx.ASGITransport(app=request.scope["airflow_app"], raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url=str(request.base_url.replace(path=""))
    ) as client:
        answer = await client.request(method, f"/api/v2{path}", json=body, headers=carried)
    try:
        return Answered(answer.status_code, answer.json())
    except ValueError:
        return Answered(answer.status_code, None)


def refusal(answered: Answered, dag_id: str) -> str:
    """Why Airflow did not start a run or a backfill, as a sentence that says what to do."""
    known = {
        401: "Airflow does not know you any longer: log in again.",
        403: f"Your role in Airflow may not start runs of {dag_id}; ask for it, or let someone start it who may.",
        404: f"Airflow does not know {dag_id} yet: its DAG processor has not read the DAG.",
        409: f"A backfill of {dag_id} is running already, or ended less than a minute ago: wait for its end, or stop it on the page of the DAG.",
        503: "Airflow's own database is locked: try again in a minute. Backfills need Postgres or MySQL there.",
    }
    if answered.status in known:
        return known[answered.status]
    detail = answered.body.get("detail") if isinstance(answered.body, dict) else None
    if isinstance(detail, list):
        detail = "; ".join(str(one.get("msg", "")) for one in detail if isinstance(one, dict))
    if answered.status in (400, 422) and detail:
        return f"Airflow refuses it: {detail}"
    return f"Airflow answered with {answered.status}; the log of its API server has the reason."
