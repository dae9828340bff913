"""The client of FeedAMP's API: tokens, rate limit, pages, decoding."""
