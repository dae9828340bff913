"""Takes orders from inbox files and a query into the ledger, and sends them to FeedAMP."""
