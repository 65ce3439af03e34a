"""Where a token stays between two runs of a program."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Protocol

__all__ = ["KeyringStore", "TokenFile", "TokenStore", "default_folder"]


class TokenStore(Protocol):
    """Keeps one token for each address of a server."""

    def load(self, url: str) -> str:
        """The token of a server, or an empty text."""
        ...

    def save(self, url: str, token: str) -> None:
        """Keep a token; an empty one forgets it."""
        ...


def default_folder() -> Path:
    """Where this person's programs keep what is theirs."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hupan"


class TokenFile:
    """Tokens in a file that only its owner can read: `tokens.json` in the default folder."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else default_folder() / "tokens.json"

    def load(self, url: str) -> str:
        return self._read().get(url, "")

    def save(self, url: str, token: str) -> None:
        tokens = self._read()
        if token:
            tokens[url] = token
        else:
            tokens.pop(url, None)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(tokens, file, indent=2)
        # A reader sees the old file or the new one, never half of one.
        fresh.replace(self.path)

    def _read(self) -> dict[str, str]:
        try:
            tokens = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(f"{self.path} is no file of tokens") from error
        return {str(url): str(token) for url, token in dict(tokens).items()}


class KeyringStore:
    """Tokens in the desktop's keyring; needs the package `keyring`."""

    SERVICE = "hupan"

    def load(self, url: str) -> str:
        import keyring

        return keyring.get_password(self.SERVICE, url) or ""

    def save(self, url: str, token: str) -> None:
        import keyring

        if token:
            keyring.set_password(self.SERVICE, url, token)
        elif keyring.get_password(self.SERVICE, url):
            keyring.delete_password(self.SERVICE, url)
