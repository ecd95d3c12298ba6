"""Command descriptor blocks: one class per command, `pack` and `unpack` side by side."""
