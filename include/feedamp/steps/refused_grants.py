"""Decides at the end of a run, over all its tasks, who is at fault for refused grants: the sellers or the client."""

import logging
from collections.abc import Sequence

from feedamp.rules.failure_summary import counted, named
from feedamp.rules.grant_refusal import BlameClient, judge_run
from feedamp.run import Run
from feedamp.state import State, grants

log = logging.getLogger(__name__)


def decide_refusals(state: State, run: Run) -> list[str]:
    """Marks the sellers whose grants were refused in this run `needs_authorization`, and logs them once.

    If client id or secret must be wrong, no seller of that connection is marked. Refusals of other runs that overlap are
    left to those. Returns a sentence for each connection whose client is at fault. Safe to repeat.
    """
    problems: list[str] = []
    newly: list[str] = []
    with state.begin() as connection:
        for conn_id, refused in grants.refused_in(connection, run.key, run.started_at).items():
            success = grants.last_success(connection, conn_id)
            verdict = judge_run(refused, last_success=success, run_started_at=run.started_at)
            if isinstance(verdict, BlameClient):
                grants.unmark(connection, conn_id, run.key, since=run.started_at, now=state.now())
                problems.append(
                    f"FeedAMP refused {counted(len(refused), 'seller')} of connection {conn_id} and accepted none: client id or secret "
                    "refused. They are probably wrong; correct them in the connection."
                )
            else:
                newly += grants.mark_needs_authorization(connection, refused, now=state.now())
    if newly:
        warn_of_refused(newly)
    return problems


def warn_of_refused(seller_ids: Sequence[str]) -> None:
    """Logs, once for each newly marked seller, who must authorize again."""
    subject = f"Seller {seller_ids[0]}" if len(seller_ids) == 1 else f"Sellers {named(seller_ids)}"
    log.warning("%s must authorize again: FeedAMP refuses the grant.", subject)
