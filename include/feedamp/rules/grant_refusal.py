"""PURE: what it means that FeedAMP refused a grant: first of one answer, then over a whole run (docs/rules.md, Tokens)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

REFUSALS_THAT_BLAME_THE_CLIENT = 5


@dataclass(frozen=True)
class Retry:
    """Another process has stored newer tokens meanwhile: try again with those."""


@dataclass(frozen=True)
class Mark:
    """The seller must authorize again; `is_lost`: its newest token was lost with a process, so nothing blames the client."""

    is_lost: bool = False


@dataclass(frozen=True)
class BlameClient:
    """Client id or secret must be wrong; no seller is marked."""


def judge_answer(
    *, has_newer_tokens: bool, names_client: bool, is_orphaned: bool
) -> Retry | Mark | BlameClient:
    """What one refused refresh means. `Mark` becomes final only at the end of the run, by `judge_run`, unless `is_lost`.

    `names_client`: FeedAMP answered `invalid_client`. `is_orphaned`: a process died in an earlier refresh of this grant, so
    FeedAMP may have answered with tokens that were never stored.
    """
    if has_newer_tokens:
        return Retry()
    return BlameClient() if names_client else Mark(is_lost=is_orphaned)


def judge_run(
    refused: Sequence[str], *, last_success: datetime | None, run_started_at: datetime
) -> Mark | BlameClient:
    """Whether the refused sellers of a run are at fault, or the client.

    The client is if five different sellers were refused and no refresh with the same credentials succeeded since the run
    started; `last_success` is the last one. A token that was still valid proves nothing.
    """
    succeeded = last_success is not None and last_success >= run_started_at
    return Mark() if succeeded or len(refused) < REFUSALS_THAT_BLAME_THE_CLIENT else BlameClient()
