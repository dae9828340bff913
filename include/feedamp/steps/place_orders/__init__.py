"""Order files and rows of a query into the ledger, orders of the ledger to FeedAMP."""
