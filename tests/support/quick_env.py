"""The name of yesterday."""

from __future__ import annotations

from env import open_env as open_quick_env
from memory_warehouse import folder_in_memory

__all__ = ["folder_in_memory", "open_quick_env"]
