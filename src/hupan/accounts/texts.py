"""Text that people see: what is taken out of it, and how long it may be."""

from __future__ import annotations

import unicodedata

from hupan.accounts.refusals import TooLong

__all__ = ["clean", "short"]

#: Invisible characters that emoji sequences need: the joiner and the two variation selectors.
_JOINERS = {"\u200d", "\ufe0f", "\ufe0e"}
#: What they may follow: symbols and other marks, and what a keycap is put around.
_JOINED = {"So", "Sk", "Sm", "Mn", "Me"}
_KEYS = set("0123456789#*")
#: Letters and marks that show nothing at all: Hangul and Khmer fillers, other selectors.
_BLANK = {
    *"\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800",
    *(chr(code) for code in range(0x180B, 0x1810)),
    *(chr(code) for code in range(0xFE00, 0xFE0E)),
    *(chr(code) for code in range(0xE0100, 0xE01F0)),
}
#: Control, format (bidirectional and zero-width), surrogate, unassigned, private, line breaks.
_DROPPED = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


def clean(text: str, *, lines: bool = False) -> str:
    """Take control, bidirectional and zero-width characters out; `lines` keeps line breaks."""
    if text.isascii() and text.isprintable():
        return text.strip()
    kept: list[str] = []
    for place, char in enumerate(text):
        if char in _JOINERS:
            # Between letters they would only make two equal-looking names differ.
            if kept and (
                unicodedata.category(kept[-1]) in _JOINED
                or kept[-1] in _JOINERS
                or (kept[-1] in _KEYS and text[place + 1 : place + 2] == "\u20e3")
            ):
                kept.append(char)
        elif (lines and char == "\n") or not (
            char in _BLANK or unicodedata.category(char) in _DROPPED
        ):
            kept.append(char)
    return "".join(kept).strip().rstrip("\u200d").rstrip()


def short(text: str, most: int, field: str, *, lines: bool = False) -> str:
    """Clean a text and refuse one that is too long; `field` names it to the person."""
    text = clean(text, lines=lines)
    if len(text) > most:
        raise TooLong(field=field, most=most)
    return text
