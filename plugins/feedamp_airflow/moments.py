"""How a moment is written for people: on a page, on a command line, in an error."""

from datetime import UTC, datetime


def moment(value: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
