"""Commands of whoever asks for a snapshot: run before it and after it, whatever becomes of it.

A quiet disk is not a consistent one: a file system is quiet while what was written waits in the
memory of its host. A command before the snapshot (`sync`, `fsfreeze --freeze`, a database's) sees
to it, one after (`fsfreeze --unfreeze`) undoes that.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CRASH, FILE_SYSTEM, APPLICATION = "crash", "fs", "app"
CONSISTENCIES = (CRASH, FILE_SYSTEM, APPLICATION)
"""What a snapshot is worth: as after a crash of its host, file system clean, application clean."""

TIMEOUT = 60.0
_TAIL = 300  # characters of a command's last words
_GRACE = 5.0


class HookError(OSError):
    """A command failed or took too long; the text is one line."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands of a shell, None for none. Each may take `timeout` seconds.

    `consistency` is what `before` gives, if it succeeds; without one it is `crash`, whatever is
    said: nobody has seen to anything.
    """

    before: str | None = None
    after: str | None = None
    timeout: float = TIMEOUT
    consistency: str | None = None

    @property
    def label(self) -> str:
        """What a snapshot is worth that is taken within `around`."""
        if self.before is None:
            return CRASH
        return self.consistency or FILE_SYSTEM

    @contextmanager
    def around(self) -> Iterator[str]:
        """Run `before`, yield the label, and run `after` in the end.

        `after` runs whatever happened, also after a `before` that failed or was stopped: it may
        have frozen half of what it should. Raises HookError; one of `after` does not hide an error
        from within.
        """
        try:
            if self.before is not None:
                _run("before", self.before, self.timeout)
            yield self.label
        except BaseException as error:
            try:
                self._finish()
            except HookError as late:
                error.add_note(str(late))
            raise
        self._finish()

    def _finish(self) -> None:
        if self.after is not None:
            _run("after", self.after, self.timeout)


def _run(which: str, command: str, timeout: float) -> None:
    # A session of its own: what the command has started can be ended with it.
    process = subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        raise HookError(f"the command {which} took longer than {timeout:g} s: {command}") from None
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        last = " ".join(output.split())[-_TAIL:]
        text = f"the command {which} ended with {process.returncode}: {command}"
        raise HookError(f"{text}: {last}" if last else text)


def _end(process: "subprocess.Popen[str]") -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue
        break
    if process.stdout is not None:
        process.stdout.close()  # a child of its own that got away may still hold the other end
