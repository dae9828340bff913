"""Proves that ledger, lake and warehouse hold the same, and restores what is missing."""
