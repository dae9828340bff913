"""The options that an installation can set for order bodies: extra and optional fields, and the order number."""

import re
from dataclasses import dataclass
from functools import cached_property

from feedamp.errors import ConfigurationError
from feedamp.order_body.shape import KEYS, READ_ONLY, field_names

DEFAULT_OPTIONAL_FIELDS = frozenset({"shipping_address.state"})
DEFAULT_ORDER_NUMBER_PATTERN = "[A-Za-z0-9._-]{1,128}"


@dataclass(frozen=True)
class BodyRules:
    """The options about order bodies; field names are dotted, without indexes (`order_lines.gift_note`).

    `extra_order_fields` are passed on unchanged. `optional_fields` may be absent although the contract requires
    them; a value replaces the default and does not add to it. `order_number_pattern` must match the whole number.
    `allow_spreadsheet_numbers` accepts identifiers that look as if a spreadsheet had changed them.

    Raises:
        ConfigurationError: an option names a field that it cannot apply to, or the pattern is not a regular expression.
    """

    extra_order_fields: frozenset[str] = frozenset()
    optional_fields: frozenset[str] = DEFAULT_OPTIONAL_FIELDS
    order_number_pattern: str = DEFAULT_ORDER_NUMBER_PATTERN
    allow_spreadsheet_numbers: bool = False

    def __post_init__(self) -> None:
        for name in sorted(self.extra_order_fields & READ_ONLY.keys()):
            raise ConfigurationError(f"extra_order_fields: {name} cannot be sent: {READ_ONLY[name]}")
        for name in sorted(self.optional_fields - set(field_names())):
            raise ConfigurationError(f"optional_fields: an order has no field {name}")
        for name in sorted(self.optional_fields & KEYS):
            raise ConfigurationError(f"optional_fields: no order can be handled without {name}")
        try:
            re.compile(self.order_number_pattern)
        except re.error as error:
            raise ConfigurationError(f"order_number_pattern is not a regular expression: {error}") from error

    @cached_property
    def order_number(self) -> re.Pattern[str]:
        """The compiled pattern; use `fullmatch`."""
        return re.compile(self.order_number_pattern)


def named_field(words: str, rules: BodyRules) -> str:
    """The order field at the start of FeedAMP's message, e.g. in `order_lines[0].sku: …`; empty if there is none."""
    field = words.partition(":")[0]
    name = re.sub(r"\[\d+\]", "", field)
    return field if name in rules.extra_order_fields.union(field_names()) else ""
