"""One use case a file; the only place where client, state, lake and warehouse meet."""
