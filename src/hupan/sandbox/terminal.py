"""What a sandbox says in its terminal: where it listens, who there is, one line a request."""

from __future__ import annotations

import json
import re
import sys

from hupan.sandbox import magic, people
from hupan.sandbox.journal import Entry
from hupan.settings import Settings

__all__ = ["greet", "show"]

#: Longer than this, a decoded request is cut in the terminal; the journal has it whole.
WIDEST = 160
#: What a terminal would act on instead of showing it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def greet(settings: Settings) -> None:
    """Say where it listens and whom to log in as."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # It is compared, not listened on.
    host = f"[{host}]" if ":" in host else host
    api, web = (f"http://{host}:{port}" for port in (settings.port, settings.web_port))
    lines = [
        "",
        f"Hupan dev listens: API {api}  web {web}",
        f"  look around  {api}/__dev/",
        f"  codes        {api}/__dev/outbox?to=13800000001",
        f"  captchas     {api}/__dev/captchas",
        "",
        "  id       phone        e-mail              password     token",
    ]
    for one in people.everybody():
        lines.append(
            f"  {one.id}  {one.phone:<11}  {one.email:<18}  {one.password:<11}"
            f"  {one.token:<31}  {one.note}"
        )
    lines += [
        "",
        "  the first call:",
        f"  curl -H 'token: {people.everybody()[0].token}' -H 'Accept: application/json'"
        f" {api}/v1/user/info",
        "  of production, the API host is chat-go.jwzhd.com and the web host chat-web-go.jwzhd.com",
    ]
    lines += ["", "  numbers and addresses that always lead to one branch:"]
    lines += [f"  {one.phone}  {one.email:<24}  {one.note}" for one in magic.IDENTITIES]
    _say([*lines, ""])


def show(entry: Entry) -> None:
    """One request in one line, and a line for each thing that was odd about it."""
    said = json.dumps(entry.request.decoded, ensure_ascii=False) if entry.request.decoded else ""
    if len(said) > WIDEST:
        said = said[:WIDEST] + "…"
    outcome = entry.status if entry.code is None else entry.code
    reason = "" if entry.code == 1 else f" {entry.msg}"
    words = [entry.method, entry.path, said, "->", f"{outcome}{reason}", f" {entry.ms} ms"]
    words += [f" [{one}]" for one in (entry.fault, entry.identity) if one]
    lines = [" ".join(word for word in words if word)]
    _say(lines + [f"    ! {warning}" for warning in entry.warnings])


def _say(lines: list[str]) -> None:
    # What a client sent neither moves the cursor nor breaks a terminal of another encoding.
    safe = [_CONTROL.sub(lambda found: repr(found[0])[1:-1], line) for line in lines]
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(safe).encode(encoding, "backslashreplace").decode(encoding)
    print(text, flush=True)  # noqa: T201  # It is the terminal's part.
