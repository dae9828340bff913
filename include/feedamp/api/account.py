"""The address and credentials of one FeedAMP account of the marketplace."""

from __future__ import annotations

from dataclasses import dataclass

from feedamp.api.oauth import Credentials
from feedamp.api.transport import Endpoint


@dataclass(frozen=True)
class FeedAmpAccount:
    """The values of one Airflow connection of type `feedamp`."""

    endpoint: Endpoint
    credentials: Credentials
    requests_per_second: float = 2.0
    callback_url: str | None = None
