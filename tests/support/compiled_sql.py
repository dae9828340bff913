"""Importing it makes all states of this process share compiled SQL; else each test's own compiles its statements again."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Dialect

from feedamp.state import State

# A compiled statement belongs to its dialect, and a dialect is ready after the first connection.
_COMPILED: dict[type[Dialect], tuple[Dialect, dict[Any, Any]]] = {}
_open = State.__init__


def _open_sharing(state: State, *given: Any, **named: Any) -> None:
    _open(state, *given, **named)
    engine = state.engine
    engine.dialect, compiled = _COMPILED.setdefault(type(engine.dialect), (engine.dialect, {}))
    engine.update_execution_options(compiled_cache=compiled)


State.__init__ = _open_sharing  # type: ignore[method-assign]
