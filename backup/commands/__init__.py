"""The verbs of the backup application."""
