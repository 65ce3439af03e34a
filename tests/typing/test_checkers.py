"""The SDK's types, judged by three checkers: right uses pass, wrong uses are errors where marked.

`# wrong: WORD` marks a line; what each checker calls the word stands in `WORDS`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
FILES = sorted(
    path.name for path in FOLDER.glob("*.py") if path.name.startswith(("right", "wrong"))
)
PROGRAMS = Path(sys.executable).parent
CHECKERS = ("mypy", "basedpyright", "ty")

#: What mypy, basedpyright and ty call it.
WORDS = {
    "name": ("call-arg", "reportCallIssue", "unknown-argument"),
    "missing": ("call-arg", "reportCallIssue", "missing-argument"),
    "many": ("call-arg", "reportCallIssue", "too-many-positional-arguments"),
    "type": ("arg-type", "reportArgumentType", "invalid-argument-type"),
    "attribute": ("attr-defined", "reportAttributeAccessIssue", "missing-attribute"),
    "assign": ("assignment", "reportAssignmentType", "invalid-assignment"),
    "return": ("return-value", "reportReturnType", "invalid-explicit-return"),
    "await": ("misc", "reportGeneralTypeIssues", "invalid-await"),
    "loop": ("attr-defined", "reportGeneralTypeIssues", "not-iterable"),
    "with": ("attr-defined", "reportGeneralTypeIssues", "invalid-context-manager"),
    "read-only": ("misc", "reportAttributeAccessIssue", "invalid-assignment"),
    # ty knows no such rule.
    "lost": ("unused-coroutine", "reportUnusedCoroutine", ""),
}

#: The errors of a file: line to the words of the checker.
Errors = dict[int, set[str]]


@cache
def errors(checker: str) -> dict[str, Errors]:
    """What a checker says of all files, asked once."""
    found: dict[str, Errors] = {name: defaultdict(set) for name in FILES}
    said = {"mypy": _mypy, "basedpyright": _basedpyright, "ty": _ty}[checker]()
    for name, line, word in said:
        found[Path(name).name][line].add(word)
    return found


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False
    )
    # 1 means that there are errors; anything above, that the checker itself failed.
    assert done.returncode <= 1, done.stdout + done.stderr
    return done.stdout


def _mypy() -> list[tuple[str, int, str]]:
    # Without the configuration of this project, which its users do not have.
    out = _run(
        PROGRAMS / "mypy", "--config-file=", "--strict", "--output=json", "--cache-dir=/dev/null",
        *FILES,
    )  # fmt: skip
    said = [json.loads(line) for line in out.splitlines()]
    return [(one["file"], one["line"], one["code"]) for one in said if one["severity"] == "error"]


def _basedpyright() -> list[tuple[str, int, str]]:
    out = _run(
        PROGRAMS / "basedpyright", "--pythonpath", sys.executable, "--outputjson",
        "--project", "pyrightconfig.json",
    )  # fmt: skip
    said = json.loads(out)["generalDiagnostics"]
    return [
        (one["file"], one["range"]["start"]["line"] + 1, one.get("rule", "syntax"))
        for one in said
        if one["severity"] == "error" and Path(one["file"]).name in FILES
    ]


def _ty() -> list[tuple[str, int, str]]:
    out = _run(
        PROGRAMS / "ty", "check", "--python", sys.prefix, "--output-format=gitlab",
        "--exit-zero", *FILES,
    )  # fmt: skip
    return [
        (one["location"]["path"], one["location"]["positions"]["begin"]["line"], one["check_name"])
        for one in json.loads(out)
    ]


def marks(name: str) -> dict[int, str]:
    """The marked lines of a file."""
    lines = (FOLDER / name).read_text("utf-8").splitlines()
    found = {number: re.search(r"# wrong: ([\w-]+)$", line) for number, line in enumerate(lines, 1)}
    return {number: mark[1] for number, mark in found.items() if mark}


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("name", FILES)
def test_a_checker_finds_what_is_marked_and_nothing_else(checker: str, name: str) -> None:
    """Issue 3: typed calls, checked by mypy, pyright and ty."""
    found = errors(checker)[name]
    place = CHECKERS.index(checker)
    wanted = {line: WORDS[word][place] for line, word in marks(name).items() if WORDS[word][place]}
    assert bool(marks(name)) == name.startswith("wrong_")
    for line, word in wanted.items():
        assert word in found.get(line, set()), f"{checker} does not see {name}:{line}"
    unmarked = {line: words for line, words in found.items() if line not in wanted}
    assert not unmarked, f"{checker} complains about {name}"


def test_every_kind_of_mistake_is_tried() -> None:
    tried = {word for name in FILES for word in marks(name).values()}
    assert tried == set(WORDS)
