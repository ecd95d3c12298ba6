"""CHAP secrets from where they are safe: files that only their owner reads, and the environment.

Never the command line, where every user of the machine sees them, and never a message of ours.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serverfree.iscsi.chap import LONGEST_SECRET, Credentials, refuse_one_secret

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
PREFIX = "SERVERFREE_CHAP_"


class SecretError(ValueError):
    """A secret cannot be had; the text says where it was looked for, never what it is."""


def read_secret_file(path: Path) -> bytes:
    """Return the secret in a file: its first line. Raises SecretError.

    The file must belong to us (or root) and be closed to group and others, as ssh asks of keys.
    """
    try:
        # Non-blocking: a pipe in the place of the file must not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretError(f"secret file {path}: {error.strerror}") from None
    try:
        # Of the open file, not of the path: that may be another one a moment later.
        _require_private(path, os.fstat(fd))
        line = os.read(fd, LONGEST_SECRET + 2).split(b"\n")[0]
    finally:
        os.close(fd)
    return line.removesuffix(b"\r")


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SecretError(f"secret file {path} is not a regular file")
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise SecretError(f"secret file {path} is open to others (mode {mode:04o}): chmod 600 it")
    if status.st_uid not in (os.geteuid(), 0):
        raise SecretError(f"secret file {path} belongs to another user")


def read_secret_variable(name: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the secret in an environment variable. Raises SecretError."""
    if name not in environment:
        raise SecretError(f"environment variable {name} is not set")
    return environment[name].encode()


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to targets that ask, and whom we ask to prove that it is the one."""

    credentials: Credentials | None = None
    mutual: Credentials | None = None


NOBODY = Login()


def login_from_environment(
    user: str | None = None,
    password: str | None = None,
    target_user: str | None = None,
    target_password: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Login:
    """Return what a URL says, filled up from the environment. Raises SecretError.

    SERVERFREE_CHAP_USER, _SECRET or _SECRET_FILE, and for the target's proof _TARGET_USER,
    _TARGET_SECRET or _TARGET_SECRET_FILE.
    """
    credentials = _credentials("", user, password, environment)
    mutual = _credentials("TARGET_", target_user, target_password, environment)
    if mutual is not None and credentials is None:
        raise SecretError(
            f"{PREFIX}TARGET_USER: a target proves itself only to who does so: set {PREFIX}USER"
        )
    if credentials is not None:
        try:
            refuse_one_secret(credentials, mutual)
        except ValueError as error:
            raise SecretError(str(error)) from None
    return Login(credentials, mutual)


def _credentials(
    whose: str, name: str | None, password: str | None, environment: Mapping[str, str]
) -> Credentials | None:
    prefix = PREFIX + whose
    name = name or environment.get(f"{prefix}USER")
    if not name:
        return None
    if password is not None:
        secret = password.encode()
    elif path := environment.get(f"{prefix}SECRET_FILE"):
        secret = read_secret_file(Path(path))
    elif f"{prefix}SECRET" in environment:
        secret = read_secret_variable(f"{prefix}SECRET", environment)
    else:
        raise SecretError(
            f"no secret for CHAP user {name}: set {prefix}SECRET_FILE or {prefix}SECRET"
        )
    try:
        return Credentials(name, secret)
    except ValueError as error:
        raise SecretError(str(error)) from None
