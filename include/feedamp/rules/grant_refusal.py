"""PURE: whose fault it is that FeedAMP refused grants in a run, the sellers' or the client's (docs/rules.md, Tokens)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

REFUSALS_THAT_BLAME_THE_CLIENT = 5


def blames_client(refused: Sequence[str], *, last_success: datetime | None, run_started_at: datetime) -> bool:
    """Whether client id or secret must be wrong: five different sellers were refused, and no refresh succeeded in the run.

    `refused` are the sellers refused since the run started, `last_success` is the last refresh of any seller with the
    same credentials. A token that was still valid proves nothing.
    """
    succeeded = last_success is not None and last_success >= run_started_at
    return len(refused) >= REFUSALS_THAT_BLAME_THE_CLIENT and not succeeded
