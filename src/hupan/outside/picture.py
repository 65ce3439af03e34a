"""Captcha pictures."""

from __future__ import annotations

import threading

from captcha.image import ImageCaptcha

__all__ = ["draw"]

# One set of loaded fonts a thread: Pillow's font objects are not made for sharing.
_mine = threading.local()


def draw(letters: str) -> bytes:
    """Draw the letters as a PNG; 5 to 15 ms of work, so it belongs into a thread."""
    if not hasattr(_mine, "painter"):
        _mine.painter = ImageCaptcha(width=160, height=60)
    png: bytes = _mine.painter.generate(letters).getvalue()
    return png
