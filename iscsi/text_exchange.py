"""Text requests at the target and their answers, long ones in parts (RFC 7143 11.10, 11.11)."""

from collections.abc import Callable

from serverfree.iscsi.codes import NO_TAG, RejectReason
from serverfree.iscsi.errors import ProtocolError, RejectPdu
from serverfree.iscsi.pdu import TextRequest, TextResponse

_MAX_TEXT = 64 << 10
_MAX_UNREAD = 128  # long answers of which the rest has not been asked for


class TextExchange:
    """Joins requests that come in several PDUs, and hands out answers in parts."""

    def __init__(self, new_tag: Callable[[], int]) -> None:
        """`new_tag` gives target transfer tags."""
        self._new_tag = new_tag
        self._text = b""  # of a request that comes in several PDUs
        self._left: dict[int, bytes] = {}  # by transfer tag: the rest of a long answer

    def receive(self, request: TextRequest, room: int) -> TextRequest | TextResponse:
        """Return the request once it is whole, until then what to answer at once.

        `room` is how long a data segment may be. Raises RejectPdu.
        """
        if request.target_transfer_tag != NO_TAG and not self._text:
            rest = self._left.pop(request.target_transfer_tag, None)
            if rest is None:
                raise RejectPdu(RejectReason.INVALID_PDU_FIELD, "unknown target transfer tag")
            return self.answer(request, rest, room)
        self._text += bytes(request.data)
        if len(self._text) > _MAX_TEXT:
            self._text = b""
            raise RejectPdu(RejectReason.PROTOCOL_ERROR, "text request too long")
        if request.more:
            # An empty answer asks for the next part.
            tag = request.initiator_task_tag
            return TextResponse(tag, self._new_tag(), request.lun, final=False)
        request.data, self._text = self._text, b""
        return request

    def answer(self, request: TextRequest, text: bytes, room: int) -> TextResponse:
        """Return the answer, or its first part if it is longer than `room`; the rest is kept.

        Raises ProtocolError for an initiator that leaves too many unread.
        """
        part, rest = text[:room], text[room:]
        response = TextResponse(request.initiator_task_tag, lun=request.lun, data=part)
        if rest:
            if len(self._left) >= _MAX_UNREAD:
                raise ProtocolError("too many text answers left unread")
            response.target_transfer_tag = self._new_tag()
            response.final, response.more = False, True
            self._left[response.target_transfer_tag] = rest
        return response
