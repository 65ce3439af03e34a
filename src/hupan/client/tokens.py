"""Where a token stays between two runs of a program."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

if sys.platform != "win32":
    import fcntl

__all__ = ["KeyringStore", "TokenFile", "TokenStore", "default_folder"]


class TokenStore(Protocol):
    """Keeps one token for each server. A class of one's own needs these two methods."""

    def load(self, url: str) -> str:
        """The token of a server, or an empty text. `url` is spelt as `client.url` is."""
        ...

    def save(self, url: str, token: str) -> None:
        """Keep a token instead of the one before; an empty one forgets it."""
        ...


def default_folder() -> Path:
    """Where this person's programs keep what is theirs."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hupan"


class TokenFile:
    """Tokens in a JSON file that only its owner can read (mode 0600).

    Several programs may use one file at the same time. A reader sees the old file or the new one,
    and writers take turns, so that none undoes what another has written. (On Windows there is no
    turn: of two that write at the same moment, one wins.)

    Args:
        path: the file; without one, `hupan/tokens.json` in `$XDG_CONFIG_HOME` or `~/.config`,
            which is where `hupan login` keeps its token.

    Raises:
        ValueError: the file is there and is not one of tokens. It is left as it is.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else default_folder() / "tokens.json"

    def load(self, url: str) -> str:
        """The token of a server, or an empty text."""
        return self._read().get(url, "")

    def save(self, url: str, token: str) -> None:
        """Keep a token; an empty one forgets it."""
        if self.load(url) == token:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._turn():
            tokens = self._read()
            if token:
                tokens[url] = token
            else:
                tokens.pop(url, None)
            self._write(json.dumps(tokens, indent=2) + "\n")

    def _read(self) -> dict[str, str]:
        try:
            tokens = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self._foreign() from error
        if not isinstance(tokens, dict):
            raise self._foreign()
        return {str(url): str(token) for url, token in tokens.items()}

    def _foreign(self) -> ValueError:
        return ValueError(f"{self.path} is no file of tokens; move it away and log in again")

    def _write(self, text: str) -> None:
        # Whoever made the file a link to another place wants it to stay one.
        target = self.path.resolve()
        # The name is a new one each time and the mode is 0600 from the first byte on.
        number, fresh = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(number)
            Path(fresh).replace(target)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        # The lock is a file of its own, because the other one is replaced while it is held.
        flags = os.O_RDWR | os.O_CREAT
        lock = os.open(self.path.with_name(f"{self.path.name}.lock"), flags, 0o600)
        try:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


class KeyringStore:
    """Tokens in the desktop's keyring, with the package `keyring`.

    What goes wrong inside a keyring has the names of `keyring.errors`.

    Args:
        service: the name under which the keyring lists them.

    Raises:
        ModuleNotFoundError: `keyring` is not installed.
    """

    def __init__(self, service: str = "hupan") -> None:
        self.service = service
        self._keyring = _keyring()

    def load(self, url: str) -> str:
        """The token of a server, or an empty text."""
        return self._keyring.get_password(self.service, url) or ""

    def save(self, url: str, token: str) -> None:
        """Keep a token; an empty one forgets it."""
        if token:
            self._keyring.set_password(self.service, url, token)
        elif self.load(url):
            self._keyring.delete_password(self.service, url)


def _keyring() -> Any:
    try:
        import keyring
    except ModuleNotFoundError as error:
        if error.name != "keyring":
            raise
        raise ModuleNotFoundError(
            "KeyringStore needs the package keyring: pip install keyring", name="keyring"
        ) from error
    return keyring
