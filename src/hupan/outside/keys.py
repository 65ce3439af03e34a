"""The key that codes, captchas and links are made with; it lives outside the database."""

from __future__ import annotations

import os
from pathlib import Path

from hupan.settings import Settings, SettingsError

__all__ = ["load_key"]

LENGTH = 32


def load_key(settings: Settings, *, make: bool = True) -> bytes:
    """Read the key, or make one where there is none yet.

    Raises:
        SettingsError: the file is there and holds no key.
    """
    path = settings.secret_file or settings.data_dir / "secret.key"
    if not path.exists() and make:
        _make(path)
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as a key") from error
    if len(key) != LENGTH:
        raise SettingsError(f"{path} holds no key of {LENGTH} bytes")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(os.urandom(LENGTH).hex() + "\n")
    try:
        # A link is made once: of several processes that start together, one key wins.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
