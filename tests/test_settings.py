"""Settings: where they are read from, which place wins, and what is said when one is wrong."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hupan.settings import Settings, SettingsError, load

CANARY = "canary-of-a-secret"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, so that no file of anybody is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def secrets(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of secret files, one a setting."""
    folder = place / "secrets"
    folder.mkdir()
    monkeypatch.setenv("HUPAN_SECRETS_DIR", str(folder))
    return folder


def reason(**flags: Any) -> str:
    """Why the settings cannot be used."""
    with pytest.raises(SettingsError) as refused:
        load(**flags)
    return str(refused.value)


def secret_file(folder: Path, name: str) -> Path:
    """The file in which a secret setting stands: named as its variable is."""
    return folder / f"hupan_{name}"


# ---------------------------------------------------------------- which place wins


def test_each_place_wins_over_the_ones_behind_it(
    place: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, environment, secret files, `hupan.toml`, defaults: in this order."""

    def told() -> str:
        return load().smtp_password.get_secret_value()

    assert told() == ""
    (place / "hupan.toml").write_text('smtp_password = "toml"\n')
    assert told() == "toml"
    secret_file(secrets, "smtp_password").write_text("file\n")
    assert told() == "file"
    monkeypatch.setenv("HUPAN_SMTP_PASSWORD", "environment")
    assert told() == "environment"
    assert load(smtp_password="flag").smtp_password.get_secret_value() == "flag"
    # A flag that was not given is none.
    assert load(smtp_password=None).smtp_password.get_secret_value() == "environment"
    monkeypatch.delenv("HUPAN_SMTP_PASSWORD")
    secret_file(secrets, "smtp_password").unlink()
    assert told() == "toml"


def test_another_file_may_be_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HUPAN_CONFIG` names it; then it must be there, while `hupan.toml` need not."""
    assert load().port == 8790
    monkeypatch.setenv("HUPAN_CONFIG", str(place / "other.toml"))
    assert reason() == f"the settings file {place / 'other.toml'} does not exist"
    (place / "hupan.toml").write_text("port = 1111\n")
    (place / "other.toml").write_text("port = 2222\n")
    assert load().port == 2222


def test_every_kind_of_value_fits_every_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What TOML writes as a list or a table, a variable writes with commas or as JSON."""
    monkeypatch.setenv("HUPAN_TRUSTED_PROXIES", " 10.0.0.0/8, ::1 ,")
    monkeypatch.setenv("HUPAN_CORS_ORIGINS", "")
    monkeypatch.setenv("HUPAN_DELIVER_SMS", "file")
    monkeypatch.setenv("HUPAN_DELIVER_EMAIL", "file,smtp")
    monkeypatch.setenv("HUPAN_OPEN_REGISTRATION", "false")
    monkeypatch.setenv("HUPAN_TEST_CODES", '{"13800000001": "123456"}')
    monkeypatch.setenv("HUPAN_TEST_CODES_UNTIL", "2026-12-31")
    settings = load()
    assert settings.trusted_proxies == ["10.0.0.0/8", "::1"]
    assert settings.cors_origins == []
    assert (settings.deliver_sms, settings.deliver_email) == (["file"], ["file", "smtp"])
    assert settings.open_registration is False
    assert settings.test_codes == {"13800000001": "123456"}
    assert settings.test_codes_until == date(2026, 12, 31)
    for name in ("TRUSTED_PROXIES", "CORS_ORIGINS", "DELIVER_SMS", "DELIVER_EMAIL"):
        monkeypatch.delenv(f"HUPAN_{name}")
    for name in ("OPEN_REGISTRATION", "TEST_CODES", "TEST_CODES_UNTIL"):
        monkeypatch.delenv(f"HUPAN_{name}")
    (place / "hupan.toml").write_text(
        'trusted_proxies = ["10.0.0.0/8", "::1"]\n'
        'cors_origins = "https://a.example, https://b.example"\n'
        "open_registration = false\n"
        "test_codes_until = 2026-12-31\n"
        "[test_codes]\n"
        '"13800000001" = "123456"\n'
    )
    written = load()
    assert written.trusted_proxies == settings.trusted_proxies
    assert written.cors_origins == ["https://a.example", "https://b.example"]
    assert written.open_registration is False
    assert written.test_codes == settings.test_codes


def test_a_setting_cannot_be_changed_later() -> None:
    """The world is put together once."""
    with pytest.raises(ValueError, match="frozen"):
        load().port = 1


def test_every_setting_says_what_it_is() -> None:
    """The reference page is made from this table."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


# ---------------------------------------------------------------- what is unknown


def test_an_unknown_key_is_an_error_wherever_it_stands(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the nearest name, for it is most often a slip; nothing is ignored."""
    monkeypatch.setenv("HUPAN_PROT", "1")
    assert reason() == "unknown setting prot in environment; did you mean port?"
    monkeypatch.delenv("HUPAN_PROT")
    monkeypatch.setenv("HUPAN_XYZZY_QUUX", CANARY)
    assert reason() == "unknown setting xyzzy_quux in environment"
    monkeypatch.delenv("HUPAN_XYZZY_QUUX")
    (place / "hupan.toml").write_text(f'smtp_pasword = "{CANARY}"\n')
    assert reason() == ("unknown setting smtp_pasword in hupan.toml; did you mean smtp_password?")
    (place / "hupan.toml").write_text("[server]\nport = 1\n")
    assert reason().startswith("unknown setting server in hupan.toml")
    (place / "hupan.toml").unlink()
    assert "prot" in reason(prot=1)
    for name in ("HUPAN_SERVER", "HUPAN_WEB_SERVER", "HUPAN_TOKEN"):
        # These are the SDK's, which may run in the same surroundings.
        monkeypatch.setenv(name, CANARY)
    assert load().port == 8790


def test_an_unknown_secret_file_is_an_error(secrets: Path) -> None:
    """It is read from nowhere else, so a slip in its name would be silent."""
    # A mounted folder of secrets holds links of its own, which begin with a dot.
    (secrets / "..data").mkdir()
    assert load().smtp_password.get_secret_value() == ""
    secret_file(secrets, "smtp_pasword").write_text(CANARY)
    text = reason()
    assert "smtp_pasword" in text
    assert "did you mean" in text
    assert CANARY not in text


def test_a_missing_folder_of_secrets_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a settings file that was named and is not there."""
    monkeypatch.setenv("HUPAN_SECRETS_DIR", str(place / "nowhere"))
    assert "nowhere" in reason()


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PORT", CANARY, "port: Input should be a valid integer"),
        ("PORT", "0", "port: Input should be greater than or equal to 1"),
        ("PORT", "65536", "port: Input should be less than or equal to 65535"),
        ("WORKERS", "0", "workers: "),
        ("OPEN_REGISTRATION", CANARY, "open_registration: Input should be a valid boolean"),
        ("TIME_ZONE", "Mars/Olympus", "time_zone: Value error, is no time zone"),
        ("TIME_ZONE", "", "time_zone: Value error, is no time zone"),
        ("TIME_ZONE", "../../etc/passwd", "time_zone: Value error, is no time zone"),
        ("DELIVER_SMS", "smtp", "deliver_sms: Value error, short messages cannot leave by smtp"),
        ("DELIVER_SMS", "pigeon", "deliver_sms.0: Input should be 'console', 'file' or 'smtp'"),
        ("PROFILE", CANARY, "profile: Input should be 'compat' or 'strict'"),
        ("LANGUAGE", "fr", "language: Input should be 'zh' or 'en'"),
        ("CODE_SECONDS", "601", "code_seconds: Input should be less than or equal to 600"),
        ("CODE_TRIES", "11", "code_tries: "),
        ("REWARD_FIRST_NAME", "-1", "reward_first_name: "),
        ("TEST_CODES", '{"13912345678":"123456"}', "test_codes: Value error, fixed codes are"),
        ("TEST_CODES", '{"13800000001":"12345"}', "test_codes: Value error, fixed codes are"),
        ("TEST_CODES", '{"13800000001":"123456"}', ": Value error, test_codes need"),
        ("TEST_CODES_UNTIL", "soon", "test_codes_until: "),
    ],
)
def test_a_value_that_cannot_be_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    """C13 for fixed codes; and no value is printed, since one of them may be a secret."""
    monkeypatch.setenv(f"HUPAN_{name}", value)
    told = reason()
    assert told.startswith(text)
    assert CANARY not in told
    assert "\n" not in told


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One start, one list."""
    monkeypatch.setenv("HUPAN_PORT", "x")
    monkeypatch.setenv("HUPAN_WORKERS", "x")
    assert {part.partition(":")[0] for part in reason().split("; ")} == {"port", "workers"}


def test_secrets_are_never_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the settings' own text, not in an error beside them, not in one about their file."""
    monkeypatch.setenv("HUPAN_SMTP_PASSWORD", CANARY)
    monkeypatch.setenv("HUPAN_DATABASE_URL", f"postgresql://user:{CANARY}@db/hupan")
    settings = load()
    assert settings.smtp_password.get_secret_value() == CANARY
    assert settings.sqlalchemy_url == f"postgresql+psycopg://user:{CANARY}@db/hupan"
    assert CANARY not in f"{settings!r} {settings} {settings.model_dump()}"
    monkeypatch.setenv("HUPAN_PORT", "x")
    assert CANARY not in reason()
    for broken in (
        f'smtp_password = "{CANARY}\n',
        f"smtp_password = {CANARY}\n",
        f'smtp_password = "{CANARY}"\nsmtp_password = "{CANARY}"\n',
        f'{CANARY} "x"\n',
    ):
        (place / "hupan.toml").write_text(broken)
        told = reason()
        assert told.startswith("hupan.toml is no TOML")
        assert CANARY not in told
    (place / "hupan.toml").write_bytes(b'smtp_password = "\xff"\n')
    assert reason().startswith("hupan.toml is no TOML")
    (place / "hupan.toml").write_text(f'smtp_password = ["{CANARY}"]\n')
    assert CANARY not in reason()


def test_a_table_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for a table holds JSON; what cannot be read is a reason like any other."""
    monkeypatch.setenv("HUPAN_TEST_CODES", CANARY)
    told = reason()
    assert "test_codes" in told
    assert CANARY not in told


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33"])
def test_a_network_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    """C11: whose word about addresses is believed must not depend on a slip."""
    monkeypatch.setenv("HUPAN_TRUSTED_PROXIES", network)
    assert reason().startswith("trusted_proxies")


def test_where_the_database_is(place: Path) -> None:
    """SQLite in the data folder, unless an address is given; each way of writing PostgreSQL's."""
    assert load(data_dir="d").sqlalchemy_url == "sqlite:///d/hupan.db"
    for given in ("postgres://h/d", "postgresql://h/d", "postgresql+psycopg://h/d"):
        assert load(database_url=given).sqlalchemy_url == "postgresql+psycopg://h/d"
    assert load(database_url="sqlite:///x.db").sqlalchemy_url == "sqlite:///x.db"
