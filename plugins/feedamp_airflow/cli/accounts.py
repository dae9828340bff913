"""Sellers whose FeedAMP account is not clear: what `feedamp doctor` says about them, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.troubles import counted
from feedamp.state import known_orders, sellers
from feedamp.state.sellers import SET_ASIDE, Seller

SELLERS_NAMED = 10


def unclear(known: Sequence[Seller]) -> dict[str, str]:
    """Why it is not clear that a seller's grant is for the seller's account, by seller."""
    by_id = {seller.seller_id: seller for seller in known}
    reasons = {s.seller_id: _reason(s, by_id.get(s.mixed_with or "")) for s in known}
    return {seller_id: reason for seller_id, reason in reasons.items() if reason is not None}


def _is_mixed_up(seller: Seller, other: Seller | None) -> bool:
    """Two accounts are mixed up until one of the two sellers alone is paused. A grant that is refused ends nothing.

    One who was resumed is no longer mixed up, the other of the two is until it is resumed as well.
    """
    if seller.mixed_with is None or other is None:
        return False
    is_pair = other.mixed_with == seller.seller_id
    return not is_pair or seller.paused == other.paused


def _reason(seller: Seller, other: Seller | None) -> str | None:
    mix_up = seller.mix_up if _is_mixed_up(seller, other) else None
    is_set_aside = seller.grant == SET_ASIDE
    grant = f"the grant is set aside: {seller.grant_reason}" if is_set_aside else seller.grant_reason
    return "; ".join(reason for reason in (mix_up, grant) if reason) or None


def read_again(seller_ids: Sequence[str]) -> str:
    """That watermarks were removed with new grants."""
    first = ", ".join(seller_ids[:SELLERS_NAMED]) + (", …" if len(seller_ids) > SELLERS_NAMED else "")
    return (
        f"The next extraction reads all orders of {counted(len(seller_ids), 'seller')} again ({first}), "
        "since another account may have been read until now."
    )


def examine(resources: Resources) -> str:
    """That every account is clear, and which have shown nothing yet to compare.

    Raises:
        FeedAmpError: some are not; the message names the steps that undo it.
    """
    with resources.state.read() as connection:
        known = sellers.find(connection)
        silent = known_orders.nothing_to_compare(connection)
    steps = [*_mixed_steps(known), *_set_aside_steps(known)]
    if steps:
        more = f" There are {len(steps) - SELLERS_NAMED} more." if len(steps) > SELLERS_NAMED else ""
        raise FeedAmpError(" ".join(steps[:SELLERS_NAMED]) + more)
    if silent:
        first = ", ".join(silent[:SELLERS_NAMED]) + (", …" if len(silent) > SELLERS_NAMED else "")
        return (
            f"no account shows another seller's orders; nothing to compare yet for {counted(len(silent), 'seller')} ({first}): "
            "no order of theirs was placed or seen, so two tokens for one account could not be told apart"
        )
    return "no account shows another seller's orders"


def _mixed_steps(known: list[Seller]) -> list[str]:
    """A paragraph for each pair of sellers whose accounts are mixed up."""
    paragraphs: dict[frozenset[str], str] = {}
    by_id = {seller.seller_id: seller for seller in known}
    for seller in known:
        if seller.mixed_with is None or not _is_mixed_up(seller, by_id.get(seller.mixed_with)):
            continue
        one, other = sorted((seller.seller_id, seller.mixed_with))
        what = "are paused" if seller.paused else "may hold tokens for one account"
        paragraphs[frozenset((one, other))] = (
            f"Sellers {one} and {other} {what}: {seller.mix_up}. Find out at FeedAMP which of the two the "
            f"account belongs to; the other one signs out of FeedAMP, signs in with the right account and opens a new "
            f"link of `feedamp sellers authorize-url {other}` (or {one}), then `feedamp sellers authorize {other} "
            f"--code=C --state=S`, with `--force` if the right account lacks the orders that went to the wrong one. "
            f"If FeedAMP ended the first seller's grant meanwhile, that one authorizes again as well. "
            f"Then `feedamp sellers resume {one}` and `feedamp sellers resume {other}`; a reconciliation with repair "
            f"places orders again that the right account lacks, and in the wrong account they must be cancelled by hand. "
            f'How rows that stand under both sellers leave the warehouse: docs/runbook.md, "A grant is set aside". If one '
            f"of the two is no longer used, `feedamp sellers pause` ends this; if both may show these orders, `feedamp "
            f"sellers resume {one}` and `feedamp sellers resume {other}`."
        )
    return list(paragraphs.values())


def _set_aside_steps(known: list[Seller]) -> list[str]:
    return [
        f"Seller {seller.seller_id}: {_reason(seller, None)}. If the seller was signed in with the wrong account, sign out of "
        f"FeedAMP and open a new link of `feedamp sellers authorize-url {seller.seller_id}`, then `feedamp sellers "
        f"authorize {seller.seller_id} --code=C --state=S`. If the account is right, `feedamp sellers authorize "
        f"{seller.seller_id} --force` takes the grant that is set aside."
        for seller in known
        if seller.grant_reason is not None
    ]
