"""Decides at the end of a run, over all its tasks, who is at fault for refused grants: the sellers or the client."""

from __future__ import annotations

from datetime import datetime

from feedamp.rules.grant_refusal import blames_client
from feedamp.state import State, grants
from feedamp.steps.runner import warn_of_refused


def decide_refusals(state: State, since: datetime) -> list[str]:
    """Marks the sellers whose grants were refused since a moment (UTC) `needs_authorization`, and logs them once.

    If client id or secret must be wrong, no seller of that connection is marked. Safe to repeat: the same refusals lead
    to the same answer.

    Returns:
        A sentence for each connection whose client is at fault.
    """
    problems: list[str] = []
    newly: list[str] = []
    with state.begin() as connection:
        for conn_id, refused in grants.refused_since(connection, since).items():
            success = grants.last_success(connection, conn_id)
            if blames_client(refused, last_success=success, run_started_at=since):
                grants.unmark_since(connection, conn_id, since)
                problems.append(
                    f"FeedAMP refused {len(refused)} sellers of connection {conn_id} and accepted none: "
                    "client id or secret refused; correct them in the connection."
                )
            else:
                newly += grants.mark_needs_authorization(connection, refused, now=state.now())
    if newly:
        warn_of_refused(newly)
    return problems
