"""Changed orders validated, their errors reported, settled ones closed."""
