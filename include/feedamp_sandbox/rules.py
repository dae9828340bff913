"""Counts the rules that a client breaks; each rule has a sentence that says what to do instead."""

from collections import deque
from typing import NamedTuple

RULES: dict[str, str] = {
    "naive_time_in_query": "send times with Z; without an offset they are read as America/New_York (1)",
    "unknown_query_parameter": "send only parameters that the contract lists (3.1)",
    "missing_query_parameter": "the parameter is required (2.1)",
    "repeated_query_parameter": "a list is one comma-separated value (1)",
    "bad_query_value": "the value is not one the parameter takes (3.1)",
    "page_size_out_of_bounds": "page_size is between 10 and 50 (3.1)",
    "too_many_order_numbers": "ask for fewer order numbers per request (3.1)",
    "unknown_cursor": "send back next_cursor as it came (7.3)",
    "cursor_with_other_filters": "repeat the filters of the first page with its cursor (7.3)",
    "bad_body": "send JSON of the shape listed, as application/json (1)",
    "unknown_field": "send only fields that the contract lists (1)",
    "missing_field": "the field is required (3.3, 3.5, 3.6)",
    "bad_field": "type or value is not what the contract lists (3.3, 3.5, 3.6)",
    "body_changed": "after the first accepted PUT only marketplace_state may change (7.4)",
    "illegal_first_state": "an order starts as PENDING or AWAITING_SHIPMENT (7.1)",
    "illegal_transition": "SHIPPED comes after AWAITING_SHIPMENT only (Q25)",
    "backward_transition": "marketplace_state never moves back (Q25)",
    "closed_twice": "SHIPPED and CANCELLED are final (Q25)",
    "closed_too_early": "SHIPPED only when shipped + cancelled = ordered on every line (7.1)",
    "closed_as_the_wrong_state": "SHIPPED if anything shipped, else CANCELLED (7.1)",
    "closed_with_open_error": "an order with an open error stays open (7.6)",
    "duplicate_error_report": "report the same error of a line once while it is listed (7.5)",
    "error_on_closed_order": "do not report errors on closed orders (7.6)",
    "error_on_valid_shipment": "the seller's shipment is valid; the report blocks the seller (7.6)",
    "no_token": "send Authorization: Bearer with the seller's access token (1)",
    "unknown_token": "this access token was never issued (1)",
    "dead_access_token_reused": "after a 401 refresh once, do not repeat with the same token (7.7)",
    "basic_auth": "client id and secret go into the form of /access_token only (2.2)",
    "bearer_on_token_call": "send no bearer header to /access_token (2.2)",
    "json_token_body": "send a form to /access_token (2.2)",
    "secret_in_url": "never put secrets or tokens into a URL",
    "secret_in_header": "put secrets and tokens into no header but Authorization",
    "refresh_token_reused": "an exchanged refresh token no longer works; use the newest (2.2, Q10)",
    "code_reused": "an authorization code works once (2.1)",
    "rate_exceeded": "keep to the allowed requests per second and seller (Q5)",
    "retry_after_ignored": "wait as long as Retry-After says (7.7)",
    "unknown_path": "this method and path are not in the contract",
}


NEWEST_KEPT = 1_000


class BrokenRule(NamedTuple):
    """A rule, how often it was broken, and the first case as an example, without secrets or customer data."""

    rule: str
    times: int
    example: str


class BrokenRules:
    """The counters of one sandbox. `newest` holds (rule, example) of the last 1,000 cases, oldest first."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self.newest: deque[tuple[str, str]] = deque(maxlen=NEWEST_KEPT)

    def note(self, rule: str, example: str) -> None:
        """Counts `rule` once; `example` names method, path and field, never a customer's value."""
        if rule not in RULES:
            raise KeyError(rule)
        self._counts[rule] = self._counts.get(rule, 0) + 1
        self._examples.setdefault(rule, example[:300])
        self.newest.append((rule, example[:300]))

    @property
    def total(self) -> int:
        return sum(self._counts.values())

    def listed(self) -> list[BrokenRule]:
        """The broken rules, most often broken first."""
        return sorted(
            (BrokenRule(rule, count, self._examples[rule]) for rule, count in self._counts.items()),
            key=lambda broken: (-broken.times, broken.rule),
        )
