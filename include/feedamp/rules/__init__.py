"""The business rules. PURE: no input or output, no SQL."""
