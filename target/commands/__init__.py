"""The `serverfree` verbs that serve: target, datamover."""
