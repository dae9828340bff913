"""Checks a complete order body; returns the canonical body, or every reason why it is rejected."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedamp.order_body import values
from feedamp.order_body.body_options import BodyRules
from feedamp.order_body.reject_reasons import BadValueError, Reason, ReasonCode, storable
from feedamp.order_body.shape import IDENTIFIERS, NOT_SENT, ORDER, READ_ONLY, ListOf, Members, Node, Value
from feedamp.order_body.spreadsheet_damage import damage, is_nothing, postal_damage

_ENVELOPE: Mapping[str, Node] = {"seller_id": Value(values.seller_id, required=True)}


def check_body(
    seller_and_order: object, rules: BodyRules, *, is_table: bool = False
) -> tuple[dict[str, Any] | None, tuple[Reason, ...]]:
    """The body to PUT and no reason, or None and all reasons, in the order of the fields.

    Takes `{"seller_id": …, "order": {…}}`. The fields of the body are in the contract's order, followed by extra
    fields sorted by name. Money is Decimal with two decimals; date-times are UTC with `Z`; `null`, blank optional text
    and taxes and discounts of zero are left out. So two deliveries with the same meaning give equal bodies.
    `is_table`: the values come from the cells of a flat table, which a spreadsheet may have written.
    """
    check = _Check(rules, is_table=is_table)
    if not isinstance(seller_and_order, Mapping):
        return None, (Reason("", "wrong_type", 'must be an object {"seller_id": …, "order": {…}}'),)
    check.members(_ENVELOPE, {"seller_id": seller_and_order.get("seller_id")}, "", "")
    for name in sorted(str(name) for name in seller_and_order.keys() - {"seller_id", "order"}):
        check.refuse(_shown(name), "unknown_field", "a row holds seller_id and order, nothing else")
    body: dict[str, Any] = {}
    if seller_and_order.get("order") is None:
        check.refuse("order", "missing", "must be there")
    elif not isinstance(seller_and_order["order"], Mapping):
        check.refuse("order", "wrong_type", "must be an object")
    else:
        body = check.members(ORDER, seller_and_order["order"], "", "")
        check.order_number(body)
        check.line_numbers(body)
        check.postal_code(body.get("shipping_address", {}))
    return (None, tuple(check.reasons)) if check.reasons else (body, ())


class _Check:
    """One pass over one body. `path` has indexes and is shown in reasons; `name` has none and is used for look-ups."""

    def __init__(self, rules: BodyRules, *, is_table: bool) -> None:
        self.rules = rules
        self.is_table = is_table
        self.reasons: list[Reason] = []

    def refuse(self, path: str, code: ReasonCode, message: str) -> None:
        self.reasons.append(Reason(path, code, message))

    def members(
        self, fields: Mapping[str, Node], found: Mapping[Any, Any], path: str, name: str
    ) -> dict[str, Any]:
        """The canonical object; `path` and `name` end in a dot unless they are empty."""
        result: dict[str, Any] = {}
        for field, node in fields.items():
            value = found.get(field)
            said = "must be there and not be empty"
            if self.is_table and isinstance(value, str) and is_nothing(value, name + field, found):
                value, said = None, "holds a word that an export writes for nothing"
            if value is None or (
                isinstance(node, Value)
                and node.blank_is_absent
                and isinstance(value, str)
                and not value.strip()
            ):
                if node.required and name + field not in self.rules.optional_fields:
                    self.refuse(path + field, "missing", said)
                continue
            canonical = self.read(node, value, path + field, name + field)
            if canonical is not None:
                result[field] = canonical
        if found.keys() - fields.keys():
            for other in sorted(found.keys() - fields.keys(), key=str):
                self.unlisted(str(other), found[other], path, name, result)
        return result

    def read(self, node: Node, value: object, path: str, name: str) -> Any:
        """The canonical value, or None if it is refused or is an empty list."""
        if isinstance(value, str) and not self.rules.allow_spreadsheet_numbers:
            said = damage(value, is_identifier=name in IDENTIFIERS, is_table=self.is_table)
            if said:
                self.refuse(path, "spreadsheet_damage", said)
                return None
        if isinstance(node, Value):
            try:
                return node.read(value)
            except BadValueError as error:
                self.refuse(path, error.code, error.message)
        elif isinstance(node, Members):
            if isinstance(value, Mapping):
                return self.members(node.fields, value, f"{path}.", f"{name}.")
            self.refuse(path, "wrong_type", "must be an object")
        elif isinstance(value, list | tuple):
            return self.entries(node, value, path, name)
        else:
            self.refuse(path, "wrong_type", "must be a list")
        return None

    def entries(self, node: ListOf, found: Sequence[Any], path: str, name: str) -> list[Any] | None:
        """The canonical list, or None if it has no entries, so that it is left out."""
        if node.required and not found:
            self.refuse(path, "missing", "must hold at least one entry")
        result: list[Any] = []
        for index, entry in enumerate(found):
            where = f"{path}[{index}]"
            if not isinstance(entry, Mapping):
                self.refuse(where, "wrong_type", "must be an object")
                result.append({})
                continue
            canonical = self.members(node.fields, entry, f"{where}.", f"{name}.")
            if not (node.drop_zero and canonical.get("amount") == 0):
                result.append(canonical)
        return result or None

    def unlisted(self, field: str, value: object, path: str, name: str, result: dict[str, Any]) -> None:
        """A field that the contract does not list: passed on if `extra_order_fields` names it or all its members."""
        where, named = path + _shown(field), name + field
        if named in self.rules.extra_order_fields:
            if self.is_table and isinstance(value, str) and is_nothing(value, named, {}):
                return
            passed = self.read(Value(values.anything), value, where, named)
            if passed is not None:
                result[field] = passed
        elif isinstance(value, Mapping) and self.names_inside(named):
            result[field] = self.members({}, value, f"{where}.", f"{named}.")
        else:
            why = {**READ_ONLY, **NOT_SENT}.get(
                named, "the API has no such field; extra_order_fields can name it"
            )
            self.refuse(where, "unknown_field", why)

    def names_inside(self, name: str) -> bool:
        return any(extra.startswith(f"{name}.") for extra in self.rules.extra_order_fields)

    def order_number(self, body: Mapping[str, Any]) -> None:
        """Checks the order number, which becomes part of a URL's path: `.` and `..` are refused (contract Q2)."""
        number = body.get("mp_order_number")
        if number is None:
            return
        if number in {".", ".."} or not self.rules.order_number.fullmatch(number):
            self.refuse("mp_order_number", "out_of_range", "does not match order_number_pattern")

    def postal_code(self, address: Mapping[str, Any]) -> None:
        names = ("postal_code", "state", "country_code")
        said = postal_damage(*(address.get(name, "") for name in names))
        if said and not self.rules.allow_spreadsheet_numbers:
            self.refuse("shipping_address.postal_code", "spreadsheet_damage", said)

    def line_numbers(self, body: Mapping[str, Any]) -> None:
        first: dict[str, int] = {}
        for index, line in enumerate(body.get("order_lines", ())):
            number = line.get("mp_line_number")
            if number is not None and first.setdefault(number, index) != index:
                self.refuse(
                    f"order_lines[{index}].mp_line_number",
                    "duplicate_line",
                    f"is the number of order_lines[{first[number]}] too",
                )


def _shown(field: str) -> str:
    """A field name from the input, made safe to store and print."""
    return storable(field)[: values.MAX_KEY_CHARS] or '""'
