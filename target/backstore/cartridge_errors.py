"""What can be wrong with a cartridge, in words for people; the unit finds the sense."""


class CartridgeError(ValueError):
    """The cartridge cannot be used as asked. The message says which file and why."""


class DamagedRecord(CartridgeError):
    """A block cannot be read back as it was written."""


class IndexDamaged(CartridgeError):
    """An index entry is not what was written; the log can tell what it was."""


class NoRoom(CartridgeError):
    """The partition, or the file system under it, is full. What fitted has been appended."""


class WriteFailed(CartridgeError):
    """The file system refused data for another reason than room."""


class EncryptedBlock(CartridgeError):
    """A block cannot be opened: it needs a key."""


class WrongKey(EncryptedBlock):
    """A block was encrypted under another key than the one at hand."""
