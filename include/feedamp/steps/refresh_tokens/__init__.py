"""Renews grants that no task has used lately."""
