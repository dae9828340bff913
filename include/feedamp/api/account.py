"""The address and credentials of one FeedAMP account of the marketplace."""

from dataclasses import dataclass

from feedamp.api.oauth import Credentials
from feedamp.api.transport import Endpoint
from feedamp.errors import ConfigurationError
from feedamp.rules.origin import contradicting, not_confirmed
from feedamp.state import State, grants

REQUESTS_PER_SECOND = 2.0  # of each seller, unless the connection's extra says otherwise


@dataclass(frozen=True)
class FeedAmpAccount:
    """The values of one Airflow connection of type `feedamp`."""

    endpoint: Endpoint
    credentials: Credentials
    requests_per_second: float = REQUESTS_PER_SECOND
    callback_url: str | None = None


def check_origin(state: State, conn_id: str, endpoint: Endpoint) -> None:
    """Checks that the grants of a connection were issued by its server; call it before anything is sent there.

    Grants that an earlier version stored get the connection's origin.

    Raises:
        ConfigurationError: they were issued by another server; a person must confirm the new one.
    """
    with state.read() as connection:
        known = grants.origins(connection, conn_id)
    issued_by = contradicting(known, endpoint.origin)
    if issued_by is not None:
        raise ConfigurationError(not_confirmed(conn_id, issued_by=issued_by, origin=endpoint.origin))
    if None in known:
        with state.begin() as connection:
            grants.adopt_origin(connection, conn_id, endpoint.origin)
