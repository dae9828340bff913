"""Compares one day of orders in ledger, FeedAMP and warehouse, and repairs the differences."""
