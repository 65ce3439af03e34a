"""The pages, in a real browser: `/__dev/` of a sandbox, and the one-time links of every server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hupan.client import Client
from hupan.sandbox.faults import Fault
from hupan.sandbox.people import everybody
from tests.house import start_processes
from tests.test_stand import Dev, running, start_dev

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ONE = everybody()[0]
JSON = {"accept": "application/json"}
INFO, RENAME = "/v1/user/info", "/v1/user/edit-nickname"
#: How long a person would wait for the page to follow, in milliseconds; machines may be busy.
PATIENCE = 20_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the pages are tested in Chromium: apt-get install chromium"
)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    one = start_dev(tmp_path_factory.mktemp("dev"), "--freeze", "2026-03-02 12:00")
    with running(one):
        yield one


@pytest.fixture
def api(dev: Dev) -> Iterator[httpx2.Client]:
    """A client of the sandbox, which was reset."""
    with httpx2.Client(base_url=dev.url, timeout=20) as client:
        client.post("/__dev/reset").raise_for_status()
        for name in client.get("/__dev/snapshots").json()["snapshots"][1:]:
            client.post("/__dev/snapshots", json={"forget": name}).raise_for_status()
        yield client


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open an address; what the console says about it fails the test."""
    complaints: list[str] = []
    opened = []

    def note(said: Any) -> None:
        # A look-up that was refused is told on the page; the browser repeats it here.
        if said.type in ("error", "warning") and "status of 400" not in said.text:
            complaints.append(said.text)

    def go(url: str, locale: str = "en-US", theme: Any = "light", width: int = 1400) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, locale=locale
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        opened.append(context)
        return page

    yield go
    for context in opened:
        context.close()
    assert complaints == []


def traffic(api: httpx2.Client) -> None:
    """What a client under test does: good calls, odd ones, and some that are not ours."""
    token = {"token": ONE.token}
    api.get(INFO, headers=token)
    captcha = api.post("/v1/user/captcha").json()["data"]["id"]
    solution = api.get(f"/__dev/captchas/{captcha}").json()["solution"]
    said = {"mobile": ONE.phone, "id": captcha, "code": solution}
    api.post("/v1/verification/get-verification-code", json=said)
    code = api.get(f"/__dev/outbox/wait?to={ONE.phone}").json()["messages"][0]["code"]
    login = {"mobile": ONE.phone, "captcha": code, "deviceId": "d" * 300, "extra": 1}
    api.post("/v1/user/verification-login", json=login)
    api.post(RENAME, content=b"\x1a\x04Lake\x38\x01", headers=token)
    api.post("/v1/user/recommend-list", json={"category": ""}, headers=token)
    api.post("/v1/user/verification-login", json={"mobile": "19900000004", "captcha": "1"})
    api.post("/v1/msg/send-message", json={"text": "x" * 400})
    api.get("/v1/user/clients")
    for fault in (
        {"match": "/v1/user/medal", "fault": "truncate", "times": 1},
        {"match": "/v1/user/*", "fault": "delay", "seconds": 0.1, "probability": 0.5},
        {"match": "/v1/a/very/long/path/that/nobody/has/and/nobody/would/type", "fault": "drop"},
    ):
        api.post("/__dev/faults", json=fault).raise_for_status()
    api.post("/__dev/snapshots", json={"save": "a name of sixty letters " * 2 + "x" * 12})


def request_of(page: Page, path: str) -> Any:
    return page.locator("#requests button").filter(has_text=path).first


# ---------------------------------------------------------------- how it looks

#: What sticks out of the window, unless it is inside of something that scrolls.
_STICKING_OUT = """() => {
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || (box.right <= innerWidth + 0.5 && box.left >= -0.5)) continue;
    if (one.closest(".scroll, pre")) continue;
    found.push(`${one.tagName} ${one.id} ${one.className} ${Math.round(box.right)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
  for (const one of document.querySelectorAll("section, button, .both > pre")) {
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "auto") {
      found.push(`${one.tagName} ${one.id} is wider inside than outside`);
    }
  }
  return found;
}"""

#: Text whose contrast is below what WCAG 2.2 AA asks of normal text.
_FAINT = """() => {
  const parts = (color) => {
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (parts(color)[3] === 255) return color;
    }
    // What the browser paints by itself, which follows the theme.
    const plain = document.createElement("i");
    plain.style.backgroundColor = "Canvas";
    document.documentElement.append(plain);
    const color = getComputedStyle(plain).backgroundColor;
    plain.remove();
    return color;
  };
  const found = new Set();
  for (const one of document.querySelectorAll("body *")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!one.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.add(`${one.tagName}.${one.className} ${ratio.toFixed(2)}`);
  }
  return [...found];
}"""

#: What a person who does not see the page, or has no mouse, could not use.
_NAMELESS = """() => {
  const found = [];
  for (const one of document.querySelectorAll("button, input, select, a, [role=region]")) {
    if (!one.getClientRects().length) continue;
    const labelled = (one.getAttribute("aria-labelledby") ?? "").split(" ")
      .map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const name = one.getAttribute("aria-label") || labelled
      || [...(one.labels ?? [])].map((label) => label.textContent).join("") || one.textContent;
    if (!name.trim()) found.push(`${one.tagName} ${one.id} has no name`);
  }
  for (const one of document.querySelectorAll(".scroll, pre")) {
    if (one.getClientRects().length && one.tabIndex < 0) found.push(`${one.id} takes no focus`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) found.push("an id is there twice");
  for (const one of document.querySelectorAll("[data-say]")) {
    if (!one.textContent.trim()) found.push(`${one.dataset.say} is not said`);
  }
  return found;
}"""


@pytest.mark.parametrize(
    ("locale", "theme", "width"),
    [
        ("zh-CN", "light", 400),
        ("en-US", "dark", 400),
        ("zh-CN", "dark", 1400),
        ("en-US", "light", 1400),
    ],
)
def test_the_page_in_every_size_theme_and_language(
    dev: Dev, api: httpx2.Client, open_page: Open, locale: str, theme: str, width: int
) -> None:
    traffic(api)
    page = open_page(f"{dev.url}/__dev/", locale, theme, width)
    request_of(page, RENAME).click()
    expect(page.locator("#detail .hex").first).to_have_text("1a 04 4c 61 6b 65 38 01")
    page.locator("#detail button").first.click()
    expect(page.locator("#copy")).to_be_visible()
    assert page.evaluate(_STICKING_OUT) == []
    assert page.evaluate(_FAINT) == []
    assert page.evaluate(_NAMELESS) == []
    assert page.locator("html").get_attribute("lang") == locale.replace("en-US", "en")
    assert page.title() == ("Hupan 沙箱" if locale == "zh-CN" else "Hupan sandbox")
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (theme == "light")
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/dev-{width}-{theme}-{locale}.png", full_page=True)


def test_an_untouched_sandbox_says_what_to_do(
    dev: Dev, api: httpx2.Client, open_page: Open
) -> None:
    page = open_page(f"{dev.url}/__dev/", width=400)
    expect(page.locator("#detail")).to_contain_text("Point a client at this address")
    expect(page.locator("#outbox")).to_have_text("Nothing was sent yet.")
    expect(page.locator("#captchas")).to_have_text("No captcha was asked for yet.")
    expect(page.locator("#faults")).to_have_text("No faults.")
    assert page.evaluate(_STICKING_OUT) == []
    # What a browser asks for beside the page is not taken for a client.
    assert api.get("/__dev/requests").json()["unimplemented"] == []


def test_the_policy_of_the_page_is_strict(dev: Dev, api: httpx2.Client, browser: Browser) -> None:
    for path in ("", "page.js", "page.css", "icon.svg"):
        answer = api.get(f"/__dev/{path}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.get("/__dev").headers["location"] == "/__dev/"
    page = browser.new_page()
    page.goto(f"{dev.url}/__dev/")
    # Neither a script nor a style in the page itself is run, nor is markup made from text.
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          try { script.textContent = "window.ran = 1"; } catch { window.typed = 1; }
          document.body.append(script);
          document.body.setAttribute("style", "color: red");
          try { document.body.innerHTML = "<b>x</b>"; } catch { window.refused = 1; }
        }"""
    )
    assert page.evaluate("[window.ran, window.refused]") == [None, 1]
    assert page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    page.close()


# ---------------------------------------------------------------- what it shows


def test_requests_show_up_decoded_beside_their_hex(
    dev: Dev, api: httpx2.Client, open_page: Open
) -> None:
    page = open_page(f"{dev.url}/__dev/")
    expect(page.locator("#detail")).to_contain_text("No request yet")
    traffic(api)
    expect(page.locator("#requests button")).to_have_count(9)
    expect(page.locator("#unimplemented")).to_contain_text("/v1/msg/send-message ×1")
    rename = request_of(page, RENAME)
    expect(rename).to_contain_text("⚠ unknown field 7")
    rename.click()
    expect(rename).to_have_attribute("aria-pressed", "true")
    detail = page.locator("#detail")
    request, answer = detail.locator(".both").all()
    assert request.locator("pre").all_inner_texts() == [
        '{\n  "name": "Lake"\n}',
        "1a 04 4c 61 6b 65 38 01",
    ]
    decoded, spaced = answer.locator("pre").all_inner_texts()
    assert '"msg": "success"' in decoded
    assert bytes.fromhex(spaced.replace(" ", "")).endswith(b"success")
    expect(detail).to_contain_text("Warnings: unknown field 7")
    expect(detail).to_contain_text("Changed: update account")
    expect(detail).to_contain_text(f"token {ONE.token}")
    expect(request_of(page, "verification-login")).to_contain_text("[banned]")
    # The copies are what programs get, too.
    (entry,) = api.get("/__dev/requests", params={"path": RENAME}).json()["requests"]
    for name, kind in (("curl", "curl"), ("SDK", "sdk"), ("pytest", "pytest")):
        detail.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("#copy")).to_have_text(entry["copy"][kind])
        assert page.evaluate("navigator.clipboard.readText()") == entry["copy"][kind]
        expect(page.locator("#status")).to_have_text("Copied")
    # JSON that cannot be read is said to be so, beside its bytes.
    api.post("/v1/user/email-login", content=b'{"email": "a')
    request_of(page, "email-login").click()
    expect(detail.locator("pre").first).to_have_text("cannot be decoded")
    page.locator("#filter").fill("send-mess")
    expect(page.locator("#requests button")).to_have_count(1)
    page.locator("#filter").fill("")
    page.locator("#clear").click()
    expect(page.locator("#requests button")).to_have_count(0)
    assert api.get("/__dev/requests").json()["requests"] == []


def test_what_a_client_sends_is_never_markup(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(f"{dev.url}/__dev/")
    evil = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"
    api.post(RENAME, json={"name": evil, evil: 1}, headers={"token": "<b>t</b>"})
    api.get("/v1/<svg onload=window.ran=1>")
    api.post("/__dev/snapshots", json={"save": "<b onclick=window.ran=1>x</b>"})
    api.post("/__dev/faults", json={"match": "<i>", "fault": "refusal", "msg": evil})
    expect(page.locator("#requests button")).to_have_count(2)
    request_of(page, RENAME).click()
    expect(page.locator("#detail pre").first).to_contain_text(evil)
    expect(page.locator("#unimplemented")).to_contain_text("<svg onload")
    expect(page.locator("#snapshots")).to_contain_text("<b onclick")
    expect(page.locator("#faults")).to_contain_text(evil)
    assert page.locator("img, svg, main script, main i").count() == 0
    assert page.evaluate("window.ran") is None


def test_the_outbox_and_captchas_show_up(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(f"{dev.url}/__dev/", locale="zh-CN")
    expect(page.locator("#outbox")).to_have_text("还没有消息。")
    traffic(api)
    (letter,) = api.get("/__dev/outbox").json()["messages"]
    expect(page.locator("#outbox .codeword")).to_have_text(letter["code"])
    expect(page.locator("#outbox")).to_contain_text(letter["text"])
    (captcha,) = api.get("/__dev/captchas").json()["captchas"]
    expect(page.locator("#captchas .codeword")).to_have_text(captcha["solution"])
    api.post("/__dev/clock", json={"advance": 300})
    expect(page.locator("#outbox")).to_contain_text("已过期")


def test_people_are_shown_with_credentials_that_work(
    dev: Dev, api: httpx2.Client, open_page: Open
) -> None:
    page = open_page(f"{dev.url}/__dev/")
    rows = page.locator("#people tr")
    expect(rows).to_have_count(20)
    second = rows.nth(1)
    account, phone, email, password = second.locator("td").all_inner_texts()[:4]
    assert (account, phone) == ("7000002", "13800000002")
    with Client(dev.url) as client:
        assert client.login_with_password(email, password)
    page.get_by_role("button", name="Copy Token 7000002").click()
    token = page.evaluate("navigator.clipboard.readText()")
    with Client(dev.url, token=token) as client:
        assert client.info().is_vip == 1
    expect(page.locator("#magic tr")).to_have_count(5)
    expect(page.locator("#magic")).to_contain_text("refused@example.com")


# ---------------------------------------------------------------- what it does


def test_the_clock_is_moved(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(f"{dev.url}/__dev/")
    now = page.locator("#now")
    expect(now).to_have_text("2026-03-02 12:00:00 (stopped)")
    page.get_by_role("button", name="+7 days").click()
    expect(now).to_have_text("2026-03-09 12:00:00 (stopped)")
    page.get_by_label("Go on by").fill("PT1H")
    page.locator("#move button").click()
    expect(now).to_have_text("2026-03-09 13:00:00 (stopped)")
    page.get_by_label("Go to").fill("2026-01-01 08:00")
    page.get_by_label("Go to").press("Enter")
    expect(now).to_have_text("2026-01-01 08:00:00 (stopped)")
    end = re.search(r"[\d-]{10} [\d:]{8}", page.locator("#expiry").inner_text())
    assert end
    page.get_by_role("button", name="To the next end").click()
    expect(now).to_have_text(f"{end[0]} (stopped)")
    page.get_by_role("button", name="Go on", exact=True).click()
    expect(now).not_to_contain_text("stopped")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(now).to_contain_text("stopped")
    # What means nothing is told in the server's words, and moves nothing.
    page.get_by_label("Go on by").fill("a week")
    page.locator("#move button").click()
    expect(page.locator("#status")).to_contain_text("'a week' is no span of time")


def test_faults_are_made_and_taken_away(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(f"{dev.url}/__dev/")
    expect(page.locator("#kind option")).to_have_count(len(Fault.KINDS))
    page.locator("#kind").select_option("refusal")
    page.get_by_label("code", exact=True).fill("9")
    page.get_by_label("msg", exact=True).fill("改日再来")
    page.get_by_label("Times").fill("")
    page.locator("#fault button").click()
    expect(page.locator("#faults")).to_contain_text("/v1/user/info refusal · 9 改日再来 · always")
    expect(page.locator("#faults")).to_contain_text("User.info")
    answer = api.get(INFO, headers={"token": ONE.token, "accept": "application/json"})
    assert answer.json() == {"code": 9, "msg": "改日再来"}
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#faults")).to_have_text("No faults.")
    page.locator("#kind").select_option("status")
    page.get_by_label("HTTP status").fill("502")
    page.get_by_label("Times").fill("1")
    page.get_by_label("Path").fill("/v1/user/inof")
    page.locator("#fault button").click()
    expect(page.locator("#faults")).to_contain_text("matches no endpoint of this module")
    # Choosing stays chosen while the page asks again and again.
    expect(page.locator("#kind")).to_have_value("status")
    told = api.get("/__dev/faults").json()["faults"]
    assert [(one["fault"], one["status"], one["times"]) for one in told] == [("status", 502, 1)]
    for kind in Fault.KINDS:
        page.locator("#kind").select_option(kind)
        assert page.locator("#what").inner_text() == Fault.KINDS[kind].replace("`", "")


def test_snapshots_and_reset(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    token = {"token": ONE.token}
    page = open_page(f"{dev.url}/__dev/")
    api.post(RENAME, json={"name": "甲"}, headers=token)
    page.get_by_label("Name", exact=True).fill("one")
    page.locator("#snapshot button").click()
    expect(page.locator("#status")).to_contain_text("Saved: one")
    api.post(RENAME, json={"name": "乙"}, headers=token)
    page.locator("#snapshots li", has_text="one").get_by_role("button", name="Restore").click()
    expect(page.locator("#status")).to_contain_text("Restored: one")
    with Client(dev.url, token=ONE.token) as client:
        assert client.info().name == "甲"
    page.locator("#snapshots li", has_text="one").get_by_role("button", name="Forget").click()
    expect(page.locator("#snapshots li")).to_have_count(1)
    traffic(api)
    expect(page.locator("#requests button")).not_to_have_count(0)
    page.get_by_role("button", name="Reset everything").click()
    expect(page.locator("#status")).to_contain_text("Everything is as at the start")
    expect(page.locator("#requests button")).to_have_count(0)
    expect(page.locator("#faults")).to_have_text("No faults.")
    with Client(dev.url, token=ONE.token) as client:
        assert client.info().name == "测试用户1"
    # A reset from elsewhere shows as well, although the numbers of requests begin anew.
    expect(page.locator("#requests button")).to_have_count(1)
    api.post("/__dev/reset")
    api.get("/v1/user/medal")
    expect(page.locator("#requests button")).to_have_count(1)
    expect(page.locator("#requests")).to_contain_text("/v1/user/medal")


def test_both_languages_at_any_time(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(f"{dev.url}/__dev/", locale="zh-CN")
    expect(page.locator("#h-requests")).to_have_text("请求")
    page.get_by_role("button", name="English").click()
    expect(page.locator("#h-requests")).to_have_text("Requests")
    expect(page.locator("#outbox")).to_have_text("Nothing was sent yet.")
    assert page.locator("html").get_attribute("lang") == "en"
    page.get_by_role("button", name="中文").click()
    expect(page.locator("#outbox")).to_have_text("还没有消息。")
    words = page.evaluate(
        "[words.zh, words.en].map((one) => Object.keys(one).sort().join()).join('|')"
    )
    assert words.split("|")[0] == words.split("|")[1]
    assert page.evaluate("Object.keys(words.zh.kinds).sort()") == sorted(Fault.KINDS)


def test_a_keyboard_is_enough(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    """Everything is reached by Tab, is seen to be reached, and keeps its place."""
    traffic(api)
    page = open_page(f"{dev.url}/__dev/")
    expect(page.locator("#requests button")).to_have_count(9)
    reached, outlined = set(), True
    for _ in range(140):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => {
              const one = document.activeElement;
              const style = getComputedStyle(one);
              return [one.id || one.dataset.key || one.dataset.advance || one.textContent,
                      one === document.body || style.outlineStyle !== "none"];
            }"""
        )
        reached.add(told[0])
        outlined = outlined and told[1]
    assert outlined, "what has the focus is not seen to have it"
    wanted = {
        "language", "reset", "filter", "clear", "scroll", "freeze", "PT1H", "P1D", "P7D",
        "next-expiry", "span", "moment", "match", "kind", "seconds", "times", "probability",
        "snapshot-name", "fault 1", "fault 2", "restore fresh", "token 7000001", "request 1",
    }  # fmt: skip
    assert wanted <= reached, wanted - reached
    # A request is chosen with arrows and Enter, and the place survives what comes in meanwhile.
    page.locator("#requests button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#requests button").nth(1)).to_be_focused()
    chosen = page.locator("#requests button[aria-pressed=true]").get_attribute("data-key")
    api.post("/v1/user/captcha")
    expect(page.locator("#requests button")).to_have_count(10)
    expect(page.locator(f"[data-key='{chosen}']")).to_be_focused()
    # A button in a list that is drawn anew keeps the focus; the fault is taken away with it.
    remove = page.locator("[data-key='fault 2']")
    remove.focus()
    api.post("/__dev/faults", json={"match": "*", "fault": "delay", "seconds": 0, "times": 9})
    expect(page.locator("#faults li")).to_have_count(4)
    expect(remove).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#faults li")).to_have_count(3)
    # And one is made without a mouse.
    page.locator("#match").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("/v1/user/clients")
    page.keyboard.press("Enter")
    expect(page.locator("#faults")).to_contain_text("User.clients")


def test_a_server_that_is_gone_is_told(browser: Browser, tmp_path: Path) -> None:
    one = start_dev(tmp_path)
    with running(one):
        # The console complains about a lost server by itself, so this page is not watched.
        page = browser.new_page(locale="en-US")
        page.goto(f"{one.url}/__dev/")
        expect(page.locator("#now")).not_to_have_text("")
        one.process.kill()
        one.process.wait()
        expect(page.locator("#status")).to_have_text("The server does not answer")
        page.locator("#reset").click()
        expect(page.locator("#status")).to_have_text("The server does not answer")
        page.close()


# ---------------------------------------------------------------- one-time links


def login_by_phone(api: httpx2.Client, phone: str) -> str:
    """A token, by a code that the outbox tells."""
    captcha = api.post("/v1/user/captcha").json()["data"]["id"]
    solution = api.get(f"/__dev/captchas/{captcha}").json()["solution"]
    said = {"mobile": phone, "id": captcha, "code": solution}
    assert api.post("/v1/verification/get-verification-code", json=said).json()["code"] == 1
    code = api.get(f"/__dev/outbox?to={phone}").json()["messages"][0]["code"]
    login = {"mobile": phone, "captcha": code}
    return str(api.post("/v1/user/verification-login", json=login).json()["data"]["token"])


def change_phone(dev: Dev, api: httpx2.Client, to: str) -> str:
    """Change the number of the first person; the link that its old number gets."""
    captcha = api.post("/v1/user/captcha").json()["data"]["id"]
    solution = api.get(f"/__dev/captchas/{captcha}").json()["solution"]
    with Client(dev.url, token=ONE.token) as client:
        client.get_verification_code(mobile=to, id=captcha, code=solution)
        code = api.get(f"/__dev/outbox/wait?to={to}").json()["messages"][0]["code"]
        client.change_phone(phone=to, captcha=code)
    (letter,) = api.get(f"/__dev/outbox?to={ONE.phone}").json()["messages"]
    return str(letter["link"])


@pytest.mark.parametrize(
    ("locale", "theme", "width"), [("zh-CN", "dark", 400), ("en-US", "light", 1400)]
)
def test_a_change_of_number_is_undone_by_its_link(
    dev: Dev, api: httpx2.Client, open_page: Open, locale: str, theme: str, width: int
) -> None:
    """The link of the letter, opened as a person opens it; once, and logging everybody out."""
    link = change_phone(dev, api, "13900000099")
    page = open_page(link, locale, theme, width)
    button = page.get_by_role("button", name="撤销更改" if locale == "zh-CN" else "Undo")
    expect(button).to_be_visible()
    assert page.evaluate(_STICKING_OUT) == []
    assert page.evaluate(_FAINT) == []
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/link-{width}-{theme}-{locale}.png")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_have_text("已完成。" if locale == "zh-CN" else "Done.")
    expect(button).not_to_be_visible()
    # The old number logs in again, and finds the account; nobody else is in any more.
    assert api.get(INFO, headers={"token": ONE.token, **JSON}).json()["code"] == -101
    token = {"token": login_by_phone(api, ONE.phone)}
    told = api.get(INFO, headers=token | JSON).json()["data"]
    assert (told["id"], told["phone"]) == ("7000001", ONE.phone)
    page.reload()
    expect(page.locator("#text")).to_have_text("链接无效或已过期")
    expect(page.locator("form")).not_to_be_visible()


def test_undoing_asks_for_no_password(dev: Dev, api: httpx2.Client, open_page: Open) -> None:
    page = open_page(change_phone(dev, api, "13900000097"))
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    expect(page.locator("#password")).not_to_be_visible()


def test_the_outbox_of_the_page_leads_to_the_link(
    dev: Dev, api: httpx2.Client, open_page: Open
) -> None:
    link = change_phone(dev, api, "13900000098")
    page = open_page(f"{dev.url}/__dev/")
    expect(page.get_by_role("link", name="Open link")).to_have_attribute("href", link)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Open link").click()
    expect(opened.value.get_by_role("button", name="Undo")).to_be_visible()
    # The secret was sent to nobody: it is neither in a referrer nor in the journal.
    told = api.get("/__dev/requests").text
    assert link.partition("#")[2] not in told


def test_a_first_password_is_chosen_by_link(
    tmp_path: Path, sqlite_template: Path, open_page: Open
) -> None:
    """A real server: the operator's command prints a link, and the person chooses a password."""
    shutil.copyfile(sqlite_template, tmp_path / "hupan.db")
    (server,) = start_processes(f"sqlite:///{tmp_path / 'hupan.db'}", tmp_path)
    try:
        clean = {name: value for name, value in os.environ.items() if "HUPAN" not in name}
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from hupan.cli import main; main()"),
                *("user", "create", "--email", "lake@example.com", "--name", "湖", "--json"),
            ],
            env=clean
            | {
                "HUPAN_DATA_DIR": str(tmp_path),
                "HUPAN_DATABASE_URL": f"sqlite:///{tmp_path / 'hupan.db'}",
                "HUPAN_WEB_URL": server.web_url,
            },
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        link = re.search(r"http\S+/account/link#[\w-]+", done.stdout)
        assert link, done.stdout
        page = open_page(link[0], "en-US", "dark", 400)
        password = page.get_by_label("New password")
        expect(password).to_be_visible()
        assert page.evaluate(_STICKING_OUT) == []
        password.fill("12345678")
        page.get_by_role("button", name="Save").click()
        # A refusal is told in the server's words, and the link can still be used.
        expect(page.locator("#text")).to_contain_text("密码")
        expect(password).to_be_visible()
        password.fill("a lake in spring")
        password.press("Enter")
        expect(page.locator("#text")).to_have_text("Done.")
        with Client(server.url) as client:
            assert client.login_with_password("lake@example.com", "a lake in spring")
        # The address without its secret, and one that is cut, say that the link is not valid.
        for bad in (link[0].partition("#")[0], link[0][:-3]):
            other = open_page(bad, "en-US")
            expect(other.locator("#text")).to_have_text("链接无效或已过期")
    finally:
        server.stop()
