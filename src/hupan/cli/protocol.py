"""`hupan protocol`: the table, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["protocol"]


def protocol(
    as_json: Annotated[bool, typer.Option("--json", help="The rows as JSON.")] = False,
    quirks: Annotated[bool, typer.Option("--quirks", help="What is odd, and why.")] = False,
    proto: Annotated[bool, typer.Option("--proto", help="The messages as .proto.")] = False,
    openapi: Annotated[bool, typer.Option("--openapi", help="An OpenAPI document.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write every derived file below this folder.")
    ] = None,
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
        print(json.dumps(export.table(), ensure_ascii=False, indent=2))
    elif proto:
        print(export.proto(), end="")
    elif openapi:
        print(json.dumps(export.openapi(), ensure_ascii=False, indent=2))
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
