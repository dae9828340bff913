"""The assets that `load` updates. Their events have no payload: a triggered DAG finds its work in the state."""

from airflow.sdk import Asset

ORDERS_PLACED = Asset("feedamp_orders_placed")
FULFILLMENTS = Asset("feedamp_fulfillments")
ORDERS_CLOSED = Asset("feedamp_orders_closed")
