"""NTFS, read from its own structures: no library, no mount, one device to read at."""
