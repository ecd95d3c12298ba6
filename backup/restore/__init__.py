"""From tape back: volumes, files into an NTFS volume, a folder, and the proof that it works."""
