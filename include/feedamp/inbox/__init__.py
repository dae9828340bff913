"""Reads order files and query rows into valid orders and rejects.

`discover` finds the files to read, `read_rows` reads one file, `read_query` reads the rows of a query, and
`read_again` reads the stored text of a rejected row again.
"""

from feedamp.inbox.files import Discovery, InboxFile, Taken, discover
from feedamp.inbox.query import OrderQuery, read_query
from feedamp.inbox.reading import read_again, read_rows
from feedamp.order_body import BadRow, OrderRow

__all__ = [
    "BadRow",
    "Discovery",
    "InboxFile",
    "OrderQuery",
    "OrderRow",
    "Taken",
    "discover",
    "read_again",
    "read_query",
    "read_rows",
]
