"""How we talk to FeedAMP."""
