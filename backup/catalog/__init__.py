"""Where everything lies on which tape: SQLite, and what is read back from a cartridge."""
