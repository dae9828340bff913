"""What a column can hold, and its values as Arrow: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class Type(Enum):
    """Logical column types, each with its Arrow type, as stored in Parquet; each warehouse maps them to its own names."""

    TEXT = "text", "string", str
    INTEGER = "integer", "int64", int
    BOOLEAN = "boolean", "bool_", bool
    MONEY = "money", "decimal128", Decimal, 18, 4
    NUMBER = "number", "float64", float
    TIMESTAMP = "timestamp", "timestamp", datetime, "us", "UTC"
    DATE = "date", "date32", date
    JSON = "json", "string", str

    def __init__(self, label: str, arrow: str, python: type, *arguments: int | str) -> None:
        self.label = label
        self._arrow = arrow
        self._arguments = arguments
        self._python = python

    @cached_property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        import pyarrow as pa

        return getattr(pa, self._arrow)(*self._arguments)

    def array(self, values: Sequence[Any], *, is_required: bool) -> pa.Array:
        """The values as Arrow, exactly; None is null.

        Raises:
            ValueError: one is not of this type, or is None although that is required; so do Arrow's errors and OverflowError.
        """
        import pyarrow as pa

        are_equal = _are_equal(values)  # a seller, a moment, a currency: as most columns of a page
        # Nothing but a text equals a text, and no other kind a moment, so its kind is that of all.
        kinds = {type(values[0])} if are_equal and type(values[0]) in _TOLD_BY_ONE else set(map(type, values))
        if kinds == {_NONE} and not is_required:
            return pa.nulls(len(values), self.arrow)
        if not kinds <= ({self._python} if is_required else {self._python, _NONE}):
            raise ValueError(f"not all are {self.label}")  # Arrow would accept a number as a timestamp
        if are_equal and len(kinds) == 1:
            return pa.repeat(self.array(values[:1], is_required=is_required)[0], len(values))
        if self is Type.MONEY:
            # Decimals take longest to convert, and nearly all rows share theirs with others.
            amounts = {id(value): value for value in values}
            positions = dict(zip(amounts, range(len(amounts)), strict=True))
            return pa.array(amounts.values(), self.arrow).take(
                pa.array([positions[id(value)] for value in values], pa.int32())
            )
        if self is not Type.TIMESTAMP:
            return pa.array(values, self.arrow)
        # By way of numbers, since Arrow asks the zone of each moment for its offset.
        microseconds = {value: None if value is None else _microseconds(value) for value in set(values)}
        return pa.array([microseconds[value] for value in values], pa.int64()).view(self.arrow)

    def fits(self, value: object) -> bool:
        """Whether a value other than None can be stored as this type without loss."""
        python = type(value)
        # One of these short cuts decides nearly all values; converting each value with Arrow takes longer than writing it.
        if python is str and value.isascii():  # type: ignore[attr-defined]
            return self._python is str
        if python is int and -_SMALL < value < _SMALL:  # type: ignore[operator]
            return self is Type.INTEGER
        if python is bool:
            return self is Type.BOOLEAN
        if python is datetime:
            return self is Type.TIMESTAMP and value.tzinfo is not None  # type: ignore[attr-defined]
        if python is date:
            return self is Type.DATE
        if python is Decimal and any(map(value.same_quantum, _AS_USUAL)) and -_SMALL < value < _SMALL:  # type: ignore[attr-defined,operator]
            return self is Type.MONEY
        import pyarrow as pa

        try:
            # Arrow refuses to round, but it would accept a number as a timestamp.
            return isinstance(value, self._python) and pa.scalar(value, self.arrow).is_valid
        except (pa.ArrowException, ValueError, OverflowError):
            return False

    def surely_fit(self, values: Sequence[Any], is_required: bool) -> bool:
        """Whether all values are seen to be stored without loss, each of those that are there several times once."""
        kinds = set(map(type, values))
        if not kinds <= ({self._python} if is_required else {self._python, _NONE}):
            return False
        if self._python is str and "".join(filter(None, values)).isascii():
            return True
        return all(map(self.fits, {id(value): value for value in values if value is not None}.values()))


_SMALL = 1 << 31
_AS_USUAL = (Decimal("0.01"), Decimal(1))
_NONE = type(None)
_TOLD_BY_ONE = (str, datetime, _NONE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _are_equal(values: Sequence[Any]) -> bool:
    """Whether there are several values and all are equal; nearly always told by three of them."""
    count = len(values)
    if count < 2:
        return False
    first = values[0]
    return values[-1] == first == values[count // 2] and values.count(first) == count


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("no zone")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
