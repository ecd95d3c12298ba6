"""The `serverfree` verbs of the initiator, one file each."""
