"""Docs that cannot lie: what can be derived is compared, what can be run is run.

`.venv/bin/python -m tests.test_docs` writes the derived parts of the pages anew.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text as sql

import hupan
from hupan.accounts import (
    captchas,
    codes,
    coins,
    limits,
    links,
    outbox,
    passwords,
    profile,
    sessions,
)
from hupan.accounts.refusals import Locked, every_refusal
from hupan.protocol import Host, rows
from hupan.protocol.message import LONGEST_TEXT
from hupan.protocol.wire import DEEPEST, LARGEST_BODY
from hupan.sandbox.people import everybody
from hupan.server.door import LONGEST_QUEUE
from hupan.settings import Settings, load
from tests.house import House, Process, arguments_of, commands, free_ports, shaped_like_token
from tests.house import _await_ready as await_ready

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "hupan"
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCS = ROOT / "docs"
PAGES = (*READMES, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))
REWRITE = "run `.venv/bin/python -m tests.test_docs` to write the derived parts anew"


def flat(path: Path) -> str:
    """A page in one line, so that a sentence is found wherever it is broken."""
    return " ".join(path.read_text("utf-8").split())


# ---------------------------------------------------------------- what is derived


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value in (None, {}) else str(value)


def derived_settings() -> str:
    lines = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _default(field.default)
        lines.append(
            f"| `{name}` | `HUPAN_{name.upper()}` | {f'`{default}`' if default else ''}"
            f" | {field.description} |"
        )
    return "\n".join(lines)


def derived_refusals() -> str:
    lines = ["| refusal | code | 中文 | English |", "|---|---|---|---|"]
    lines += [f"| `{one.__name__}` | {one.code} | {one.zh} | {one.en} |" for one in every_refusal()]
    return "\n".join(lines)


def derived_commands() -> str:
    lines = []
    common: dict[str, str] = {}
    for command in commands():
        if command.commands:
            continue
        told = {name: one.help for name, one in arguments_of(command).items()}
        lines.append(f"- `{command.prog}` {command.description}")
        if command.prog.startswith("hupan call "):
            # The same for all of them, so they are told once.
            common |= {name: help for name, help in told.items() if help}
            own = [f"`{name}`" for name, help in told.items() if not help]
            lines[-1] += " " * bool(own) + ", ".join(own)
        else:
            lines += [f"  - `{name}`: {help}" for name, help in told.items()]
    lines += ["", "`hupan call …` also takes:", ""]
    lines += [f"- `{name}`: {help}" for name, help in common.items()]
    return "\n".join(lines)


def derived_people() -> str:
    lines = ["| id | phone | e-mail | password | what is special |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.id} | {one.phone} | {one.email} | {one.password} | {one.note} |"
        for one in everybody()
    ]
    return "\n".join(lines)


def actions() -> set[str]:
    """What is noted in the audit, found by reading the code."""
    found = set()
    for path in (SOURCE / "accounts").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "note"
            ):
                assert isinstance(node.args[0], ast.Constant)
                found.add(node.args[0].value)
    return found


def derived_actions() -> str:
    return "  " + ", ".join(f"`{one}`" for one in sorted(actions()))


DERIVED = {
    "settings": (DOCS / "operating.md", derived_settings),
    "commands": (DOCS / "operating.md", derived_commands),
    "refusals": (DOCS / "operating.md", derived_refusals),
    "people": (DOCS / "start.md", derived_people),
    "actions": (DOCS / "security.md", derived_actions),
}


def _block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- derived: {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_derived_is_as_the_code_says(name: str) -> None:
    """Settings, commands, refusals, people and audit actions: all of them, and nothing else."""
    path, derive = DERIVED[name]
    found = _block(name).search(path.read_text("utf-8"))
    assert found, f"{path.name} has no part {name}"
    assert found[0].strip("\n") == derive().strip("\n"), REWRITE


def test_every_setting_command_and_refusal_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
    for command in commands():
        assert command.description, command.prog
        for name, one in arguments_of(command).items():
            field = command.prog.startswith("hupan call ")
            assert one.help or command.commands or field, f"{command.prog} {name}"
    for one in every_refusal():
        assert one.zh, one
        assert one.en, one
        assert one.code not in (0, 1), one


# ---------------------------------------------------------------- the comparison with production


def test_every_row_is_compared_with_production() -> None:
    lines = (DOCS / "differences.md").read_text("utf-8").splitlines()
    rest = [line for line in lines if line.startswith("| [`")]
    for row in rows():
        name = f"{row.module}.{row.name}"
        anchor = name.lower().replace(".", "")
        where = " on the web host" if row.host is Host.WEB else ""
        start = (
            f"| [`{name}`](protocol.md#{anchor}) | `{' '.join(row.methods)} {row.path}`{where}"
            f" | {row.certainty.value} | "
        )
        mine = [line for line in rest if line.startswith(start)]
        assert len(mine) == 1, f"docs/differences.md needs one line that starts with {start}"
        assert len(mine[0]) > len(start) + 10, f"{name} is not compared"
        rest.remove(mine[0])
    assert not rest, "lines about rows that do not exist"


def test_every_shared_deviation_has_a_certainty() -> None:
    text = (DOCS / "differences.md").read_text("utf-8")
    shared = text.partition("## What all rows share")[2].partition("## Row by row")[0]
    lines = [line for line in shared.splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 20
    for line in lines:
        assert re.match(r"(documented|observed|assumed)\b", line.split("|")[-2].strip()), line


def test_coin_types_that_a_server_writes() -> None:
    """The page says that only types 1, 4 and 9 are written outside of the stand-in."""
    written = set()
    for call in _calls():
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name == "reward":
            written.add(ast.unparse(call.args[3]))
        elif name == "post":
            written |= {ast.unparse(one.value) for one in call.keywords if one.arg == "typ"}
        elif isinstance(call.func, ast.Name) and call.func.id == "_move" and len(call.args) > 4:
            written.add(ast.unparse(call.args[4]))
    # `typ` is what `post` and `reward` hand on.
    assert written - {"typ"} == {"coins.CORRECTION", "CORRECTION", "4", "9"}
    assert coins.CORRECTION == 1
    assert "only 1, 4 and 9 are ever written" in flat(DOCS / "differences.md")


def _calls() -> Iterator[ast.Call]:
    for folder in ("accounts", "cli", "server"):
        for path in (SOURCE / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield node


# ---------------------------------------------------------------- numbers


def _said() -> list[tuple[str, str]]:
    default = Settings()
    return [
        ("security.md", f"valid for {default.code_seconds} seconds (`code_seconds`, at most 600)"),
        ("security.md", f"at most {default.code_tries} guesses (`code_tries`)"),
        ("security.md", f"The {codes.FREE_FAILURES}th consecutive wrong guess"),
        ("security.md", f"a wait of {limits.FIRST_WAIT} seconds, which doubles up to 1 hour"),
        ("security.md", f"at {limits.OFF} it is off"),
        ("security.md", f"{default.code_interval_seconds} seconds between two sends"),
        ("security.md", f"and {default.code_day_limit} sends a day"),
        ("security.md", f"{default.source_send_limit} sends in 10 minutes from one address"),
        ("security.md", f"{default.network_send_limit} an hour from one /24 or /64"),
        ("security.md", f"{default.site_send_limit} a day for the whole site"),
        ("security.md", f"{captchas.LENGTH} characters, {default.captcha_seconds} seconds"),
        ("security.md", f"right once in {len(captchas.ALPHABET) ** captchas.LENGTH} times"),
        ("security.md", f"{default.source_login_limit} logins in 10 minutes"),
        ("security.md", f"argon2id with {default.argon2_memory_kib} KiB, {default.argon2_time} p"),
        ("security.md", f"{passwords.LEAST['compat']} to {passwords.LONGEST} characters"),
        ("security.md", f'({passwords.LEAST["strict"]} with `profile = "strict"`)'),
        ("security.md", f"The {passwords.FREE_FAILURES}th wrong one in a row"),
        ("security.md", f"wait longer than {LONGEST_QUEUE:.0f} seconds"),
        ("security.md", f"{sessions.RANDOM} random characters of {len(sessions.ALPHABET)}"),
        ("security.md", f"{default.max_sessions} sessions an account"),
        ("security.md", f"dies after {default.session_idle_days} days without use"),
        ("security.md", f"after {default.session_life_days} days in any case"),
        ("security.md", f"160 bits, used once, {links.LIFE // 3600} hours"),
        ("security.md", f"{LARGEST_BODY // 1024} KiB a body, {DEEPEST} levels of JSON"),
        ("security.md", f"{LONGEST_TEXT} characters a text"),
        ("operating.md", f"is tried {outbox.ATTEMPTS} times"),
        ("operating.md", f"({default.source_send_limit} codes in 10 minutes)"),
        ("operating.md", f"{limits.OFF} wrong ones in a row"),
        ("start.md", f"one try, right or wrong, for {default.captcha_seconds} seconds"),
        ("start.md", f"good for {default.code_seconds} seconds and for {default.code_tries} gue"),
        ("differences.md", f"bodies over {LARGEST_BODY // 1024} KiB, JSON deeper than {DEEPEST}"),
        ("differences.md", f"Four characters of `{captchas.ALPHABET}`"),
        ("differences.md", f"1 to {profile.LONGEST_NAME} code points"),
        ("differences.md", f"up to {profile.LONGEST_URL} characters, never fetched"),
        ("decisions/0005-known-devices.md", f"the last {sessions.KNOWN_DEVICES} devices"),
    ]


def test_numbers_in_the_pages_are_those_of_the_code() -> None:
    for name, phrase in _said():
        assert phrase in flat(DOCS / name), f"docs/{name} does not say “{phrase}”"


# ---------------------------------------------------------------- names


def _code(text: str) -> Iterator[str]:
    """Everything that stands as code: blocks line by line, and spans."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_pages_name_exist(page: Path) -> None:
    """Every `hupan …` and its options, and every `make …`."""
    known = {one.prog: set(arguments_of(one)) for one in commands() if not one.commands}
    words = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for code in _code(page.read_text("utf-8")):
        for word in re.findall(r"(?:^|\s)make ([a-z]+)", code):
            assert word in words, code
        for called in re.findall(r"(?:^|[\s/])hupan ([a-z-]+(?: [a-z-]+)?[^|#]*)", code):
            first, *more = called.split()
            name = f"hupan {first}"
            if name not in known:
                group = [one for one in known if one.startswith(name + " ")]
                assert group, code
                if not more or more[0] == "…":
                    continue
                name = f"{name} {more.pop(0)}"
                assert name in known, code
            # What follows two hyphens alone belongs to another program.
            for word in itertools.takewhile(lambda word: word != "--", more):
                assert not word.startswith("--") or word in known[name], f"{word} in {code}"


def test_files_that_pages_name_exist() -> None:
    rooms = "protocol|client|accounts|outside|server|sandbox|cli|migrations"
    for page in (*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md")):
        text = page.read_text("utf-8")
        for name in re.findall(rf"(?<![\w/.-])(?:{rooms})/[a-z_]+(?:/[a-z_]+)?(?:\.py)?", text):
            path = SOURCE / name
            assert path.exists() or path.with_suffix(".py").exists(), f"{page.name}: {name}"
        for name in re.findall(r"(?<![\w/.-])tests/[\w/]+\.py", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_what_the_stand_in_offers_is_on_the_start_page() -> None:
    text = (DOCS / "start.md").read_text("utf-8")
    found = set()
    for path in (SOURCE / "sandbox").rglob("*.py"):
        found |= set(re.findall(r'Route\("(/__dev/[^"]+)"', path.read_text("utf-8")))
    assert found
    for address in found:
        assert address in text, f"docs/start.md does not name {address}"
    for address in re.findall(r"(/__dev/[\w/{}]+)", text):
        assert address in found or address.startswith("/__dev/captchas/"), address


def test_the_walk_finds_audit_actions() -> None:
    """An empty walk would prove nothing."""
    assert {"login", "login-wrong", "coins", "banned", "password-changed"} <= actions()


def _anchors(path: Path) -> set[str]:
    found = set()
    for title in re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(path), f"{page.name} links to {target}"


def test_decisions_are_numbered_and_complete() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    for number, path in enumerate(records, start=1):
        text = path.read_text("utf-8")
        assert path.name.startswith(f"{number:04d}-"), path.name
        assert text.startswith(f"# {number:04d} "), path.name
        parts = re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequence", "Not done"], path.name
        assert len(text.splitlines()) <= 16, f"{path.name} is no ten-line record"


def test_the_changelog_has_this_version() -> None:
    assert f"## {hupan.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


# ---------------------------------------------------------------- what must not be in any file


def _tracked() -> list[Path]:
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if git.returncode:
        # Not a clone: an unpacked archive has the same folders.
        found = [path for name in ("src", "tests", "docs", "proto") for path in ROOT.glob(name)]
        return [path for folder in found for path in folder.rglob("*") if path.is_file()]
    names = git.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_this_machine_or_a_registry() -> None:
    # Put together here, so that this file does not name them either.
    folders = "|".join(("work", "home", "root", "Users"))
    hosts = "|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs"))
    bad = re.compile(rf"(?<![\w./~-])/(?:{folders})/\w|{hosts}|--(?:extra-)?index-url [a-z]")
    checked = 0
    for path in _tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        checked += 1
        found = bad.search(text)
        assert not found, f"{path.relative_to(ROOT)} has {found[0]!r}"
    assert checked > 50


# ---------------------------------------------------------------- both READMEs


def _blocks(path: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, path.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def _bare(block: str) -> list[str]:
    """A block without its comments, which are translated."""
    lines = (re.sub(r"(^|\s\s+)#.*", "", line).rstrip() for line in block.splitlines())
    return [line for line in lines if line]


def test_both_readmes_say_the_same_commands() -> None:
    english, chinese = READMES
    for language in ("sh", "bash", "toml", "python"):
        ours = [_bare(block) for block in _blocks(english, language)]
        assert ours == [_bare(block) for block in _blocks(chinese, language)], language
        assert ours, language

    def named(path: Path) -> set[str]:
        return {
            code
            for code in _code(path.read_text("utf-8"))
            if re.match(r"(make|\.venv/bin/hupan|HUPAN_|http)", code)
        }

    assert named(english) - set("".join(_blocks(english, "sh")).splitlines()) == named(
        chinese
    ) - set("".join(_blocks(chinese, "sh")).splitlines())
    titles = [len(re.findall(r"^## ", path.read_text("utf-8"), re.MULTILINE)) for path in READMES]
    assert titles[0] == titles[1]


def test_the_readme_opens_with_the_two_commands() -> None:
    for path in READMES:
        assert [line.split("#")[0].strip() for line in _blocks(path, "sh")[0].splitlines()] == [
            "make dev",
            "make test",
        ]
        assert path.read_text("utf-8").index("make dev") < 40


def test_the_sdk_fits_into_eight_lines() -> None:
    lines = _blocks(READMES[0], "python")[0].splitlines()
    assert len([line for line in lines if line]) == 8


# ---------------------------------------------------------------- what can be run is run


@dataclass
class Shell:
    """A place in which the commands of the pages can be run."""

    api: str
    web: str
    folder: Path
    environment: dict[str, str]

    def localised(self, block: str) -> str:
        """A block, speaking to the server of this test."""
        text = block.replace("http://127.0.0.1:8790", self.api)
        return text.replace("http://127.0.0.1:8791", self.web)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def bash(self, *blocks: str) -> str:
        script = self.localised("\n".join(blocks)).replace(".venv/bin/hupan", "./hupan")
        return self.run("bash", "-eu", "-c", script)

    def python(self, block: str) -> str:
        return self.run(sys.executable, "-c", self.localised(block))


def _shell(folder: Path, api: str = "", web: str = "") -> Shell:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HUPAN_")
    }
    environment |= {"XDG_CONFIG_HOME": str(folder / "config"), "PYTHONUTF8": "1"}
    hupan_command = folder / "hupan"
    hupan_command.write_text(
        f"#!/bin/sh\nexec '{sys.executable}' -c 'from hupan.cli import main; main()' \"$@\"\n"
    )
    hupan_command.chmod(0o755)
    return Shell(api, web, folder, environment)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """`hupan dev`, as the pages start it but on other ports."""
    if not (shutil.which("bash") and shutil.which("curl")):
        pytest.skip("the blocks of the pages need bash and curl")
    port, web_port = free_ports(2)
    folder = tmp_path_factory.mktemp("dev")
    shell = _shell(folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{web_port}")
    with (
        (folder / "out").open("wb") as out,
        subprocess.Popen(
            [str(folder / "hupan"), "dev", "--port", str(port), "--web-port", str(web_port)],
            cwd=folder,
            env=shell.environment,
            stdout=out,
            stderr=out,
        ) as process,
    ):
        try:
            await_ready(Process(process, shell.api, shell.web))
            yield shell
        finally:
            process.terminate()


def test_the_five_minutes_of_the_readme(dev: Shell) -> None:
    told = dev.bash(*_blocks(READMES[0], "bash"))
    assert told.startswith('{"code":1,"msg":"success"}')
    assert '"phone":"13800001234"' in told


def test_the_eight_lines_of_the_readme(dev: Shell) -> None:
    assert dev.python(_blocks(READMES[0], "python")[0]).splitlines() == [
        "测试用户1 测试用户2",
        "-1 昵称需要 1 到 32 个字符",
    ]


def test_the_steps_of_the_start_page(dev: Shell) -> None:
    told = dev.bash(*_blocks(DOCS / "start.md", "bash"))
    token = re.search(r"^\{\"code\":1,\"msg\":\"success\"\}([\w-]{31})$", told, re.MULTILINE)
    assert token
    assert shaped_like_token(token[1])
    for fact in (
        '"phone":"13800002345"',
        '"changeAmount":1',
        '"name":"测试用户1"',
        '"onLineDay":',
        '"data":{"token":',
    ):
        assert fact in told, fact
    # Only the call with the dead token is refused.
    assert re.findall(r'"code":(?!1\b)[^}]*', told) == ['"code":-101,"msg":"未登录"']


def test_the_rest_of_the_start_page(dev: Shell) -> None:
    told = dev.python(_blocks(DOCS / "start.md", "python")[0])
    assert ",30,20,10" in told
    assert "游戏群 1" in told
    block = next(one for one in _blocks(DOCS / "start.md", "sh") if "hupan login" in one)
    dev.environment["HUPAN_SERVER"] = dev.api
    told = dev.bash(block)
    assert "user1@example.com" in told
    assert '"id": "7000002"' in told


def test_the_first_start_of_a_real_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A2: the README's settings can be used, and a link stands in for a default account."""
    settings_file = tmp_path / "hupan.toml"
    settings_file.write_text(_blocks(READMES[0], "toml")[0])
    monkeypatch.setenv("HUPAN_CONFIG", str(settings_file))
    assert load().deliver_email == ["smtp"]
    lines = [line for line in _blocks(READMES[0], "sh")[1].splitlines() if "bin/hupan" in line]
    assert lines[-1] == ".venv/bin/hupan serve"
    told = _shell(tmp_path).bash(*lines[:-1])
    assert re.search(r"https://web\.example\.com/account/link#1-[0-9a-f]{40}$", told.strip())


def test_what_opens_a_locked_number(house: House) -> None:
    """C5: the statement on the page for operators does what it says, for this number only."""
    page = (DOCS / "operating.md").read_text("utf-8")
    statement = re.search(r"```sql\n(.*?)\n```", page, re.DOTALL)
    assert statement
    mine, other = "code:13800001234:", "code:13800001235:"
    for key in (mine, other):
        house.fail(key, codes.FREE_FAILURES, limits.OFF)
    with house.rules() as ctx, pytest.raises(Locked):
        limits.check_failures(ctx, mine)
    with house.rules() as ctx:
        ctx.tx.begin()
        ctx.tx.all(sql("SELECT 1"))
        ctx.tx.connection.execute(sql(statement[1].rstrip(";")))  # type: ignore[attr-defined]
    with house.rules() as ctx:
        limits.check_failures(ctx, mine)
        assert limits.locked(ctx, other)


def write() -> None:
    """Write the derived parts of the pages."""
    for name, (path, derive) in DERIVED.items():
        text = path.read_text("utf-8")
        found = _block(name).search(text)
        assert found, f"{path.name} has no part {name}"
        path.write_text(text[: found.start()] + derive() + "\n" + text[found.end() :], "utf-8")


if __name__ == "__main__":
    write()
