"""PURE: fits amounts into the money columns of lake and warehouse, DECIMAL(18,4)."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

MAX_MONEY = Decimal(10) ** 14  # exclusive
DECIMALS = 4
_STEP = Decimal(1).scaleb(-DECIMALS)
_UNITS, _TENTHS, _CENTS = Decimal(1), Decimal("0.1"), Decimal("0.01")
# Wide enough for every amount below the bound; digits beyond the fourth decimal are rounded without a signal.
_CONTEXT = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[])


def fitted(amount: Decimal) -> Decimal | None:
    """The amount with at most four decimals and no exponent, rounded half to even; None if the column cannot hold it.

    Zeros beyond the fourth decimal are dropped; `0E+20` and minus zero become zero.
    """
    # Nearly all are such; `as_tuple` takes ten times as long.
    if amount.same_quantum(_CENTS) or amount.same_quantum(_UNITS) or amount.same_quantum(_TENTHS):
        return (amount or amount.copy_abs()) if -MAX_MONEY < amount < MAX_MONEY else None
    if not amount.is_finite() or amount.copy_abs() >= MAX_MONEY:
        return None
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and -DECIMALS <= exponent <= 0:
        return amount or amount.copy_abs()
    rounded = amount.quantize(_STEP, context=_CONTEXT)
    return None if rounded.copy_abs() >= MAX_MONEY else rounded or rounded.copy_abs()
