"""The initiator: sessions, logical units, typed verbs for disk, tape and copy manager."""
