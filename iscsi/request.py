"""What an initiator has asked of a target, from the asking until it has ended."""

from collections.abc import Sequence

from serverfree.iscsi.codes import NO_TAG, TaskFunction, TaskResponse
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.framing import padding
from serverfree.iscsi.text import Pair, TextBuffer
from serverfree.scsi.device import Buffer, Result

MAX_TEXT = 4 << 20  # SendTargets of a large array: some 20,000 targets


class Request:
    """Something asked of the target. `done` when it has ended; then `failure` or its outcome."""

    __slots__ = ("done", "failure", "initiator_task_tag")

    def __init__(self) -> None:
        self.initiator_task_tag = NO_TAG
        self.done = False
        self.failure: ProtocolError | None = None


class Gather:
    """Several buffers seen as one run of bytes, without joining them."""

    __slots__ = ("_views", "length")

    def __init__(self, buffers: Buffer | Sequence[Buffer]) -> None:
        if type(buffers) is memoryview and buffers.format == "B":  # of most commands, and quicker
            self.length = len(buffers)
            self._views = [buffers] if self.length else []
            return
        parts = [buffers] if isinstance(buffers, bytes | bytearray | memoryview) else buffers
        self._views = [memoryview(part).cast("B") for part in parts if len(part)]
        self.length = sum(map(len, self._views))

    def cut(self, offset: int, length: int) -> list[memoryview]:
        """Return the views that hold `length` bytes from `offset`."""
        if length == self.length:
            return self._views
        pieces = []
        for view in self._views:
            size = len(view)
            if offset >= size:
                offset -= size
                continue
            piece = view[offset : offset + length]
            pieces.append(piece)
            length -= len(piece)
            if not length:
                break
            offset = 0
        return pieces


class Task(Request):
    """A SCSI command, from `command` until its status has come.

    `received` counts the bytes that have reached `data_in`, which is filled from its start.
    `outstanding` counts R2Ts whose data is not yet in the output; `placed` says that the segment
    under way is being received where it belongs.
    """

    __slots__ = (
        "cdb",
        "cmd_sn",
        "data_in",
        "data_out",
        "length",
        "lun",
        "outstanding",
        "placed",
        "received",
        "result",
    )

    def __init__(
        self, lun: int, cdb: bytes, data_out: Gather | None, data_in: memoryview | None
    ) -> None:
        super().__init__()
        self.lun = lun
        self.cdb = cdb
        self.data_out = data_out
        self.data_in = data_in
        self.length = len(data_in) if data_in is not None else data_out.length if data_out else 0
        self.received = 0
        self.outstanding = 0
        self.cmd_sn = 0
        self.result: Result | None = None
        self.placed = False

    def additional_header(self) -> bytes:
        """What the CDB has beyond 16 bytes, as an additional header segment (11.2.2.3)."""
        rest = self.cdb[16:]
        header = (len(rest) + 1).to_bytes(2, "big") + b"\x01\0" + rest
        return header + padding(len(header))


class Ping(Request):
    """A NOP-Out that asks for an echo."""

    __slots__ = ("echo",)

    def __init__(self) -> None:
        super().__init__()
        self.echo = b""


class TextExchange(Request):
    """A text request; `pairs` is the whole answer."""

    __slots__ = ("pairs", "text")

    def __init__(self) -> None:
        super().__init__()
        self.text = TextBuffer(MAX_TEXT)
        self.pairs: list[Pair] = []


class TaskManagement(Request):
    """A task management function; `response` is a TaskResponse code."""

    __slots__ = ("function", "lun", "response", "task")

    def __init__(self, function: TaskFunction, lun: int, task: Task | None) -> None:
        super().__init__()
        self.function = function
        self.lun = lun
        self.task = task
        self.response = TaskResponse.FUNCTION_REJECTED


class Logout(Request):
    """A logout; `response` is a LogoutResponseCode."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        super().__init__()
        self.response = 0


class Burst:
    """Data-Out still to be put into the output: what one R2T asks for, or unsolicited data."""

    __slots__ = ("data_sn", "end", "offset", "target_transfer_tag", "task")

    def __init__(self, task: Task, target_transfer_tag: int, offset: int, end: int) -> None:
        self.task = task
        self.target_transfer_tag = target_transfer_tag
        self.offset = offset
        self.end = end
        self.data_sn = 0
