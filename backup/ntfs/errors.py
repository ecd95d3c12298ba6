"""The one exception of the NTFS reader."""


class NtfsError(Exception):
    """A structure of the volume is not what it has to be. One line, for people."""
