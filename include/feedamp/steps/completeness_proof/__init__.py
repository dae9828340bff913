"""Proves that ledger, lake and warehouse contain the same orders, and restores missing rows."""
