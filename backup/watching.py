"""How a job tells whoever waits for it what it is doing."""


class Watcher:
    """Hears what a job does; this one keeps it to itself. Methods return at once."""

    def phase(self, text: str) -> None:
        """Something new begins: a few words."""

    def waiting(self, quiet: float, waited: float) -> None:
        """The disk has been quiet for so many seconds; we have waited for so many."""

    def moved(self, done: int, total: int) -> None:
        """Bytes moved so far, and how many there are to move (0: not known)."""

    def note(self, text: str) -> None:
        """Something that should be seen even if all goes well."""
