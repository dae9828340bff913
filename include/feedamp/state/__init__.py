"""The ledger and all that must survive a task: one small database, SQLite by default."""

from feedamp.state.database import HEAD, State

__all__ = ["HEAD", "State"]
