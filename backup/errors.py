"""The family of what a backup, a restore or a look into the catalog can end with."""


class BackupError(ValueError):
    """The message is one line for a person: what is wrong and, where it helps, what to do."""
