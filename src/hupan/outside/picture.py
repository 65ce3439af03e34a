"""Captcha pictures."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

from captcha import image

__all__ = ["draw"]

T = TypeVar("T")

# One painter and one stream of noise a thread: Pillow's font objects are not made for sharing.
_mine = threading.local()


class _Noise:
    """Stands in for the module that the library draws its noise from.

    The noise then follows from what `draw` is given, so that a picture can be drawn again. It need
    not be a secret: what nobody may guess is the letters.
    """

    def randbelow(self, limit: int) -> int:
        return int(_mine.noise.randrange(limit))

    def randbits(self, count: int) -> int:
        return int(_mine.noise.getrandbits(count))

    def choice(self, among: Sequence[T]) -> T:
        chosen: T = _mine.noise.choice(among)
        return chosen


_library: Any = image
_library.secrets = _Noise()


def draw(letters: str, noise: bytes) -> bytes:
    """Draw letters as a PNG, the same for the same noise.

    It is 5 to 15 ms of work, so it belongs into a thread.
    """
    if not hasattr(_mine, "painter"):
        _mine.painter = image.ImageCaptcha(width=160, height=60)
    _mine.noise = random.Random(noise)  # noqa: S311  # See above: noise is no secret.
    png: bytes = _mine.painter.generate(letters).getvalue()
    return png
