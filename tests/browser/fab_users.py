"""python fab_users.py PASSWORD: makes the tables of FAB's auth manager, and a user for each of its roles."""

from __future__ import annotations

import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.providers.fab.auth_manager.models.db import FABDBManager
from airflow.utils.session import create_session

with create_session() as session:
    FABDBManager(session).initdb()
with get_application_builder() as builder:
    builder.sm.sync_roles()
    for name in ("Admin", "Op", "User", "Viewer", "Public"):
        role, address = builder.sm.find_role(name), f"{name}@airflow.example"
        assert builder.sm.add_user(name.lower(), name, "Test", address, role, password=sys.argv[1])
