"""Validates and normalizes the body of PUT /orders/{mp_order_number} (contract 3.3, 3.6).

PURE: values in, values out.
"""

from feedamp.order_body.body_options import BodyRules, named_field
from feedamp.order_body.check import check_body
from feedamp.order_body.reject_reasons import Reason, ReasonCode, is_storable, storable
from feedamp.order_body.rows import BadRow, OrderRow

__all__ = [
    "BadRow",
    "BodyRules",
    "OrderRow",
    "Reason",
    "ReasonCode",
    "check_body",
    "is_storable",
    "named_field",
    "storable",
]
