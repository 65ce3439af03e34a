"""Sends connections to some hosts to addresses on this machine, inside one Python process.

    install({"chat-go.jwzhd.com:443": ("127.0.0.1", 40123)})

Looking up such a host answers an address of 127.83.0.0/16 that belongs to it alone, and connecting
to that address leads to the place that was given. The client keeps the real name for TLS and for
its `Host` header. Answering the look-up alone would not do: a client that resolves first and
connects later, as those on anyio do, keeps the real port.

Other hosts of the same service are refused, so that nothing reaches them by accident. Everything
else is left alone.

The file needs the standard library only. Copied as `sitecustomize.py` into a folder that stands in
`PYTHONPATH`, it installs itself in every Python that starts, as `HUPAN_REDIRECT` says: the targets
as a JSON object, or `{"targets": …, "refuse": […], "ca": "…"}`. A value that cannot be used ends
that Python, because going on would mean going to the real hosts.

What brings sockets of its own, such as libcurl, is not reached.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from typing import Any

    Place = tuple[str, int]

__all__ = ["REFUSE", "VARIABLE", "install", "installed", "trust", "uninstall"]

#: The service whose other hosts are refused: with a dot in front, everything below a name.
REFUSE = (".jwzhd.com", "jwzhd.com")
#: What the file reads when it is a `sitecustomize`.
VARIABLE = "HUPAN_REDIRECT"
#: Marks a context of ours, so that it is not replaced once more.
_OURS = "_hupan"


class _Redirect:
    """Which host leads where, and what was patched to make it so."""

    def __init__(self, targets: Mapping[str, Place], refuse: Iterable[str]) -> None:
        self.places: dict[Place, Place] = {}
        self.markers: dict[str, str] = {}
        self.refuse = tuple(one.lower() for one in refuse)
        self.patched: list[tuple[Any, str, Any]] = []
        self.waiting: dict[str, Callable[[ModuleType], None]] = {}
        for key, (address, port) in targets.items():
            host, _, number = key.rpartition(":")
            host = _plain(host)
            if not host or not number.isdigit():
                raise ValueError(f"{key!r} is no host and port, such as chat-go.jwzhd.com:443")
            if not _is_here(address) or not 0 < int(port) < 65_536:
                raise ValueError(
                    f"{key} leads to {address}:{port}, which is no IPv4 address of this machine"
                )
            self.places[host, int(number)] = (address, int(port))
            place = len(self.markers)
            self.markers.setdefault(host, f"127.83.{place // 250}.{place % 250 + 1}")
        self.hosts = {marker: host for host, marker in self.markers.items()}

    def refused(self, host: str) -> bool:
        """Whether a host is one of the service's that must not be reached."""
        return any(
            host.endswith(one) if one.startswith(".") else host == one for one in self.refuse
        )

    def error(self, host: str, port: object = None) -> OSError:
        """What a client of a refused host gets. It has a number, which clients show or need."""
        where = host if port in (None, 0, "") else f"{host}:{port}"
        here = ", ".join(f"{name}:{number}" for name, number in sorted(self.places)) or "nothing"
        return OSError(
            errno.EHOSTUNREACH,
            f"{where} belongs to the real service, which nothing may reach from here;"
            f" answered on this machine: {here}",
        )

    def marker(self, host: object, port: object = None) -> str | None:
        """The address to answer for a host; None where the host is none of ours.

        Raises:
            OSError: the host, or this port of it, must not be reached.
        """
        name = _plain(host)
        if name not in self.markers:
            if self.refused(name):
                raise self.error(name, port)
            return None
        number = _number(port)
        if number and (name, number) not in self.places:
            if self.refused(name):
                raise self.error(name, port)
            return None
        return self.markers[name]

    def place(self, host: object, port: object) -> Place | None:
        """Where to connect instead of to a host or to an answered address.

        Raises:
            OSError: as `marker`.
        """
        name = _plain(host)
        name = self.hosts.get(name, name)
        if name not in self.markers and not self.refused(name):
            return None
        found = self.places.get((name, _number(port)))
        if found is None and (self.refused(name) or _plain(host) in self.hosts):
            raise self.error(name, port)
        return found

    def patch(self, owner: Any, name: str, new: Any) -> None:
        """Put something in the place of an attribute until `undo`."""
        absent = name not in vars(owner)
        self.patched.append((owner, name, self if absent else vars(owner)[name]))
        setattr(owner, name, new)

    def when_imported(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        """Patch a module now, or as soon as somebody imports it."""
        if name in sys.modules:
            patch(sys.modules[name])
        else:
            self.waiting[name] = patch

    def undo(self) -> None:
        """Leave everything as it was."""
        self.waiting.clear()
        while self.patched:
            owner, name, old = self.patched.pop()
            if old is self:
                delattr(owner, name)
            else:
                setattr(owner, name, old)


def _plain(host: object) -> str:
    """A host as it is compared; empty for what is no name."""
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("latin-1")
    return host.rstrip(".").lower() if isinstance(host, str) else ""


def _is_here(address: str) -> bool:
    """Whether packets to an address stay on this machine."""
    try:
        socket.inet_pton(socket.AF_INET, address)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _number(port: object) -> int:
    """A port as a number; 0 for none, -1 for one that nobody knows."""
    if isinstance(port, bytes):
        port = port.decode("latin-1")
    if port is None or port == "":
        return 0
    try:
        return int(port)  # type: ignore[call-overload, no-any-return]  # Else it raises.
    except (TypeError, ValueError):
        pass
    try:
        return socket.getservbyname(str(port), "tcp")
    except OSError:
        return -1


# ---------------------------------------------------------------- imported later


class _Watch:
    """Sees modules being imported, and patches those that wait for it."""

    def __init__(self, redirect: _Redirect) -> None:
        self.redirect = redirect

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.redirect.waiting:
            return None
        for finder in list(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None and spec.loader is not None:
                spec.loader = _Patching(spec.loader, self.redirect)
                return spec
        return None


class _Patching:
    """The loader of a module, followed by its patch."""

    def __init__(self, loader: Any, redirect: _Redirect) -> None:
        self.loader = loader
        self.redirect = redirect

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is an ordinary one, with its resources and its source.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        patch = self.redirect.waiting.pop(module.__name__, None)
        if patch is not None:
            patch(module)


# ---------------------------------------------------------------- what is patched


def _patch_socket(redirect: _Redirect) -> None:
    look_up, by_name, by_name_ex = socket.getaddrinfo, socket.gethostbyname, socket.gethostbyname_ex
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return look_up(host, port, family, type, proto, flags)
        marker = redirect.marker(host, port)
        if marker is not None:
            # A machine without a network counts as having no IPv4 when this is asked.
            flags &= ~socket.AI_ADDRCONFIG
        return look_up(marker or host, port, family, type, proto, flags)

    def gethostbyname(hostname: Any) -> Any:
        return by_name(redirect.marker(hostname) or hostname)

    def gethostbyname_ex(hostname: Any) -> Any:
        return by_name_ex(redirect.marker(hostname) or hostname)

    def routed(address: Any) -> Any:
        if not isinstance(address, tuple) or len(address) < 2:
            return address
        return redirect.place(address[0], address[1]) or address

    def to(self: Any, address: Any) -> Any:
        return connect(self, routed(address))

    def to_ex(self: Any, address: Any) -> Any:
        return connect_ex(self, routed(address))

    for name, new in (
        ("getaddrinfo", getaddrinfo),
        ("gethostbyname", gethostbyname),
        ("gethostbyname_ex", gethostbyname_ex),
    ):
        redirect.patch(socket, name, new)
    redirect.patch(socket.socket, "connect", to)
    redirect.patch(socket.socket, "connect_ex", to_ex)


def _patch_uvloop(redirect: _Redirect, module: Any) -> None:
    """uvloop resolves and connects in C; its class is open to methods of ours, though."""
    loop_class = module.Loop
    look_up, connect = loop_class.getaddrinfo, loop_class.create_connection

    async def getaddrinfo(self: Any, host: Any, port: Any, **more: Any) -> Any:
        if redirect.marker(host, port) is None:
            return await look_up(self, host, port, **more)
        return socket.getaddrinfo(host, port, **more)

    async def create_connection(
        self: Any, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any
    ) -> Any:
        place = redirect.place(host, port) if host is not None else None
        if place is not None:
            if more.get("ssl") and more.get("server_hostname") is None:
                more["server_hostname"] = host
            host, port = place
        return await connect(self, protocol_factory, host, port, **more)

    redirect.patch(loop_class, "getaddrinfo", getaddrinfo)
    redirect.patch(loop_class, "create_connection", create_connection)


def _patch_aiohttp(redirect: _Redirect, module: Any) -> None:
    """With aiodns installed, aiohttp asks name servers itself."""
    resolve = module.AsyncResolver.resolve

    async def through_here(
        self: Any, host: str, port: int = 0, family: Any = socket.AF_INET
    ) -> Any:
        if redirect.marker(host, port) is None:
            return await resolve(self, host, port, family)
        return await module.ThreadedResolver().resolve(host, port, family)

    redirect.patch(module.AsyncResolver, "resolve", through_here)


# ---------------------------------------------------------------- the words

_now: _Redirect | None = None
_watch: _Watch | None = None


def install(targets: Mapping[str, Place], refuse: Iterable[str] = REFUSE) -> None:
    """Redirect from now on, in this process.

    Args:
        targets: `{"host:port": (address, port)}`; the addresses are of 127.0.0.0/8, or otherwise
            IPv4 addresses of this machine.
        refuse: hosts that raise an OSError, unless they are targets; `.name` for all below a name.

    Raises:
        ValueError: a target makes no sense.
        RuntimeError: it is installed already.
    """
    global _now, _watch
    if _now is not None:
        raise RuntimeError("hosts are redirected already in this process; call uninstall() first")
    redirect = _Redirect(targets, refuse)
    _now, _watch = redirect, _Watch(redirect)
    sys.meta_path.insert(0, _watch)
    _patch_socket(redirect)
    redirect.when_imported("uvloop", lambda module: _patch_uvloop(redirect, module))
    redirect.when_imported("aiohttp.resolver", lambda module: _patch_aiohttp(redirect, module))


def uninstall() -> None:
    """Stop redirecting and trusting; does nothing where nothing is installed."""
    global _now, _watch
    if _now is None:
        return
    if _watch in sys.meta_path:
        sys.meta_path.remove(_watch)
    _now.undo()
    _now = _watch = None


def installed() -> bool:
    """Whether this module redirects just now."""
    return _now is not None


def trust(ca: str) -> None:
    """Trust a certificate authority for the redirected hosts, until `uninstall`.

    Whatever a client would check these hosts against, this file of PEM is used instead: bundles of
    certifi and the system's store stay as they are, and contexts made long before work too. A
    client that checks nothing goes on doing so.

    Raises:
        RuntimeError: nothing is redirected.
        OSError: the file cannot be read.
    """
    redirect = _now
    if redirect is None:
        raise RuntimeError("nothing is redirected; call install() first")
    with open(ca, encoding="ascii") as file:  # noqa: PTH123  # Older Pythons start faster so.
        pem = file.read()

    def ours(context: Any, server_side: bool, host: Any) -> ssl.SSLContext | None:
        if server_side or not context.verify_mode or _plain(host) not in redirect.markers:
            return None
        if vars(context).get(_OURS):
            return None
        import ssl

        # The standard class, even where truststore stands in its place.
        standard = [of for of in ssl.SSLContext.__mro__ if "wrap_socket" in vars(of)][-1]
        made: ssl.SSLContext = standard(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = context.check_hostname
        made.load_verify_locations(cadata=pem)
        vars(made)[_OURS] = True
        return made

    def patch(of: Any) -> None:
        over_socket, over_memory = of.wrap_socket, of.wrap_bio

        def wrap_socket(
            self: Any,
            sock: Any,
            server_side: bool = False,
            do_handshake_on_connect: bool = True,
            suppress_ragged_eofs: bool = True,
            server_hostname: Any = None,
            session: Any = None,
        ) -> Any:
            made = ours(self, server_side, server_hostname)
            if made is not None:
                # A session belongs to the context that it was made with.
                return made.wrap_socket(
                    sock,
                    do_handshake_on_connect=do_handshake_on_connect,
                    suppress_ragged_eofs=suppress_ragged_eofs,
                    server_hostname=server_hostname,
                )
            return over_socket(
                self,
                sock,
                server_side,
                do_handshake_on_connect,
                suppress_ragged_eofs,
                server_hostname,
                session,
            )

        def wrap_bio(
            self: Any,
            incoming: Any,
            outgoing: Any,
            server_side: bool = False,
            server_hostname: Any = None,
            session: Any = None,
        ) -> Any:
            made = ours(self, server_side, server_hostname)
            if made is not None:
                return made.wrap_bio(incoming, outgoing, server_hostname=server_hostname)
            return over_memory(self, incoming, outgoing, server_side, server_hostname, session)

        redirect.patch(of, "wrap_socket", wrap_socket)
        redirect.patch(of, "wrap_bio", wrap_bio)

    done: set[Any] = set()

    def patch_all(module: Any) -> None:
        # truststore has a class of its own over the standard one, and may stand in its place.
        for of in module.SSLContext.__mro__:
            if "wrap_socket" in vars(of) and of not in done:
                done.add(of)
                patch(of)

    redirect.when_imported("ssl", patch_all)
    redirect.when_imported("truststore", patch_all)


# ---------------------------------------------------------------- as sitecustomize


def _from_environment(text: str) -> None:
    """Install what the variable says.

    Raises:
        Exception: it cannot be used.
    """
    import json

    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    whole: dict[str, Any] = said if isinstance(said.get("targets"), dict) else {"targets": said}
    targets = {key: (address, port) for key, (address, port) in whole["targets"].items()}
    install(targets, tuple(whole.get("refuse", REFUSE)))
    if whole.get("ca"):
        trust(whole["ca"])


def _run_the_next() -> None:
    """Run the `sitecustomize` that this one stands in front of, if there is one."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # As above.
    rest = [path for path in sys.path if os.path.abspath(path) != here]  # noqa: PTH100
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if __name__ == "sitecustomize":
    if os.environ.get(VARIABLE):
        try:
            _from_environment(os.environ[VARIABLE])
        except Exception as error:
            sys.stderr.write(f"hupan: {VARIABLE} cannot be used: {error}\n")
            sys.stderr.flush()
            os._exit(2)
    _run_the_next()
