"""The assets that `load` updates, if anything changed. A triggered DAG finds its work in the state, never in an event.

What an event has in `extra` is for people: `orders` that the run worked on, `rows` that were loaded, `sellers_to_process`.
"""

from airflow.sdk import Asset

ORDERS_PLACED = Asset("feedamp_orders_placed")
FULFILLMENTS = Asset("feedamp_fulfillments")
ORDERS_CLOSED = Asset("feedamp_orders_closed")
