"""Many probes or extractions in one table."""
