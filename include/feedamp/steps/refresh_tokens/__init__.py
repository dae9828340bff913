"""Grants that no task has used are kept alive."""
