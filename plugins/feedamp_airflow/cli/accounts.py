"""Sellers whose FeedAMP account is not clear, and the steps that `feedamp doctor` prints for them."""

import contextlib
from collections.abc import Iterator, Sequence

from sqlalchemy.exc import SQLAlchemyError

from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.state import known_orders, overview, sellers
from feedamp.state.sellers import SET_ASIDE, Seller
from feedamp.steps.enroll import is_refused
from feedamp_airflow.audience import Audience
from feedamp_airflow.cli.output import Output

SELLERS_NAMED = 10


def unclear(known: Sequence[Seller]) -> dict[str, str]:
    """By seller, why the grant may not be for the seller's own account."""
    by_id = {seller.seller_id: seller for seller in known}
    reasons = {
        s.seller_id: _reason(s, is_mixed_up=_is_mixed_up(s, by_id.get(s.mixed_with or ""))) for s in known
    }
    return {seller_id: reason for seller_id, reason in reasons.items() if reason is not None}


def _is_mixed_up(seller: Seller, other: Seller | None) -> bool:
    """Whether the seller still counts as mixed up with the other one: a pair does until exactly one of the two is paused.

    Resuming a seller ends the mix-up for that seller only; the other one remains mixed up until it is resumed as well.
    A refused grant does not end it, nor does it that the other one was removed or erased: this one's account may be its.
    """
    if other is None:
        return seller.mix_up is not None
    is_pair = other.mixed_with == seller.seller_id
    return not is_pair or seller.paused == other.paused


def _reason(seller: Seller, *, is_mixed_up: bool) -> str | None:
    mix_up = seller.mix_up if is_mixed_up else None
    is_set_aside = seller.grant == SET_ASIDE
    grant = f"the grant is set aside: {seller.grant_reason}" if is_set_aside else seller.grant_reason
    return "; ".join(reason for reason in (mix_up, grant) if reason) or None


@contextlib.contextmanager
def names_who_is_read_again(resources: Resources, out: Output) -> Iterator[None]:
    """Says at the end of the `with` block whose watermarks were removed in it because of new grants."""
    with resources.state.read() as connection:
        before = overview.seller_watermarks(connection)
    yield
    try:
        with resources.state.read() as connection:
            removed = sorted(before.keys() - overview.seller_watermarks(connection).keys())
    except (FeedAmpError, SQLAlchemyError) as error:  # what was done is stored
        out.complain(f"Whose orders the next extraction reads again is not known ({type(error).__name__}).")
        return
    if removed:
        out.complain(
            f"The next extraction reads all orders of {counted(len(removed), 'seller')} again ({_first(removed)}), "
            "since another account may have been read until now."
        )


def _first(seller_ids: Sequence[str]) -> str:
    return ", ".join(seller_ids[:SELLERS_NAMED]) + (", …" if len(seller_ids) > SELLERS_NAMED else "")


def examine(resources: Resources, reader: Audience) -> str:
    """Says that every account is clear, or raises a FeedAmpError with the steps that make it so, for this reader."""
    with resources.state.read() as connection:
        known = sellers.find(connection)
        silent = known_orders.nothing_to_compare(connection)
    steps = [*_mixed_steps(known, reader), *_set_aside_steps(known, reader)]
    if steps:
        more = f" There are {len(steps) - SELLERS_NAMED} more." if len(steps) > SELLERS_NAMED else ""
        raise FeedAmpError(" ".join(steps[:SELLERS_NAMED]) + more)
    if silent:
        return (
            f"no account shows another seller's orders; nothing to compare yet for {counted(len(silent), 'seller')} ({_first(silent)}): "
            "none of their orders was placed or read, so two tokens for one account cannot be distinguished"
        )
    return "no account shows another seller's orders"


def _mixed_steps(known: list[Seller], reader: Audience) -> list[str]:
    """A paragraph for each pair of sellers whose accounts are mixed up, and for each whose other one is gone."""
    paragraphs: dict[frozenset[str], str] = {}
    by_id = {seller.seller_id: seller for seller in known}
    for seller in known:
        other_one = by_id.get(seller.mixed_with or "")
        if not _is_mixed_up(seller, other_one):
            continue
        if seller.mixed_with is None or other_one is None:
            paragraphs[frozenset((seller.seller_id,))] = _mixed_with_gone(seller, reader)
            continue
        one, other = sorted((seller.seller_id, seller.mixed_with))
        what = "are paused" if seller.paused else "may hold tokens for one account"
        evidence = reader.said(seller.mix_up, "orders of one were seen in the account of the other")
        paragraphs[frozenset((one, other))] = (
            f"Sellers {one} and {other} {what}: {evidence}. Find out at FeedAMP which of the two the "
            f"account belongs to; the other one signs out of FeedAMP, signs in with the right account and opens a new "
            f"link from `feedamp sellers authorize-url {other}` (or {one}), then `feedamp sellers authorize {other} "
            f"--code - --state -`, with `--force` if the right account lacks the orders that went to the wrong one. "
            f"If FeedAMP has ended the first seller's grant meanwhile, that seller authorizes again as well. "
            f"Then `feedamp sellers resume {one}` and `feedamp sellers resume {other}`; a reconciliation with repair "
            f"places the orders again that the right account lacks; in the wrong account they must be cancelled by hand. "
            f'For rows that are in the warehouse under both sellers see docs/runbook.md, "Rows are stored under both sellers". If one '
            f"of the two is no longer used, `feedamp sellers pause` ends this; if both may show these orders, `feedamp "
            f"sellers resume {one}` and `feedamp sellers resume {other}`."
        )
    return list(paragraphs.values())


def _mixed_with_gone(seller: Seller, reader: Audience) -> str:
    own = seller.seller_id
    evidence = reader.said(seller.mix_up, "orders of one were seen in the account of the other")
    return (
        f"Seller {own} may hold a token for the account of seller {seller.mixed_with or '(erased)'}, which is no longer "
        f"registered: {evidence}. If the account is that of {own}, `feedamp sellers resume {own}` ends this. Otherwise sign out "
        f"of FeedAMP, sign in with the right account, open a new link from `feedamp sellers authorize-url {own}`, then "
        f"`feedamp sellers authorize {own} --code - --state -` and `feedamp sellers resume {own}`."
    )


def _set_aside_steps(known: list[Seller], reader: Audience) -> list[str]:
    return [
        f"Seller {seller.seller_id}: {reader.said(_reason(seller, is_mixed_up=False), 'it is not clear whose account the grant is for')}. If the seller was signed in with the wrong account, sign out of "
        f"FeedAMP and open a new link from `feedamp sellers authorize-url {seller.seller_id}`, then `feedamp sellers "
        f"authorize {seller.seller_id} --code - --state -`.{_forced(seller)}"
        for seller in known
        if seller.grant_reason is not None
    ]


def _forced(seller: Seller) -> str:
    if is_refused(seller.grant_reason or ""):
        return ""
    return f" If the account is right, `feedamp sellers authorize {seller.seller_id} --force` uses the grant that is set aside."
