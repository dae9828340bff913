"""Order files in the inbox: which are there, and the orders and rejects they hold.

`files.discover` finds them, `read_rows` reads one, `read_again` reads a kept row once more.
"""

from feedamp.inbox.files import Discovery, InboxFile, Taken, discover
from feedamp.inbox.reading import read_again, read_rows
from feedamp.inbox.rows import BadRow, OrderRow, Reason

__all__ = [
    "BadRow",
    "Discovery",
    "InboxFile",
    "OrderRow",
    "Reason",
    "Taken",
    "discover",
    "read_again",
    "read_rows",
]
