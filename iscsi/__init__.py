"""RFC 7143 without I/O, both roles."""
