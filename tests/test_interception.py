"""`hupan run`: unchanged clients, with the addresses of production in them, reach a sandbox.

The clients are real programs: curl, Node, Java, Python with six libraries. They run in a network
of their own, from which everything that leaves loopback would leave by one counted door.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from hupan.sandbox import authority as authorities
from hupan.sandbox import proxy as proxies
from hupan.sandbox.authority import DAYS, Authority, NoTruststore, look
from hupan.sandbox.proxy import API_HOST, HOSTS, WEB_HOST, Proxy
from hupan.sandbox.run import Ports, Summary, environment
from hupan.server.run import MARK
from hupan.server.run import run as serve_for_real
from hupan.settings import Settings, SettingsError
from tests.house import Done, hupan

HUPAN = [sys.executable, "-c", "from hupan.cli import main; main()"]
NOW = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file keep their authority."""
    return tmp_path_factory.mktemp("home")


def surroundings(home: Path, **more: str) -> dict[str, str]:
    """The environment of a person without any proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HUPAN_") and not name.lower().endswith("_proxy")
    }
    return kept | {"XDG_CONFIG_HOME": str(home), "PYTHONUTF8": "1"} | more


def hupan_run(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HUPAN, "run", *words],
        env=surroundings(home, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# ---------------------------------------------------------------- the clients

LOGIN = '{"email": "user1@example.com", "password": "password-1"}'

#: Programs as people write them. Each logs in at the API host, asks the web host for somebody,
#: does so once more without TLS, and prints what it got.
PROGRAMS: dict[str, tuple[str, str]] = {
    "curl": (
        "client.sh",
        """
set -e
for scheme in https http; do
  curl -sS -d '%(login)s' $scheme://chat-go.jwzhd.com/v1/user/email-login
  curl -sS "$scheme://chat-web-go.jwzhd.com/v1/user/homepage?userId=7000001"
done
""",
    ),
    "node-fetch": (
        "fetch.mjs",
        """
for (const scheme of ["https", "http"]) {
  const api = await fetch(`${scheme}://chat-go.jwzhd.com/v1/user/email-login`, {
    method: "POST", body: '%(login)s',
  });
  console.log(await api.text());
  const web = await fetch(`${scheme}://chat-web-go.jwzhd.com/v1/user/homepage?userId=7000001`);
  console.log(await web.text());
}
""",
    ),
    "node-https": (
        "https.cjs",
        """
const clients = { https: require("https"), http: require("http") };
const show = (answer) => answer.on("data", (data) => process.stdout.write(data));
for (const scheme of ["https", "http"]) {
  const address = `${scheme}://chat-go.jwzhd.com/v1/user/email-login`;
  clients[scheme].request(address, { method: "POST" }, show).end('%(login)s');
  clients[scheme].get(
    `${scheme}://chat-web-go.jwzhd.com/v1/user/homepage?userId=7000001`, show);
}
""",
    ),
    "java": (
        "Client.java",
        """
import java.net.URI;
import java.net.http.*;
import java.nio.charset.StandardCharsets;

class Client {
  public static void main(String[] none) throws Exception {
    var client = HttpClient.newHttpClient();
    var text = HttpResponse.BodyHandlers.ofString();
    var out = new java.io.PrintStream(System.out, true, StandardCharsets.UTF_8);
    for (var scheme : new String[] {"https", "http"}) {
      var login = URI.create(scheme + "://chat-go.jwzhd.com/v1/user/email-login");
      var body = HttpRequest.BodyPublishers.ofString("%(java_login)s");
      out.println(client.send(HttpRequest.newBuilder(login).POST(body).build(), text).body());
      var page = URI.create(scheme + "://chat-web-go.jwzhd.com/v1/user/homepage?userId=7000001");
      out.println(client.send(HttpRequest.newBuilder(page).build(), text).body());
    }
  }
}
""",
    ),
    "urllib": (
        "with_urllib.py",
        """
from urllib.request import urlopen
for scheme in ("https", "http"):
    with urlopen(f"{scheme}://chat-go.jwzhd.com/v1/user/email-login", b'%(login)s') as answer:
        print(answer.read().decode())
    page = f"{scheme}://chat-web-go.jwzhd.com/v1/user/homepage?userId=7000001"
    with urlopen(page) as answer:
        print(answer.read().decode())
""",
    ),
    "httpx2-async": (
        "with_httpx2_async.py",
        """
import asyncio, httpx2
async def main():
    async with httpx2.AsyncClient() as client:
        for scheme in ("https", "http"):
            login = f"{scheme}://chat-go.jwzhd.com/v1/user/email-login"
            print((await client.post(login, content='%(login)s')).text)
            page = f"{scheme}://chat-web-go.jwzhd.com/v1/user/homepage"
            print((await client.get(page, params={"userId": "7000001"})).text)
asyncio.run(main())
""",
    ),
    **{
        f"aiohttp{name}": (
            f"with_aiohttp{name.replace('-', '_')}.py",
            """
import asyncio, aiohttp
%(imported)s
async def main():
    async with aiohttp.ClientSession() as client:
        for scheme in ("https", "http"):
            login = f"{scheme}://chat-go.jwzhd.com/v1/user/email-login"
            async with client.post(login, data='%(login)s') as answer:
                print(await answer.text())
            page = f"{scheme}://chat-web-go.jwzhd.com/v1/user/homepage"
            async with client.get(page, params={"userId": "7000001"}) as answer:
                print(await answer.text())
%(run)s(main())
""".replace("%(imported)s", imported).replace("%(run)s", run),
        )
        for name, imported, run in (
            ("", "", "asyncio.run"),
            ("-uvloop", "import uvloop", "uvloop.run"),
        )
    },
    **{
        name: (
            f"with_{name}.py",
            f"""
import {name}
for scheme in ("https", "http"):
    login = f"{{scheme}}://chat-go.jwzhd.com/v1/user/email-login"
    print({name}.post(login, {body}='%(login)s').text)
    page = f"{{scheme}}://chat-web-go.jwzhd.com/v1/user/homepage"
    print({name}.get(page, params={{"userId": "7000001"}}).text)
""",
        )
        for name, body in (("requests", "data"), ("httpx", "content"), ("httpx2", "content"))
    },
}

#: Clients that ask for what is not the sandbox's, and what each of them gets to see.
ASTRAY: dict[str, tuple[str, str, str]] = {
    "curl-other": (
        "other.sh",
        "curl -v https://chat-ws-go.jwzhd.com/ws",
        "chat-ws-go.jwzhd.com is another host of that service",
    ),
    "curl-plain": (
        "plain.sh",
        "curl -sS http://www.example.com/",
        "www.example.com is not the sandbox's, and nothing is forwarded",
    ),
    "urllib-other": (
        "other_urllib.py",
        "from urllib.request import urlopen\nurlopen('https://www.example.com/')",
        "403 hupan run: www.example.com is not the sandbox's",
    ),
    "aiohttp-other": (
        "other_aiohttp.py",
        "import asyncio, aiohttp\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession() as client:\n"
        "        await client.get('https://chat-ws-go.jwzhd.com/')\n"
        "asyncio.run(main())",
        "chat-ws-go.jwzhd.com:443",
    ),
    "node-other": (
        "other.mjs",
        "import { lookup } from 'node:dns';\n"
        "for (const place of ['chat-ws-go.jwzhd.com', 'www.example.com', '203.0.113.7'])\n"
        "  await fetch(`https://${place}/`).catch((error) => console.log(error.cause.message));\n"
        "lookup('www.example.com', (error) => console.log(error.code, error.message));\n",
        "hupan run: 203.0.113.7:443 is not the sandbox's; nothing leaves this machine",
    ),
    "node-names": (
        "names.cjs",
        "const dns = require('dns'), net = require('net'), util = require('util');\n"
        "dns.promises.resolveMx('www.example.com').catch((error) => console.log(error.message));\n"
        "util.promisify(dns.lookup)('chat-go.jwzhd.com').then(({ address }) => {\n"
        "  const line = net.connect(80, address);\n"
        "  line.write('GET /healthz HTTP/1.0\\r\\n\\r\\n');\n"
        "  line.on('data', (data) => console.log(String(data)));\n"
        "});\n",
        "200 OK",
    ),
    "unimplemented": (
        "unimplemented.sh",
        "curl -sS -X POST https://chat-go.jwzhd.com/v1/friend/address-book-list",
        '"code":',
    ),
}

INTERPRETERS = {
    ".sh": ["sh"],
    ".mjs": ["node"],
    ".cjs": ["node"],
    ".java": ["java"],
    ".py": [sys.executable],
}

#: Runs every client, one after the other, inside one `hupan run`.
DRIVER = """
import json, subprocess, sys
told = {}
for name, command in json.load(open(sys.argv[1])).items():
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    told[name] = [done.returncode, done.stdout, done.stderr]
json.dump(told, open(sys.argv[2], "w"))
"""

#: A network whose only way out is a cable with nobody at its other end.
NETWORK = """
ip link set lo up
ip link add out type veth peer name nobody
sysctl -qw net.ipv6.conf.out.disable_ipv6=1 net.ipv6.conf.nobody.disable_ipv6=1
ip link set out up; ip link set nobody up
ip address add 192.0.2.1/24 dev out
ip route add default via 192.0.2.2
ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev out
"""

#: Runs a command in that network and tells what left, or tried to; then leaves on purpose.
WATCH = """
import json, socket, subprocess, sys

def left():
    out = next(line for line in open("/proc/net/dev") if line.strip().startswith("out:"))
    count = int(out.split()[10])
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
    count += int(values[names.index("OutNoRoutes")])
    for line in open("/proc/net/snmp6"):
        if line.startswith("Ip6OutNoRoutes"):
            count += int(line.split()[1])
    return count

before = left()
done = subprocess.run(sys.argv[2:], capture_output=True, text=True)
during = left() - before
counts = [during]
for family, place in ((socket.AF_INET, "203.0.113.7"), (socket.AF_INET6, "2001:db8::7")):
    before = left()
    with socket.socket(family) as line:
        line.settimeout(0.2)
        try:
            line.connect((place, 443))
        except OSError:
            pass
    counts.append(left() - before)
before = left()
try:
    subprocess.run(["getent", "hosts", "chat-go.jwzhd.com"], timeout=1)
except subprocess.TimeoutExpired:
    pass
counts.append(left() - before)
json.dump([done.returncode, done.stdout, done.stderr, counts], open(sys.argv[1], "w"))
"""


@dataclass
class Everyone:
    """What became of every client. `counts`: packets that left during the run, then on purpose."""

    results: dict[str, tuple[int, str, str]]
    stdout: str
    stderr: str
    counts: list[int] | None


def _network() -> list[str] | None:
    """The words that make a network of its own, where that is allowed."""
    words = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    with contextlib.suppress(OSError):
        made = subprocess.run(
            [*words, "sh", "-ec", NETWORK], capture_output=True, timeout=20, check=False
        )
        if made.returncode == 0:
            return words
    return None


@pytest.fixture(scope="module")
def everyone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Everyone:
    """Run every client once, beside one sandbox."""
    folder = tmp_path_factory.mktemp("clients")
    commands = {}
    texts = {name: (file, text) for name, (file, text, _) in ASTRAY.items()}
    for name, (file, text) in {**PROGRAMS, **texts}.items():
        filled = text.replace("%(login)s", LOGIN)
        filled = filled.replace("%(java_login)s", LOGIN.replace('"', '\\"'))
        (folder / file).write_text(filled)
        command = [*INTERPRETERS[Path(file).suffix], str(folder / file)]
        if shutil.which("curl" if "curl" in filled.split() else command[0]):
            commands[name] = command
    for name, text in (("driver.py", DRIVER), ("watch.py", WATCH)):
        (folder / name).write_text(text)
    (folder / "commands.json").write_text(json.dumps(commands))
    run = [*HUPAN, "run", sys.executable, str(folder / "driver.py"),
           str(folder / "commands.json"), str(folder / "told.json")]  # fmt: skip
    network = _network()
    counts = None
    if network is None:
        done = subprocess.run(
            run, env=surroundings(home), capture_output=True, text=True, timeout=200, check=False
        )
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    else:
        watch = [sys.executable, str(folder / "watch.py"), str(folder / "watched.json"), *run]
        subprocess.run(
            [*network, "sh", "-ec", NETWORK + 'exec "$@"', "sh", *watch],
            env=surroundings(home),
            timeout=200,
            check=True,
        )
        code, stdout, stderr, counts = json.loads((folder / "watched.json").read_text())
    assert code == 0, stderr
    told = json.loads((folder / "told.json").read_text())
    return Everyone({name: tuple(one) for name, one in told.items()}, stdout, stderr, counts)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unchanged_client_reaches_the_sandbox(everyone: Everyone, name: str) -> None:
    """Issue 3: with the production URL hard-coded, over TLS and without."""
    if name not in everyone.results:
        pytest.skip(f"what {name} needs is not installed here")
    code, told, errors = everyone.results[name]
    assert code == 0, errors
    assert len(re.findall(r'"token":"[\w-]{31}"', told)) == 2, told
    assert len(re.findall('"nickname":"测试用户1"', told)) == 2, told


@pytest.mark.parametrize("name", ASTRAY)
def test_a_client_that_goes_astray_is_told_why(everyone: Everyone, name: str) -> None:
    """Other hosts are refused with the reason; other paths are answered with 404."""
    if name not in everyone.results:
        pytest.skip(f"what {name} needs is not installed here")
    _, told, errors = everyone.results[name]
    assert ASTRAY[name][2] in told + errors
    if name == "node-other":
        assert "chat-ws-go.jwzhd.com:443 is not the sandbox's" in told
        assert "ENOTFOUND hupan run: www.example.com is not the sandbox's" in told
    if name == "node-names":
        assert "resolveMx of www.example.com is not the sandbox's" in told


def test_the_summary_tells_what_was_asked(everyone: Everyone) -> None:
    """Requests, endpoints, warnings, and what was asked for but is not ours."""
    clients = len(PROGRAMS.keys() & everyone.results.keys())
    head = next(line for line in everyone.stderr.splitlines() if "requests" in line)
    more = 1 if "unimplemented" in everyone.results else 0
    assert f"{4 * clients + more} requests, 2 endpoints, 0 refused" in head
    assert "the command ended with 0" in head
    assert re.search(rf"^ +{2 * clients}  POST /v1/user/email-login$", everyone.stderr, re.M)
    assert re.search(rf"^ +{2 * clients}  GET /v1/user/homepage$", everyone.stderr, re.M)
    if more:
        assert "not of the user module, answered with 404:" in everyone.stderr
        assert "1  POST /v1/friend/address-book-list" in everyone.stderr
    assert "other hosts, refused and never contacted:" in everyone.stderr
    assert re.search(r"^ +\d  www\.example\.com:443$", everyone.stderr, re.M)
    assert re.search(r"^ +\d  chat-ws-go\.jwzhd\.com:443$", everyone.stderr, re.M)
    if "node-other" in everyone.results:
        # It went by no proxy, and is told all the same.
        assert "203.0.113.7:443" in everyone.stderr
    assert everyone.stdout == ""


def test_no_packet_leaves_loopback(everyone: Everyone) -> None:
    """Issue 3: during all of this. The control shows that a packet would have been seen."""
    if everyone.counts is None:
        pytest.skip("a network of one's own cannot be made here (unshare, ip, veth)")
    during, *on_purpose = everyone.counts
    assert all(count > 0 for count in on_purpose), on_purpose
    assert during == 0


# ---------------------------------------------------------------- the command


def test_exit_code_output_and_words(home: Path) -> None:
    """The exit code is the command's, standard output is its own, and proxies are spoken of."""
    script = "echo out; echo $https_proxy $NO_PROXY; exit 7"
    done = hupan_run(home, "--", "sh", "-c", script, HTTPS_PROXY="http://me:secret@proxy.test:1")
    assert done.returncode == 7
    first, second = done.stdout.splitlines()
    assert first == "out"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ localhost,127\.0\.0\.1,::1", second)
    assert "HTTPS_PROXY: replaced for the command by the sandbox's own proxy" in done.stderr
    assert "secret" not in done.stderr
    assert "0 requests" in done.stderr
    assert "the command ended with 7" in done.stderr
    assert "may take no notice of the proxy variables" in done.stderr


def test_a_client_that_does_not_trust_is_guessed(home: Path) -> None:
    """A tunnel without a request in it: the summary says what that usually means."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed here")
    script = "CURL_CA_BUNDLE= SSL_CERT_FILE= curl -sS https://chat-go.jwzhd.com/; kill -9 $$"
    done = hupan_run(home, "sh", "-c", script)
    assert done.returncode == 128 + signal.SIGKILL
    assert "certificate" in done.stderr
    assert "the command may not trust the certificate" in done.stderr


HEARS = """
import os, signal, sys, time
def hear(number, _):
    # In one piece, since the next signal may come in the middle of this one.
    os.write(1, (signal.Signals(number).name + "\\n").encode())
    if number == signal.SIGTERM:
        sys.exit(5)
for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), hear)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@contextlib.contextmanager
def begun(home: Path, *words: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*HUPAN, "run", *words], env=surroundings(home), text=True, **more)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_signals_are_handed_on(home: Path) -> None:
    """Each arrives once; the sandbox outlives them and ends with the command."""
    pipe = subprocess.PIPE
    with begun(home, sys.executable, "-c", HEARS, stdout=pipe, stdin=subprocess.DEVNULL) as run:
        assert run.stdout is not None
        with run.stdout as told:
            assert told.readline() == "ready\n"
            for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
                run.send_signal(number)
                assert told.readline() == f"{number.name}\n"
            assert told.read() == ""
        assert run.wait(20) == 5


def test_ctrl_c_at_a_terminal_arrives_once(home: Path) -> None:
    """A terminal sends it to the command as well, so it must not be handed on besides."""
    controller, terminal = pty.openpty()
    with begun(
        home, sys.executable, "-c", HEARS,
        stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, preexec_fn=_own_terminal,
    ) as run:  # fmt: skip
        os.close(terminal)
        with os.fdopen(controller, "rb+", buffering=0) as keyboard:
            shown = b""

            def until(word: bytes) -> None:
                nonlocal shown
                while word not in shown:
                    shown += keyboard.read(1000)

            until(b"ready")
            keyboard.write(b"\x03")
            until(b"SIGINT")
            # Whatever was handed on before these two has arrived before them.
            run.send_signal(signal.SIGUSR1)
            until(b"SIGUSR1")
            run.send_signal(signal.SIGTERM)
            until(b"SIGTERM")
            # Closing the terminal before the end would be one signal more.
            assert run.wait(20) == 5
    assert re.findall(rb"SIG\w+", shown) == [b"SIGINT", b"SIGUSR1", b"SIGTERM"]


def _own_terminal() -> None:
    # The terminal has to be the controlling one, for its keys to be signals.
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def called(*words: str) -> Done:
    """The command line in this process."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        return hupan(*words)
    finally:
        # A command sends the log to its own standard error, which is over with it.
        root.handlers[:], root.level = before


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """Exit codes and words as shells have them."""
    told = called("run", "--", "no-such-command-here", "--flag")
    assert (told.exit_code, told.stderr) == (
        127, "hupan: no-such-command-here: there is no such command on the PATH\n"
    )  # fmt: skip
    told = called("run", str(tmp_path / "absent"))
    assert told.exit_code == 127
    assert "there is no such file" in told.stderr
    (tmp_path / "text").write_text("no program")
    told = called("run", str(tmp_path / "text"))
    assert told.exit_code == 126
    assert "cannot be executed" in told.stderr
    assert called("run").exit_code == 2


def test_a_port_that_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word names the port and the option; a listener that shares its port is seen too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    for option in ("--port", "--web-port", "--tls-port", "--proxy-port"):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            told = called("run", option, str(port), "true")
        assert told.exit_code == 1
        assert f"127.0.0.1:{port} cannot be listened on" in told.stderr
        assert f"choose another {option}" in told.stderr
    told = called("run", "--host", "10.255.255.1", "true")
    assert told.exit_code == 1
    assert "--host is an address of 127.0.0.0/8" in told.stderr


def test_production_has_none_of_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real data are no sandbox's, a sandbox's are no server's; each says why."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    real = tmp_path / "real"
    real.mkdir()
    (real / "hupan.db").touch()
    told = called("run", "--data", str(real), "true")
    assert told.exit_code == 1
    assert "holds the data of a real server" in told.stderr
    assert not (real / MARK).exists()
    stand_in = tmp_path / "stand-in"
    stand_in.mkdir()
    (stand_in / MARK).touch()
    with pytest.raises(SettingsError, match="holds a sandbox"):
        serve_for_real(Settings(data_dir=stand_in))


def test_the_hosts_page_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells where the certificate will be, without making one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    told = called("intercept", "hosts", "--address", "192.0.2.9")
    assert told.exit_code == 0
    for host in HOSTS:
        assert f"192.0.2.9  {host}" in told.stdout
    assert f"{tmp_path}/hupan/authority/ca.pem" in told.stdout
    assert "the next `hupan run` makes one" in told.stdout
    assert not list(tmp_path.iterdir())
    made = Authority(tmp_path / "hupan" / "authority")
    told = called("intercept", "hosts")
    assert f"{made.ends:%Y-%m-%d %H:%M}" in told.stdout
    seen = look(made.folder)
    assert seen is not None
    assert seen[1] in told.stdout


# ---------------------------------------------------------------- its environment


def described(folder: Path, **caller: str) -> tuple[dict[str, str], list[str], Ports]:
    ports = Ports.hold()
    ports.release()
    (folder / "run").mkdir()
    authority = Authority(folder / "authority")
    return *environment(ports, authority, folder / "run", caller), ports


def test_what_the_caller_had_is_kept_beside_ours(tmp_path: Path) -> None:
    """Options are added to, bundles are extended; only proxies are replaced."""
    own = tmp_path / "own.pem"
    own.write_text("# mine\n")
    ours, words, ports = described(
        tmp_path,
        NODE_OPTIONS="--no-deprecation", JAVA_TOOL_OPTIONS="-Dmine=1", PYTHONPATH="mine",
        REQUESTS_CA_BUNDLE=str(own), NODE_EXTRA_CA_CERTS=str(own), SSL_CERT_FILE="nowhere",
        NO_PROXY="*", all_proxy="socks5://proxy.test",
    )  # fmt: skip
    assert words == ["NO_PROXY, all_proxy: replaced for the command by the sandbox's own proxy"]
    assert ours["NO_PROXY"] == ours["no_proxy"] == "localhost,127.0.0.1,::1"
    assert {ours[name] for name in ("ALL_PROXY", "http_proxy", "HTTPS_PROXY")} == {
        f"http://127.0.0.1:{ports.proxy}"
    }
    assert ours["NODE_OPTIONS"].startswith("--no-deprecation --require ")
    assert ours["JAVA_TOOL_OPTIONS"].startswith("-Dmine=1 -Dhttps.proxyHost=127.0.0.1 ")
    assert ours["PYTHONPATH"].endswith(f"{os.pathsep}mine")
    ca_pem = (tmp_path / "authority" / "ca.pem").read_text()
    for name in ("REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert Path(ours[name]).read_text() == "# mine\n" + ca_pem
    assert Path(ours["CURL_CA_BUNDLE"]).read_text().endswith(ca_pem)
    assert ours["SSL_CERT_FILE"] == ours["CURL_CA_BUNDLE"]
    assert own.read_text() == "# mine\n"
    assert json.loads(ours["HUPAN_REDIRECT"])["targets"] == {
        f"{API_HOST}:443": ["127.0.0.1", ports.tls],
        f"{WEB_HOST}:443": ["127.0.0.1", ports.tls],
        f"{API_HOST}:80": ["127.0.0.1", ports.api],
        f"{WEB_HOST}:80": ["127.0.0.1", ports.web],
    }


def test_without_anything_that_writes_a_trust_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear word, and the command runs all the same."""
    monkeypatch.delattr(pkcs12, "serialize_java_truststore")
    monkeypatch.setenv("PATH", str(tmp_path))
    ours, words, _ = described(tmp_path)
    # It fails here, instead of succeeding in production.
    assert "trustStore" not in ours["JAVA_TOOL_OPTIONS"]
    assert "-Dhttps.proxyHost=127.0.0.1 " in ours["JAVA_TOOL_OPTIONS"]
    assert "-Djdk.net.hosts.file=" in ours["JAVA_TOOL_OPTIONS"]
    assert len(words) == 1
    assert "keytool on the PATH" in words[0]
    assert "Java programs will not trust the sandbox" in words[0]


def test_a_trust_store_by_keytool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older cryptography cannot write, keytool writes."""
    if not shutil.which("keytool"):
        pytest.skip("keytool is not installed here")
    monkeypatch.delattr(pkcs12, "serialize_java_truststore")
    authority = Authority(tmp_path)
    store = authority.truststore(tmp_path / "store.p12")
    found = pkcs12.load_pkcs12(store.read_bytes(), b"changeit").additional_certs
    assert [one.certificate for one in found] == x509.load_pem_x509_certificates(
        authority.ca_pem.read_bytes()
    )
    (tmp_path / "folder.p12").mkdir()
    with pytest.raises((NoTruststore, OSError)):
        authority.truststore(tmp_path / "folder.p12")


def test_the_summary_of_a_program_without_end() -> None:
    """It counts without end and takes bounded room; nothing in it moves a cursor."""
    summary = Summary()

    class Entry:
        method, code, implemented, warnings = "POST", 1, False, ()

        def __init__(self, number: int) -> None:
            self.path = f"/v1/\x1b[2J{number}"

    for number in range(1500):
        summary.note(Entry(number))  # type: ignore[arg-type]  # It has what is read of it.
    assert len(summary.foreign) == 1001
    lines = summary.lines(Proxy({}), 0)
    assert len(lines) < 30
    assert "1500 requests" in lines[0]
    assert not [line for line in lines if "\x1b" in line]


# ---------------------------------------------------------------- the authority


def certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def test_an_authority_is_good_for_one_domain_and_thirty_days(tmp_path: Path) -> None:
    """Name-constrained, 30 days, key 0600."""
    authority = Authority(tmp_path / "authority", now=lambda: NOW)
    (root,) = certificates(authority.ca_pem)
    cert_pem, key_pem = authority.certificate(HOSTS)
    leaf, issuer = certificates(cert_pem)
    for one in (root, issuer):
        names = one.extensions.get_extension_for_class(x509.NameConstraints)
        assert names.critical
        assert names.value.permitted_subtrees == [x509.DNSName("jwzhd.com")]
        assert len(names.value.excluded_subtrees or ()) == 2
    assert root.not_valid_after_utc == NOW + timedelta(days=DAYS) == authority.ends
    assert DAYS == 30
    assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc <= root.not_valid_after_utc
    assert root.not_valid_before_utc <= NOW
    names_of = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names_of.get_values_for_type(x509.DNSName)) == set(HOSTS)
    issuer.verify_directly_issued_by(root)
    leaf.verify_directly_issued_by(issuer)
    assert stat.S_IMODE(key_pem.stat().st_mode) == 0o600
    assert stat.S_IMODE((authority.folder / "authority.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    with pytest.raises(ValueError, match=r"www\.example\.com is not below jwzhd\.com"):
        authority.certificate([API_HOST, "www.example.com"])
    with pytest.raises(ValueError, match="not below"):
        authority.certificate(["notjwzhd.com"])


def test_the_key_of_the_root_is_nowhere(tmp_path: Path) -> None:
    """The one key that is kept belongs to the certificate that every verifier constrains."""
    authority = Authority(tmp_path)
    authority.certificate(HOSTS)
    (root,) = certificates(authority.ca_pem)
    keys = []
    for path in tmp_path.iterdir():
        if b"PRIVATE KEY" in path.read_bytes():
            keys.append(serialization.load_pem_private_key(path.read_bytes(), None).public_key())
    assert len(keys) == 2
    assert root.public_key() not in keys


def test_an_authority_is_used_again_while_it_is_good(tmp_path: Path) -> None:
    """29 days later it is made anew, with a word; before that it is the same, without one."""
    time = [NOW]
    first = Authority(tmp_path, now=lambda: time[0])
    assert first.note == ""
    made = first.ca_pem.read_bytes(), first.certificate(HOSTS)[0].read_bytes()
    time[0] += timedelta(days=28, hours=23)
    again = Authority(tmp_path, now=lambda: time[0])
    assert again.note == ""
    assert (again.ca_pem.read_bytes(), again.certificate(HOSTS)[0].read_bytes()) == made
    time[0] += timedelta(hours=1)
    last_day = Authority(tmp_path, now=lambda: time[0])
    assert "ends on 2026-04-01 04:00 UTC" in last_day.note
    time[0] += timedelta(days=31)
    expired = Authority(tmp_path, now=lambda: time[0])
    assert "expired on 2026-04-30" in expired.note
    assert "trust it where you trusted the old one" in expired.note
    assert expired.ends == time[0] + timedelta(days=DAYS)
    assert expired.ca_pem.read_bytes() != made[0]
    assert expired.certificate(HOSTS)[0].read_bytes() != made[1]
    # What the old one signed is gone with it.
    assert len(list(tmp_path.glob("host-*"))) == 2


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda folder: (folder / "authority.pem").write_text("?"), "could not be read"),
        (lambda folder: (folder / "authority.pem").chmod(0o644), "was open to others"),
        (lambda folder: (folder / "ca.pem").unlink(), "ca.pem was gone"),
    ],
)
def test_an_authority_that_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], None], word: str
) -> None:
    """It is made anew and says why; the next start is content."""
    Authority(tmp_path)
    spoil(tmp_path)
    assert look(tmp_path) is None
    made = Authority(tmp_path)
    assert word in made.note
    assert Authority(tmp_path).note == ""


@pytest.mark.parametrize("guarded", [True, False])
def test_starts_at_the_same_moment_share_one_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Eight at once make one; without the lock they make several (the mutant)."""
    if not guarded:
        monkeypatch.setattr(Authority, "_alone", lambda _: contextlib.nullcontext())
    gate, made, failed = threading.Barrier(8), [], []

    def start() -> None:
        gate.wait()
        try:
            authority = Authority(tmp_path)
            made.append((authority._kept.root, authority.certificate(HOSTS)[0].read_bytes()))
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(made)) == 1 and not failed) is guarded


def forged(authority: Authority, folder: Path, host: str) -> tuple[Path, Path]:
    """What a thief of the key on the disk would make for another host."""
    key = ec.generate_private_key(ec.SECP256R1())
    kept = authority._kept
    leaf = authorities._sign(
        key.public_key(),
        (kept.key, kept.issuer),
        ends=kept.issuer.not_valid_after_utc,
        now=datetime.now(UTC),
        usages=("digital_signature",),
        extensions=[
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName([x509.DNSName(host)]), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        ],
    )
    cert_pem, key_pem = folder / f"{host}.pem", folder / f"{host}.key"
    cert_pem.write_bytes(authorities._pem(leaf) + authorities._pem(kept.issuer))
    key_pem.write_bytes(authorities._key_bytes(key))
    return cert_pem, key_pem


def shake_hands(authority: Authority, files: tuple[Path, Path], host: str) -> None:
    """A handshake in memory, by a client as strict as Python's are from 3.13 on."""
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server_side.load_cert_chain(*files)
    client_side.load_verify_locations(authority.ca_pem)
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname=host)
    server = server_side.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for one in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
    assert client.version() == "TLSv1.3"


def test_a_stolen_key_is_good_for_no_other_host(tmp_path: Path) -> None:
    """OpenSSL: the real hosts are believed, another is a violation."""
    authority = Authority(tmp_path)
    files = authority.certificate(HOSTS)
    for host in HOSTS:
        shake_hands(authority, files, host)
    shake_hands(authority, forged(authority, tmp_path, "x.jwzhd.com"), "x.jwzhd.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake_hands(authority, forged(authority, tmp_path, "www.example.com"), "www.example.com")


JAVA_CHECK = """
import java.io.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.*;

class Check {
  public static void main(String[] files) throws Exception {
    var store = KeyStore.getInstance(new File(files[0]), "changeit".toCharArray());
    for (var file : Arrays.copyOfRange(files, 1, files.length)) {
      var factory = CertificateFactory.getInstance("X.509");
      var path = factory.generateCertPath(
          new ArrayList<>(factory.generateCertificates(new FileInputStream(file))));
      var settings = new PKIXParameters(store);
      settings.setRevocationEnabled(false);
      try {
        CertPathValidator.getInstance("PKIX").validate(path, settings);
        System.out.println("good");
      } catch (CertPathValidatorException error) {
        System.out.println(error.getReason());
      }
    }
  }
}
"""


def test_java_believes_it_for_no_other_host_either(tmp_path: Path) -> None:
    """Java applies no constraints of a root, which is why the root signs nothing but one issuer."""
    if not shutil.which("java"):
        pytest.skip("java is not installed here")
    authority = Authority(tmp_path)
    (tmp_path / "Check.java").write_text(JAVA_CHECK)
    files = [authority.truststore(tmp_path / "store.p12"), authority.certificate(HOSTS)[0]]
    files.append(forged(authority, tmp_path, "www.example.com")[0])
    told = subprocess.run(
        ["java", "Check.java", *map(str, files)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.stdout.split() == ["good", "INVALID_NAME"], told.stderr


# ---------------------------------------------------------------- the proxy


@contextlib.asynccontextmanager
async def opened(ways: dict[tuple[str, int], tuple[str, int]]) -> Any:
    proxy = Proxy(ways)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    await proxy.open(bound)
    try:
        yield proxy, bound.getsockname()[1]
    finally:
        await proxy.close()


async def ask(port: int, data: bytes) -> str:
    """Everything that comes back for these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


@contextlib.asynccontextmanager
async def listener(handle: Any) -> Any:
    """A listener of the sandbox that does what `handle` does."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back all that came, once everything is there."""
    writer.write(await reader.read())
    writer.close()


def test_what_the_proxy_refuses() -> None:
    """403 with the host and the reason, in the status line and in the body; counted."""

    async def main() -> None:
        async with opened({(API_HOST, 443): ("127.0.0.1", 1)}) as (proxy, port):
            for asked, status, why in (
                (b"CONNECT chat-ws-go.jwzhd.com:443", 403, "is another host of that service"),
                (b"CONNECT jwzhd.com:443", 403, "is another host of that service"),
                (b"CONNECT www.example.com:443", 403, "www.example.com is not the sandbox's"),
                (b"CONNECT [2001:db8::1]:443", 403, "[2001:db8::1] is not the sandbox's"),
                (b"CONNECT 127.0.0.1:22", 403, "127.0.0.1 is not the sandbox's"),
                (b"CONNECT chat-go.jwzhd.com:22", 403, "ports 80 and 443 only"),
                (b"CONNECT chat-go.jwzhd.com.example.com:443", 403, "is not the sandbox's"),
                (b"CONNECT notjwzhd.com:443", 403, "notjwzhd.com is not the sandbox's"),
                (b"GET http://me@www.example.com/x", 403, "www.example.com is not"),
                (b"GET http://chat-go.jwzhd.com@203.0.113.7/", 403, "203.0.113.7 is not"),
                (b"CONNECT chat-go.jwzhd.com:x", 400, "no host or no port"),
                (b"CONNECT :443", 400, "no host or no port"),
                (b"GET /v1/user/info", 400, "this is a proxy"),
                (b"GET ftp://chat-go.jwzhd.com/", 400, "this is a proxy"),
                (b"GET http://[/", 400, "cannot be read"),
                # The way is there and nobody listens at its end.
                (b"CONNECT CHAT-GO.jwzhd.com.", 502, "cannot be reached"),
            ):
                told = await ask(port, asked + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                first = told.splitlines()[0]
                assert first.startswith(f"HTTP/1.1 {status} hupan run: "), (asked, first)
                assert why in first, (asked, first)
                assert why in told.partition("\r\n\r\n")[2]
            assert proxy.refused["chat-ws-go.jwzhd.com:443"] == 1
            assert len(proxy.refused) == 10
            assert proxy.tunnels == 0

    asyncio.run(main())


def test_what_the_proxy_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Junk, endless heads and silence get an answer or an end, each within bounds."""
    monkeypatch.setattr(proxies, "PATIENCE", 0.2)

    async def main() -> None:
        async with opened({}) as (_, port):
            assert "400 hupan run: this port speaks" in await ask(port, b"\x16\x03\x01\r\n\r\n")
            assert "400 hupan run" in await ask(port, b"PRI * HTTP/2.0\r\n\r\n")
            assert "431 hupan run" in await ask(port, b"GET " + b"x" * 100_000)
            assert await ask(port, b"CONNECT half") == ""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(10):
                assert "408 hupan run" in (await reader.read()).decode()
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("target", ["http://chat-go.jwzhd.com", "https://chat-go.jwzhd.com:443"])
def test_addresses_in_full(target: str) -> None:
    """Requests without a tunnel; axios sends those for https addresses too."""

    async def main() -> None:
        async with (
            listener(repeat) as place,
            opened({(API_HOST, 80): place}) as (proxy, port),
        ):
            head = f"POST {target}/v1/user/info?a=b HTTP/1.1\r\nHost: chat-go.jwzhd.com\r\n"
            head += "Proxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\ntoken: t\r\n"
            told = await ask(port, (head + "Content-Length: 4\r\n\r\nbody").encode())
            assert told == (
                "POST /v1/user/info?a=b HTTP/1.1\r\nHost: chat-go.jwzhd.com\r\ntoken: t\r\n"
                "Content-Length: 4\r\nConnection: close\r\n\r\nbody"
            )
            assert proxy.tunnels == 1

    asyncio.run(main())


def test_a_tunnel_passes_every_byte_and_ends() -> None:
    """Both directions, more than any buffer; a client that has said everything gets its answer."""

    async def main() -> None:
        data = os.urandom(3_000_000)
        async with (
            listener(repeat) as place,
            opened({(API_HOST, 443): place}) as (proxy, port),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"CONNECT chat-go.jwzhd.com:443 HTTP/1.1\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(20):
                assert await reader.read() == data
            writer.close()
            # A client that is gone leaves nothing open behind it.
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"CONNECT chat-go.jwzhd.com:443 HTTP/1.1\r\n\r\n")
                await writer.drain()
                writer.transport.abort()
            async with asyncio.timeout(10):
                while proxy._open:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize("bounded", [True, False])
def test_connections_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch, bounded: bool) -> None:
    """The fourth of three is refused; without the bound it is not (the mutant)."""
    monkeypatch.setattr(proxies, "MOST", 3 if bounded else 10_000)

    async def main() -> None:
        async with opened({}) as (_, port):
            lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            told = await ask(port, b"CONNECT www.example.com:443 HTTP/1.1\r\n\r\n")
            assert (" 503 " in told) is bounded
            for _, writer in lines:
                writer.close()

    asyncio.run(main())


def test_names_that_are_made_up_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are counted by name; whoever asks for more is refused all the same."""
    monkeypatch.setattr(proxies, "NAMED", 5)

    async def main() -> None:
        async with opened({}) as (proxy, port):
            for number in range(8):
                told = await ask(port, b"CONNECT x%d.test:443 HTTP/1.1\r\n\r\n" % number)
                assert " 403 " in told
            assert len(proxy.refused) == 5

    asyncio.run(main())
