"""Reads what sellers have changed since the last run, and writes it to the lake."""
