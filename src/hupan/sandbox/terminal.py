"""What a sandbox says in its terminal: where it listens, who there is, one line a request."""

from __future__ import annotations

import json

from hupan.sandbox import magic, people
from hupan.sandbox.journal import Entry
from hupan.settings import Settings

__all__ = ["greet", "show"]

#: Longer than this, a decoded request is cut in the terminal; the journal has it whole.
WIDEST = 160


def greet(settings: Settings) -> None:
    """Say where it listens and whom to log in as."""
    api, web = (f"http://{settings.host}:{port}" for port in (settings.port, settings.web_port))
    lines = [
        "",
        f"Hupan dev listens: API {api}  web {web}",
        f"  look around  {api}/__dev/",
        f"  codes        {api}/__dev/outbox?to=13800000001",
        f"  captchas     {api}/__dev/captchas/ID",
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
    print("\n".join(lines), end="\n\n", flush=True)  # noqa: T201  # It is the terminal's part.


def show(entry: Entry) -> None:
    """One request in one line, and a line for each thing that was odd about it."""
    said = json.dumps(entry.request.decoded, ensure_ascii=False) if entry.request.decoded else ""
    outcome = entry.status if entry.code is None else entry.code
    fault = f"  [{entry.fault}]" if entry.fault else ""
    reason = "" if entry.code == 1 else f" {entry.msg}"
    lines = [f"{entry.method} {entry.path} {said[:WIDEST]} -> {outcome}{reason}"
             f"  {entry.ms} ms{fault}"]  # fmt: skip
    lines += [f"    ! {warning}" for warning in entry.warnings]
    print("\n".join(lines), flush=True)  # noqa: T201  # It is the terminal's part.
