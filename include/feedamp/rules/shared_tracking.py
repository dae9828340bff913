"""PURE: how long, and for which recipient, a tracking number counts as shared (finding `shared_tracking`).

The numbers of other orders are stored as keyed hashes in `state/tracking.py`; `rules/checks.py` makes the finding.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from feedamp.models import Snapshot

SHARED_WITHIN = timedelta(days=90)
# Orders with equal values in all of these fields have the same recipient.
RECIPIENT = ("full_name", "address1", "address2", "postal_code", "city", "country_code")


def recipient_of(body: Mapping[str, Any]) -> str:
    """The recipient of an order body, in the form in which recipients are compared; holds customer fields."""
    address = body.get("shipping_address") or {}
    return "\x1f".join([str(address.get(name) or "").strip() for name in RECIPIENT]).casefold()


def tracking_numbers(snapshot: Snapshot) -> list[str]:
    """Tracking numbers of an order without duplicates, in the form in which they are compared."""
    numbers = [s.tracking_number for entry in snapshot.fulfillments for s in entry.shipments]
    return list(dict.fromkeys([comparable(number) for number in numbers if number and number.strip()]))


def comparable(tracking_number: str) -> str:
    """A tracking number in upper case, reduced to letters and digits."""
    upper = tracking_number.upper()
    return upper if upper.isalnum() else "".join(filter(str.isalnum, upper))
