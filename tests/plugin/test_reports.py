"""What the plugin says: below a test that failed, and to those who use it in a way it is not for.

Each of these is a whole run of pytest, in a process of its own.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ("pytester", "hupan.pytest_plugin")

PLUGIN = ("-p", "hupan.pytest_plugin", "-p", "no:cacheprovider", "-W", "error", "-q")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other people's plugins cost a second a run and prove nothing here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


# ---------------------------------------------------------------- one long run

FAILING = """
import logging, sys
import pytest, requests, structlog
from hupan.server import door

log = logging.getLogger("mine")

def ask(hupan, to="13800000004"):
    client = hupan.client()
    made = client.captcha()
    client.get_verification_code(mobile=to, id=made.id, code=hupan.captcha(made.id))

def test_failing(hupan):
    ask(hupan)
    requests.post(hupan.url + "/v1/user/email-login", json={"mail": "a"}, timeout=10)
    requests.post(hupan.url + "/v1/nothing/here", timeout=10)
    log.warning("said by a test")
    raise ValueError("in failing")

def test_passing(hupan):
    ask(hupan, "13800000005")

def test_without(request):
    raise ValueError("in without")

@pytest.fixture
def breaking(hupan):
    hupan.client(user=7000006).info()
    raise ValueError("in setup")

def test_setup(breaking):
    pass

@pytest.fixture
def breaking_later(hupan):
    yield
    raise ValueError("in teardown")

def test_teardown(breaking_later, hupan):
    hupan.client(user=7000007).info()

@pytest.fixture(scope="module")
def wide(hupan_server):
    return hupan_server

def test_wide(wide):
    wide.client(user=7000008).info()
    raise ValueError("in wide")

def test_looked_up_late(request):
    sandbox = request.getfixturevalue("hupan")
    sandbox.faults.add("*", "delay", seconds=0)
    sandbox.client(user=7000009).info()
    raise ValueError("in looked up late")

def test_many(hupan):
    client = hupan.client(user=7000009)
    for number in range(30):
        client.edit_nickname(name=f"number {number}")
    raise ValueError("in many")

def test_broken(hupan, monkeypatch):
    monkeypatch.setattr(hupan.outbox, "_stand", None)
    raise ValueError("in broken")

def test_bug(hupan, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")
    monkeypatch.setattr(door, "operation", broken)
    answer = requests.post(hupan.url + "/v1/user/captcha", timeout=10)
    assert answer.status_code == 200

def test_after(hupan_server):
    # Neither the tested code's logs nor anybody's settings were touched.
    assert not structlog.is_configured()
    log.warning("said at the end")
"""

UNDONE = """
import os, socket, ssl
import pytest
from hupan.sandbox import redirect

def look():
    return (
        socket.getaddrinfo, socket.socket.connect, ssl.SSLContext.wrap_socket,
        ssl.SSLContext.wrap_bio, dict(os.environ, PYTEST_CURRENT_TEST=""),
    )

BEFORE = look()

def test_before(hupan_redirect):
    assert redirect.installed()
    assert all(new != old for new, old in zip(look(), BEFORE))

def test_undone():
    assert not redirect.installed()
    assert look() == BEFORE

def test_redirect_and_fail(hupan_redirect):
    assert redirect.installed()
    raise ValueError

test_undone_after_failing = test_undone

@pytest.fixture
def mine():
    redirect.install({})
    yield
    redirect.uninstall()

def test_redirect_twice(mine, hupan_redirect):
    pass

test_undone_after_twice = test_undone
"""

NESTED = """
def test_outer(hupan, pytester):
    pytester.makepyfile("def test_inner(hupan): pass")
    inside = pytester.runpytest_inprocess("-p", "hupan.pytest_plugin")
    inside.assert_outcomes(errors=1)
    inside.stdout.fnmatch_lines(
        ["a hupan server runs in this process already, *pytester.runpytest_subprocess()"]
    )
    # The outer one goes on.
    assert hupan.client(user=7000001).info().id == "7000001"
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The parts of the report of a run, by their titles; `` is the whole, `log` the log's file."""
    folder = tmp_path_factory.mktemp("run")
    for name, text in (("failing", FAILING), ("undone", UNDONE), ("nested", NESTED)):
        (folder / f"test_{name}.py").write_text(text)
    (folder / "conftest.py").write_text('pytest_plugins = ("pytester",)')
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:randomly", "--log-file=log.txt",
            "--log-file-level=INFO", "--rootdir", str(folder),
        ],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    found = {"": done.stdout, "log": (folder / "log.txt").read_text()}
    for part in done.stdout.split("\n____")[1:]:
        title = part.splitlines()[0].strip("_ ")
        found[title] = part.partition("\n=====")[0]
    print(done.stdout, done.stderr)
    return found


def test_the_sections_below_a_failure(parts: dict[str, str]) -> None:
    """`sandbox.md`: on failure the report shows the last requests, decoded, and the outbox."""
    assert "INTERNALERROR" not in parts[""]
    assert parts[""].splitlines()[-1].startswith("8 failed, 8 passed, 3 errors in")
    requests, _, outbox = (
        parts["test_failing"].partition("hupan: the last requests")[2].partition("hupan: outbox")
    )
    assert '#1 POST /v1/user/captcha {"deviceId": ""}' in requests
    assert '"mobile": "13800000004"' in requests
    assert "! unknown key 'mail'" in requests
    assert "! this endpoint is not of the user module" in requests
    # A picture is not for reading.
    assert len(requests) < 3000
    assert "sms to 13800000004 (code): 您的验证码是" in outbox


def test_sections_are_shown_where_they_belong(parts: dict[str, str]) -> None:
    """In every phase, for every way to ask for the server, and never in the way of the failure."""
    assert "hupan:" not in parts["test_without"]
    assert '"id": "7000006"' in parts["ERROR at setup of test_setup"]
    assert '"id": "7000007"' in parts["ERROR at teardown of test_teardown"]
    assert '"id": "7000008"' in parts["test_wide"]
    assert "[fault: delay]" in parts["test_looked_up_late"]
    assert "number 29" in parts["test_many"]
    assert "number 19" not in parts["test_many"]
    assert "the requests cannot be shown: AttributeError" in parts["test_broken"]
    assert "ValueError: in broken" in parts["test_broken"]


def test_the_server_is_silent(parts: dict[str, str]) -> None:
    """Its start closes no handler, and it says nothing into anybody's log or output."""
    for title, part in parts.items():
        if title not in ("", "log"):
            assert "Captured stdout" not in part, part
            assert "Captured stderr" not in part, part
    # The clients of these tests tell of their requests, and the server of its one bug.
    lines = re.findall(r"^(?:INFO|WARNING|ERROR) +(\S+?):.*", parts["log"], re.MULTILINE)
    assert [name for name in lines if name != "httpx2"] == ["mine", "hupan.door", "mine"]


def test_a_bug_of_the_server_is_in_the_captured_log(parts: dict[str, str]) -> None:
    """A 500 is never the client's fault, and says so where it is looked for."""
    assert "assert 500 == 200" in parts["test_bug"]
    said = parts["test_bug"].partition("Captured log call")[2]
    assert "hupan.door" in said
    assert "\nZeroDivisionError: a bug\n" in said


def test_everything_is_undone_after_the_test(parts: dict[str, str]) -> None:
    """The redirection, the trust and the variables last as long as the test, failed or not."""
    undone = [title for title in parts if "undone" in title or title == "test_before"]
    assert undone == []
    assert "test_redirect_and_fail" in parts


def test_hosts_that_somebody_redirected_already(parts: dict[str, str]) -> None:
    said = parts["ERROR at setup of test_redirect_twice"]
    assert "hosts are redirected already in this process; call redirect.uninstall() first" in said
    assert "pytest_plugin.py" not in said


def test_one_run_inside_another(parts: dict[str, str]) -> None:
    """There is one server a process; the inner run is told what to do instead."""
    assert "test_outer" not in parts


# ---------------------------------------------------------------- ways to load it


def test_loaded_in_every_way_at_once(tmp_path: Path) -> None:
    """The plugin used twice: by the entry point, by `-p` and by `pytest_plugins`."""
    entry = tmp_path / "installed" / "entry-1.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: entry\nVersion: 1\n")
    (entry / "entry_points.txt").write_text("[pytest11]\nhupan = hupan.pytest_plugin\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ("hupan.pytest_plugin",)')
    (tmp_path / "test_it.py").write_text(
        """
pytest_plugins = ["hupan.pytest_plugin"]

def test_it(pytestconfig, request):
    manager = pytestconfig.pluginmanager
    found = [name for name, plugin in manager.list_name_plugin()
             if getattr(plugin, "__name__", "") == "hupan.pytest_plugin"]
    print(found)
    assert len(found) == 1
    assert pytestconfig.getini("hupan_settings") == []
    assert len(request.session._fixturemanager.getfixturedefs("hupan", request.node)) == 1
"""
    )
    environment = os.environ | {"PYTHONPATH": str(entry.parent)}
    for way, name, alone in (
        (("-p", "hupan.pytest_plugin"), "hupan.pytest_plugin", ""),
        (("-p", "hupan"), "hupan", "1"),
    ):
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = alone
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *way, "-W", "error", "-qs", f"--rootdir={tmp_path}"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert f"[{name!r}]" in done.stdout, done.stdout + done.stderr
        assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("missing", ["granian", "cryptography"])
def test_missing_extras_are_named(pytester: pytest.Pytester, missing: str) -> None:
    """A bare `pip install hupan` has the plugin, and not what the fixtures need."""
    pytester.makeconftest(f"import sys; sys.modules[{missing!r}] = None")
    pytester.makepyfile(
        """
        def test_with(hupan_redirect): pass
        def test_with_too(hupan_redirect): pass
        def test_without(): pass
        """
    )
    done = pytester.runpytest_subprocess(*PLUGIN)
    done.assert_outcomes(passed=1, errors=2)
    said = [line for line in done.stdout.lines if line.startswith("this fixture needs")]
    assert len(said) == 2
    assert said[0].startswith('this fixture needs the sandbox: pip install "hupan[sandbox]" (')
    assert missing in said[0]
    # One sentence, and nothing of where in the plugin it was said.
    assert "pytest_plugin.py" not in done.stdout.str()


# ---------------------------------------------------------------- settings


def test_only_the_settings_of_the_tests_count(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is the same on every machine, whatever a person's settings are."""
    monkeypatch.setenv("HUPAN_LANGUAGE", "zh")
    monkeypatch.setenv("HUPAN_DATABASE_URL", "postgresql://127.0.0.1:9/real")
    monkeypatch.setenv("HUPAN_UNKNOWN", "1")
    Path("hupan.toml").write_text("open_registration = false\nnonsense = 1\n")
    pytester.makeini("[pytest]\nhupan_settings =\n    language = en\n    session_idle_days = 1\n")
    pytester.makepyfile(
        """
        import os
        import pytest
        from hupan.client import Refused

        def test_it(hupan):
            before = set(os.listdir())
            with pytest.raises(Refused, match="Not logged in"):
                hupan.client().info()
            hupan.clock.advance(days=2)
            with pytest.raises(Refused):
                hupan.client(user=7000001).info()
            client = hupan.client()
            made = client.captcha()
            client.get_verification_code(
                mobile="13912345678", id=made.id, code=hupan.captcha(made.id)
            )
            code = hupan.outbox.wait_for(to="13912345678").code
            # Registration is open: the file of the surroundings was not read.
            assert client.verification_login(
                mobile="13912345678", captcha=code, device_id="d", platform="p"
            ).token
            # And nothing is written beside the tests.
            assert set(os.listdir()) == before
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)


def test_a_setting_that_makes_no_sense(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nhupan_settings =\n    langage = en\n")
    pytester.makepyfile("def test_it(hupan): pass")
    done = pytester.runpytest_subprocess(*PLUGIN)
    done.assert_outcomes(errors=1)
    assert (
        "hupan_settings: there is no setting langage; did you mean language?" in done.stdout.lines
    )
    assert "pytest_plugin.py" not in done.stdout.str()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("language", "'language' is not `name = value`"),
        ("port = 80", "port is the plugin's own business"),
        ("language = fr", "language: Input should be 'zh' or 'en'"),
        ("threads = 0", "threads: Input should be greater than or equal to 1"),
    ],
)
def test_more_settings_that_make_no_sense(line: str, says: str, tmp_path: Path) -> None:
    plugin = importlib.import_module("hupan.pytest_plugin")

    class Config:
        def getini(self, name: str) -> list[str]:
            assert name == "hupan_settings"
            return [line]

    with pytest.raises(ValueError) as wrong:  # noqa: PT011  # What it says is compared below.
        plugin._settings(tmp_path, port=1, web_port=2, **plugin._settings_of(Config()))
    assert plugin._reason(wrong.value) == says
