"""The `serverfree` command: assembles the verbs that each package offers."""
