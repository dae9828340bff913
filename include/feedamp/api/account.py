"""Where one FeedAMP account of the marketplace is, and its credentials."""

from __future__ import annotations

from dataclasses import dataclass

from feedamp.api.oauth import Credentials
from feedamp.api.transport import Endpoint


@dataclass(frozen=True)
class FeedAmpAccount:
    """One Airflow connection of type `feedamp`, read."""

    endpoint: Endpoint
    credentials: Credentials
    requests_per_second: float = 2.0
    callback_url: str | None = None
