"""`hupan protocol`: the table, for people and for programs."""

from __future__ import annotations

from pathlib import Path

from hupan.cli.common import Parser, json_option, say

__all__ = ["register"]


def register(hupan: Parser) -> None:
    """Add the command."""
    command = hupan.command(protocol)
    json_option(command, "The rows as JSON.")
    for option, text in (
        ("--quirks", "What is odd, and why."),
        ("--proto", "The messages as .proto."),
        ("--openapi", "An OpenAPI document."),
    ):
        command.add_argument(option, action="store_true", help=text)
    command.add_argument("--write", type=Path, help="Write every derived file below this folder.")


def protocol(
    *, as_json: bool, quirks: bool, proto: bool, openapi: bool, write: Path | None
) -> None:
    """Print the protocol: every endpoint with its messages and its certainty."""
    from hupan.protocol import export

    if write is not None:
        for name, text in export.files().items():
            path = write / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
    elif as_json:
        say(export.table(), as_json=True)
    elif proto:
        print(export.proto(), end="")
    elif openapi:
        say(export.openapi(), as_json=True)
    elif quirks:
        for row in export.table():
            for quirk in row["quirks"]:
                print(f"{row['path']}  {quirk['at']}  {quirk['name']}: {quirk['reason']}")
    else:
        for row in export.table():
            print(
                f"{'/'.join(row['method']):<8} {row['path']:<55} {row['format']:<8} "
                f"{row['auth']:<6} {row['certainty']:<10} {row['summary']}"
            )
