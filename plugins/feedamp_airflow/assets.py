"""The bells that `load` rings; who hears one asks the state what there is to do."""

from __future__ import annotations

from airflow.sdk import Asset

ORDERS_PLACED = Asset("feedamp_orders_placed")
FULFILLMENTS = Asset("feedamp_fulfillments")
ORDERS_CLOSED = Asset("feedamp_orders_closed")
