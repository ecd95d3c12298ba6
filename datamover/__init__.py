"""The copy manager: validate, plan, run (SPC-4 5.17)."""
