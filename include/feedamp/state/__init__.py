"""The state database: the ledger and everything else that must outlive a task. SQLite by default."""

from feedamp.state.database import State
from feedamp.state.upgrade import HEAD

__all__ = ["HEAD", "State"]
