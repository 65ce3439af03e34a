"""Text that people see: what is taken out of it, and how long it may be."""

from __future__ import annotations

import unicodedata

from hupan.accounts.refusals import TooLong

__all__ = ["clean", "short"]

#: Invisible characters that nonetheless shape what is seen: emoji sequences need them.
_KEPT = {"\u200d", "\ufe0f", "\ufe0e"}
#: Control, format (bidirectional and zero-width), surrogate, unassigned, private, line breaks.
_DROPPED = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


def clean(text: str, *, lines: bool = False) -> str:
    """Take control, bidirectional and zero-width characters out; `lines` keeps line breaks."""
    kept = "".join(
        char
        for char in text
        if char in _KEPT or (lines and char == "\n") or unicodedata.category(char) not in _DROPPED
    )
    # A joiner that joins nothing is as invisible as the rest.
    if all(char in _KEPT or char.isspace() for char in kept):
        return ""
    return kept.strip()


def short(text: str, most: int, field: str, *, lines: bool = False) -> str:
    """Clean a text and refuse one that is too long; `field` names it to the person."""
    text = clean(text, lines=lines)
    if len(text) > most:
        raise TooLong(field=field, most=most)
    return text
