"""The rooms of the house, and that a bare install needs nothing of the server."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hupan

ROOT = Path(__file__).parent.parent
SOURCE = Path(hupan.__file__).parent
#: What the extra `server` brings; a bare install has none of it.
OF_THE_SERVER = {
    "sqlalchemy", "alembic", "psycopg", "granian", "starlette", "argon2", "captcha", "PIL",
    "phonenumbers", "email_validator", "zxcvbn", "aiosmtplib", "pydantic_settings", "structlog",
}  # fmt: skip
#: Modules that are lists themselves: all their refusals, tables and messages are for others.
LISTS = {
    "hupan.accounts.refusals",
    "hupan.accounts.tables",
    "hupan.protocol.misc",
    "hupan.protocol.user",
    "hupan.protocol.verification",
    "hupan.protocol.web",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT,
        check=False,
    )  # fmt: skip


def test_the_rooms_import_each_other_in_one_direction_only() -> None:
    """The contracts in `pyproject.toml`, each of them."""
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout
    kept, broken = (
        int(part.split()[0])
        for part in done.stdout.strip().splitlines()[-1].removeprefix("Contracts: ").split(", ")
    )
    assert broken == 0
    assert kept >= 6


@pytest.mark.parametrize(
    "module", ["hupan", "hupan.client", "hupan.protocol.export", "hupan.cli", "hupan.cli.user"]
)
def test_the_bare_install_loads_nothing_of_the_server(module: str) -> None:
    """House: protocol, SDK and command line stand alone; help is quick because of it."""
    done = run("-c", f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert module in loaded
    assert {name.partition(".")[0] for name in loaded} & OF_THE_SERVER == set()
    assert not any(name.startswith(("hupan.accounts", "hupan.server")) for name in loaded)
    if module == "hupan":
        assert {name for name in loaded if name.startswith("hupan")} == {"hupan"}


def test_without_the_server_a_command_says_what_to_install() -> None:
    """The way in which most people will meet the extra."""
    names = sorted(OF_THE_SERVER | {"cryptography", "trustme"})
    absent = f"import sys; sys.modules.update(dict.fromkeys({names!r}))"
    start = "sys.argv = ['hupan', *sys.argv[1:]]; import hupan.cli; hupan.cli.main()"
    done = run("-c", f"{absent}; {start}", "serve")
    assert done.returncode == 2
    assert re.fullmatch(
        r"hupan: this command needs \w+: pip install 'hupan\[server\]'\n", done.stderr
    )
    for command in (["run", "true"], ["intercept", "hosts"]):
        done = run("-c", f"{absent}; {start}", *command)
        assert done.returncode == 2
        assert re.fullmatch(
            r"hupan: this command needs \w+: pip install 'hupan\[sandbox\]'\n", done.stderr
        )
    done = run("-c", f"{absent}; {start}", "protocol", "--proto")
    assert done.returncode == 0
    assert 'syntax = "proto3"' in done.stdout


# ---------------------------------------------------------------- what modules export


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of ours that others may import, with its syntax tree."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "migrations" in path.parts and path.name != "__init__.py":
            continue
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        if not name.rpartition(".")[2].startswith("_"):
            yield name, ast.parse(path.read_text("utf-8"))


TREES = dict(modules())


def defined(tree: ast.Module) -> set[str]:
    """The functions and classes that a module defines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Which names of which of our modules a module uses, by import or as an attribute."""
    modules: dict[str, str] = {}
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hupan"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in TREES:
                    modules[alias.asname or alias.name] = inner
                else:
                    yield str(node.module), alias.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules.keys() - bound
        ):
            yield modules[node.value.id], node.attr


USED = sorted({(user, *use) for user, tree in TREES.items() for use in used(tree)})


def exported(name: str) -> list[str] | None:
    names = getattr(importlib.import_module(name), "__all__", None)
    return None if names is None else list(names)


def test_what_modules_export_is_there() -> None:
    """`__all__` names what exists, and each once."""
    exporting = 0
    for name in TREES:
        names = exported(name)
        if names is not None:
            exporting += 1
            assert len(names) == len(set(names)), name
            missing = [one for one in names if not hasattr(sys.modules[name], one)]
            assert missing == [], name
    assert exporting > 30


def test_what_modules_use_of_each_other_is_exported() -> None:
    """A function or class that another module needs stands in `__all__`."""
    hidden = []
    for user, name, thing in USED:
        if name not in LISTS and thing in defined(TREES[name]):
            names = exported(name)
            # A command's module hands its `app` over and has nothing else for others.
            if names is None or thing not in names:
                hidden.append(f"{user} uses {name}.{thing}")
    assert hidden == []


def test_nothing_private_of_another_module_is_used() -> None:
    """An underscore means: of this file."""
    assert [use for use in USED if use[2].startswith("_") and not use[2].startswith("__")] == []
