"""PURE: from which moment the next extraction reads, and whether a read moves the watermark (docs/rules.md, Extraction).

`extract` applies both rules to what it has read. `SellerProgress.moved` applies the second one again when the manifest
is loaded, since the watermark may have been moved back in between. `state/watermarks.py` only stores the result.
"""

from datetime import UTC, datetime, timedelta

from feedamp.errors import ConfigurationError


def given_since(text: str, name: str) -> datetime:
    """The moment (UTC) from which a person wants to read; `name` is what the text was given as.

    Raises:
        ConfigurationError: it is not a date-time with a time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        utc = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{name} is not a date-time; write it like 2026-03-01T00:00:00Z.") from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name} has no time zone; write it with a Z.")
    return utc


def next_watermark(*, started_at: datetime, server_time: datetime | None, overlap: timedelta) -> datetime:
    """When the read began, by the earlier of the state's clock and FeedAMP's, minus the overlap (contract 7.7)."""
    return min(server_time or started_at, started_at) - overlap


def leaves_gap(watermark: datetime | None, *, since: datetime | None) -> bool:
    """Whether changes after the watermark are unread although everything from `since` (inclusive) was read.

    Then the watermark must not move. None means the beginning, for both.
    """
    return since is not None and (watermark is None or watermark < since)
