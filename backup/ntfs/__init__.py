"""NTFS, read from its own structures: no library, no mount, one device to read at."""

from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume

__all__ = ["NtfsError", "Volume"]
