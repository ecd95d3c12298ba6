"""What lies on the tape: a plain pax tar archive, as pieces (design: readable by GNU tar)."""
