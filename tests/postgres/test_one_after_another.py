"""What two connections make of the same row at the same moment: the second one waits, and sees what the first wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from wire import KEY

from feedamp.vault import Vault

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
VAULT = Vault(KEY)
