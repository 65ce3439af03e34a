"""The page for people who write tests: its blocks are run, in the order in which they stand."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hupan.sandbox.faults import Fault
from hupan.settings import Settings

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"
PLUGIN = ("-p", "hupan.pytest_plugin", "-p", "no:cacheprovider", "-W", "error", "-q")


def blocks(language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says about everything on the page."""
    folder = tmp_path_factory.mktemp("page")
    for block in blocks("python"):
        name, _, more = block.splitlines()[0].removeprefix("# ").partition(", ")
        path = folder / name
        assert path.exists() == bool(more), name
        with path.open("a", encoding="utf-8") as file:
            file.write(block)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, f"--rootdir={folder}"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    print(done.stdout, done.stderr)
    return done.stdout


def test_the_blocks_do_what_the_page_says(report: str) -> None:
    """All of them pass, but for the one that is there to fail."""
    assert re.search(r"^1 failed, 11 passed in", report, re.MULTILINE)
    assert report.count("FAILED") == 1


def test_the_failure_is_shown_as_the_page_shows_it(report: str) -> None:
    (shown,) = blocks("text")

    def plain(text: str) -> str:
        return re.sub(r"\d+\.\d ms", "… ms", text)

    lines = plain(report).splitlines()
    for line in plain(shown).splitlines():
        assert line in lines, line


def test_the_settings_can_be_used(tmp_path: Path) -> None:
    (block,) = blocks("ini")
    config = configparser.ConfigParser()
    config.read_string(block)
    for line in config["pytest"]["hupan_settings"].split("\n")[1:]:
        assert line.partition(" = ")[0] in Settings.model_fields


def test_the_page_names_every_fault_and_fixture() -> None:
    text = PAGE.read_text("utf-8")
    for name in Fault.KINDS:
        assert f"`{name}`" in text, name
    source = (PAGE.parent.parent / "src" / "hupan" / "pytest_plugin.py").read_text("utf-8")
    fixtures = re.findall(r"^@pytest\.fixture.*\ndef (\w+)", source, re.MULTILINE)
    assert len(fixtures) == 4
    for name in fixtures:
        assert f"| `{name}` |" in text, name


def test_the_first_bot_is_short() -> None:
    """The promise of ten minutes: nobody types much."""
    assert len(blocks("python")[0].splitlines()) <= 30
