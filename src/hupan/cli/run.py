"""`run` and `intercept`: how an unchanged client reaches a sandbox."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from hupan.cli.common import Parser, between, fail, read_moment, read_settings
from hupan.cli.server import sandbox_options

__all__ = ["register"]


def register(hupan: Parser) -> None:
    """Add the command and the group."""
    command = hupan.command(run, extra="sandbox")
    command.add_argument(
        # All that follows the first word of the command belongs to it, options too.
        "command", nargs=argparse.PARSER, metavar="COMMAND", help="What to run, and its words."
    )  # fmt: skip
    command.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
    for option, what in (
        ("--port", "the API host"),
        ("--web-port", "the web host"),
        ("--tls-port", "both with TLS"),
        ("--proxy-port", "the proxy"),
    ):
        command.add_argument(
            option,
            type=between(1, 65_535),
            metavar="PORT",
            help=f"Port of {what}; else a free one.",
        )
    sandbox_options(command)
    command.add_argument(
        "--verbose", "-v", action="store_true", help="Show people, addresses and every request."
    )
    hupan.group("intercept", "Other ways for a client to reach a sandbox.", _ways)


def _ways(intercept: Parser) -> None:
    command = intercept.command(hosts, extra="sandbox")
    command.add_argument(
        "--address", default="127.0.0.1", help="This machine, as the client sees it."
    )


def run(
    *,
    command: list[str],
    host: str,
    port: int | None,
    web_port: int | None,
    tls_port: int | None,
    proxy_port: int | None,
    data: Path | None,
    limits: bool,
    seed: str,
    freeze: str | None,
    verbose: bool,
) -> int:
    """Run a command whose production addresses lead to a sandbox of its own."""
    import asyncio

    from hupan.sandbox import terminal
    from hupan.sandbox.authority import Authority
    from hupan.sandbox.clock import SandboxClock
    from hupan.sandbox.routes import routes
    from hupan.sandbox.run import Ports, reason_against
    from hupan.sandbox.run import run as run_beside
    from hupan.sandbox.stand import Stand
    from hupan.server import logs
    from hupan.settings import SettingsError

    if command[0] == "--":
        del command[0]
    code, reason = reason_against(command)
    if reason:
        fail(reason, code)
    with (
        tempfile.TemporaryDirectory(prefix="hupan-run-") as folder,
        # Standard output belongs to the command.
        contextlib.redirect_stdout(sys.stderr),
        contextlib.ExitStack() as stack,
    ):
        try:
            ports = Ports.hold(host, api=port, web=web_port, tls=tls_port, proxy=proxy_port)
            stack.callback(ports.release)
            settings = read_settings(
                host=ports.host,
                port=ports.api,
                web_port=ports.web,
                data_dir=data or Path(folder) / "data",
                limit_sources=limits,
                log_format="console",
                log_level="warning",
                # Whatever the surroundings say, a sandbox keeps its own data and calls nobody.
                database_url="",
                deliver_sms=["console", "file"],
                deliver_email=["console", "file"],
                workers=1,
            )
            logs.configure(settings)
            clock = SandboxClock()
            if freeze is not None:
                clock.freeze(read_moment(freeze, settings))
            authority = Authority(_folder())
            stand = Stand(settings, seed=seed, clock=clock)
        except SettingsError as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename or 'a folder'} cannot be used: {error.strerror}")
        stand.open(routes(stand))
        if verbose:
            terminal.greet(settings)
            stand.listeners.append(terminal.show)
        running = run_beside(stand, ports, authority, command, folder=Path(folder), say=_say)
        return asyncio.run(running)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _folder() -> Path:
    from hupan.client.tokens import default_folder

    return default_folder() / "authority"


def hosts(*, address: str) -> None:
    """Tell what to put into a hosts file, what to trust, where to point devices; change nothing."""
    from hupan.sandbox.authority import DAYS, look
    from hupan.sandbox.proxy import DOMAIN, HOSTS

    found = look(_folder())
    state = (
        f"good until   {found[0]:%Y-%m-%d %H:%M} UTC\n  fingerprint  {found[1]}"
        if found
        else f"state        not there, or over: the next `hupan run` makes one for {DAYS} days"
    )
    lines = "\n".join(f"     {address}  {name}" for name in HOSTS)
    file = _folder() / "ca.pem"
    print(_HOSTS.format(file=file, domain=DOMAIN, state=state, lines=lines, address=address))


_HOSTS = """\
This command changes nothing; it tells what you may change, and how to take it back.
A command on this machine needs none of it: hupan run COMMAND

The certificate, good for {domain} and the names below it only
  file         {file}
  {state}

1. By the hosts file: every program of a machine
   Add these lines to /etc/hosts, and remove them afterwards
   (on Windows the file is C:\\Windows\\System32\\drivers\\etc\\hosts):
{lines}
   Start on the ports that the addresses mean; most systems want root for them:
     hupan run --port 80 --tls-port 443 sh
   Then trust the certificate, see 3.

2. By the proxy: devices, emulators, browsers
   Start it on a port you choose; it lasts until you leave the shell:
     hupan run --proxy-port 8888 sh
   Browsers and simulators here: {address}:8888 as the HTTP and HTTPS proxy
   Android's emulator:           emulator -avd NAME -http-proxy http://{address}:8888
   An Android device on a cable:
     adb reverse tcp:8888 tcp:8888
     adb shell settings put global http_proxy 127.0.0.1:8888
     adb shell settings put global http_proxy :0      (takes it back)
   A device in the network, with the address of this machine; whoever reaches it may
   read codes there:
     hupan run --host 0.0.0.0 --proxy-port 8888 sh
   Then trust the certificate, see 3.

3. Trust the certificate where the client looks for it
   Debian, Ubuntu:
     sudo cp {file} /usr/local/share/ca-certificates/hupan-sandbox.crt
     sudo update-ca-certificates
     sudo rm /usr/local/share/ca-certificates/hupan-sandbox.crt      (takes it back)
     sudo update-ca-certificates --fresh
   macOS:
     security add-trusted-cert -k ~/Library/Keychains/login.keychain-db {file}
     security remove-trusted-cert {file}      (takes it back)
   Windows:
     certutil -user -addstore Root {file}
     certutil -user -delstore Root "Hupan sandbox"      (takes it back)
   A Java program, by -Djavax.net.ssl.trustStore=trust.p12:
     keytool -importcert -noprompt -alias hupan -file {file} \\
       -keystore trust.p12 -storetype PKCS12 -storepass changeit
   Android and iOS: copy the file over and install it in the settings for security. An
   Android app trusts it only where the app's own network settings say so.

Other hosts of the service are answered by nobody here: the proxy refuses them."""
