"""Storage that knows no CDB and no sense."""
