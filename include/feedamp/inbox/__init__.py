"""What comes in: order files and which of them are there, rows of a query, the orders and rejects they hold.

`files.discover` finds them, `read_rows` reads one, `read_query` reads the rows of a
query, `read_again` reads a kept row once more.
"""

from feedamp.inbox.files import Discovery, InboxFile, Taken, discover
from feedamp.inbox.query import OrderQuery, read_query
from feedamp.inbox.reading import read_again, read_rows
from feedamp.inbox.rows import BadRow, OrderRow, Reason

__all__ = [
    "BadRow",
    "Discovery",
    "InboxFile",
    "OrderQuery",
    "OrderRow",
    "Reason",
    "Taken",
    "discover",
    "read_again",
    "read_query",
    "read_rows",
]
