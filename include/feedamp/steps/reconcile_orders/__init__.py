"""One day of orders compared in ledger, FeedAMP and warehouse, and repaired."""
