"""What we decide. PURE: no input or output, no SQL."""
