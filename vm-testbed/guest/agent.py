"""The guest's end of the channel: runs scenarios, streams what they print, carries their questions.

One JSON object a line, both ways, over the virtio port named "testbed".

host -> guest   {"run": SCRIPT, "name": N, "env": {...}, "timeout": S}   one at a time
                {"reply": ID, "status": N, "stdout": BASE64, "stderr": TEXT}
guest -> host   {"ready": {"kernel": RELEASE, "packages": {NAME: VERSION}}}
                {"out": LINE}
                {"ask": ID, "argv": [...]}                               `host ...` in a scenario
                {"exit": STATUS, "timed_out": BOOL, "clean": BOOL}
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path("/run/testbed")
QUESTIONS = HERE / "host.sock"
LINE_LIMIT = 4096  # of one printed line; a program that never ends its line is cut, not buffered


class Channel:
    """The virtio port: lines in, lines out, whole lines even when several threads write."""

    def __init__(self) -> None:
        for port in Path("/sys/class/virtio-ports").iterdir():
            if (port / "name").read_text().strip() == "testbed":
                self._fd = os.open(f"/dev/{port.name}", os.O_RDWR)
                break
        else:
            sys.exit("no virtio port named testbed")
        self._lines = os.fdopen(os.dup(self._fd), "rb", buffering=65536)
        self._lock = threading.Lock()

    def send(self, **message: object) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]

    def __iter__(self):
        for line in self._lines:
            yield json.loads(line)


class Questions:
    """Hands what a scenario asks of the host to the channel and brings the answer back."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[int, socket.socket] = {}
        self._next = 1
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(QUESTIONS))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            asker, _ = self._listener.accept()
            question = json.loads(b"".join(iter(lambda: asker.recv(65536), b"")))  # noqa: B023
            number, self._next = self._next, self._next + 1
            self._waiting[number] = asker
            self._channel.send(ask=number, **question)

    def answer(self, message: dict[str, object]) -> None:
        asker = self._waiting.pop(message["reply"])
        # The asker may have been killed meanwhile: nobody is left to be told.
        with asker, contextlib.suppress(BrokenPipeError):
            asker.sendall(json.dumps(message).encode())


def run_scenario(
    channel: Channel, name: str, script: str, env: dict[str, str], timeout: int
) -> None:
    work = Path("/tmp/scenario")
    work.mkdir()
    path = work / f"{name}.sh"
    path.write_text(script)
    process = subprocess.Popen(
        ["/bin/bash", "-eEuo", "pipefail", "-c", '. /run/testbed/lib.sh; . "$0"', str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=work,
        env={**os.environ, **env},
        start_new_session=True,
    )
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    timer.start()
    assert process.stdout is not None
    reader = threading.Thread(target=_stream, args=(channel, process.stdout), daemon=True)
    reader.start()
    status = process.wait()
    timer.cancel()
    # A daemon left behind keeps the pipe open: it is the scenario's, so it ends with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    reader.join(10)
    clean = subprocess.run(
        ["/bin/bash", str(HERE / "cleanup")], capture_output=True, text=True, check=False
    )
    if clean.returncode:
        for line in (clean.stdout + clean.stderr).splitlines():
            channel.send(out=f"cleanup: {line}")
    channel.send(exit=status, timed_out=timed_out.is_set(), clean=clean.returncode == 0)


def _stream(channel: Channel, pipe) -> None:
    while line := pipe.readline(LINE_LIMIT):
        channel.send(out=line.decode(errors="replace").rstrip("\n"))


def installed_versions() -> dict[str, str]:
    shown = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)


def main() -> None:
    channel = Channel()
    questions = Questions(channel)
    channel.send(ready={"kernel": os.uname().release, "packages": installed_versions()})
    for message in channel:
        if "reply" in message:
            questions.answer(message)
        else:
            threading.Thread(
                target=run_scenario,
                args=(
                    channel,
                    message["name"],
                    message["run"],
                    message["env"],
                    message["timeout"],
                ),
                daemon=True,
            ).start()


main()
