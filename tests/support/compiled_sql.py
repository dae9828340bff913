"""SQL that is compiled once in a process; otherwise each test's own state compiles each of its statements again."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Dialect

from feedamp.state import State

# A compiled statement belongs to its dialect.
_COMPILED: dict[type[Dialect], tuple[Dialect, dict[Any, Any]]] = {}


def shares_compiled_sql(state: State) -> State:
    """The state, which from now on uses what earlier ones have compiled."""
    engine = state.engine
    engine.dialect, compiled = _COMPILED.setdefault(type(engine.dialect), (engine.dialect, {}))
    engine.update_execution_options(compiled_cache=compiled)
    return state
