"""What sellers changed since the last run, into the lake."""
