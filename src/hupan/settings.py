"""Every setting, in one table.

Order of precedence: flags, environment (`HUPAN_…`), the secret files of `HUPAN_SECRETS_DIR`,
`hupan.toml`, defaults. An unknown key is an error with a suggestion, wherever it stands. The
reference page is made by walking `Settings.model_fields`.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as PydanticSettingsError

__all__ = ["Settings", "SettingsError", "load"]

PREFIX = "HUPAN_"
#: Variables that are not settings of a server.
PLACES = {
    "HUPAN_CONFIG",
    "HUPAN_SECRETS_DIR",
    # What the SDK on the command line reads.
    "HUPAN_SERVER",
    "HUPAN_WEB_SERVER",
    "HUPAN_TOKEN",
    # What `hupan run` tells the Pythons that it starts.
    "HUPAN_REDIRECT",
}
#: Numbers and domains that no person owns here: only they may have fixed codes.
RESERVED = re.compile(r"^(1380000\d{4}|1990000\d{4}|[^@]+@example\.(com|org|net))$")

Channel = Literal["console", "file", "smtp"]
Names = Annotated[list[str], NoDecode]


class SettingsError(Exception):
    """The settings cannot be used; the text says which and why, and shows no value."""


class Settings(BaseSettings):
    """The settings of a server."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # Where it listens and what it calls itself.
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8790, ge=1, le=65535, description="Port of the API host.")
    web_port: int = Field(8791, ge=1, le=65535, description="Port of the web host.")
    workers: int = Field(1, ge=1, le=64, description="Processes that share the two ports.")
    api_url: str = Field("", description="Public address of the API host; told to clients.")
    web_url: str = Field("", description="Public address of the web host; put into links.")
    trusted_proxies: Names = Field(
        [], description="Networks whose `X-Forwarded-For` is believed; empty for none."
    )
    cors_origins: Names = Field(
        ["*"], description="Origins whose pages may call; no cookie is ever used."
    )
    drain_seconds: int = Field(10, ge=0, description="How long a stop waits for open requests.")

    # What it keeps and where.
    data_dir: Path = Field(Path("data"), description="Folder of the database, key and outbox file.")
    database_url: SecretStr = Field(
        SecretStr(""), description="`postgresql://…`; empty for SQLite in the data folder."
    )
    secret_file: Path | None = Field(
        None, description="File of the key that codes are made with; default in the data folder."
    )
    threads: int = Field(8, ge=1, le=128, description="Threads that run rules, per process.")

    # How it speaks.
    language: Literal["zh", "en"] = Field("zh", description="Language of messages to people.")
    time_zone: str = Field("Asia/Shanghai", description="Where a day begins and ends.")
    log_format: Literal["json", "console"] = Field("json", description="Shape of log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )

    # Who may come in.
    open_registration: bool = Field(
        True, description="Whether a first login by phone opens an account."
    )
    profile: Literal["compat", "strict"] = Field(
        "compat", description="`strict` asks for passwords of 15 instead of 8 characters."
    )
    max_sessions: int = Field(20, ge=1, description="Parallel sessions of one account.")
    session_idle_days: int = Field(30, ge=1, description="Days after which an idle token dies.")
    session_life_days: int = Field(180, ge=1, description="Days after which any token dies.")

    # Codes and their limits.
    captcha_seconds: int = Field(120, ge=10, description="Life of a captcha.")
    code_seconds: int = Field(300, ge=30, le=600, description="Life of a code.")
    code_tries: int = Field(5, ge=1, le=10, description="Guesses that one code is compared with.")
    code_interval_seconds: int = Field(60, ge=1, description="Wait between sends to one address.")
    code_day_limit: int = Field(10, ge=1, description="Sends to one address in a day.")
    limit_sources: bool = Field(True, description="Whether sends and logins per source are bound.")
    source_send_limit: int = Field(5, ge=1, description="Sends per address of origin in 10 min.")
    network_send_limit: int = Field(20, ge=1, description="Sends per /24 or /64 in an hour.")
    site_send_limit: int = Field(5000, ge=1, description="Sends of the whole site in a day.")
    source_login_limit: int = Field(60, ge=1, description="Logins per origin in 10 min.")
    test_codes: dict[str, str] = Field(
        {}, description="Fixed codes of reserved test numbers; dev mode only."
    )
    test_codes_until: date | None = Field(None, description="Last day of the fixed codes.")

    # Passwords.
    argon2_memory_kib: int = Field(19456, ge=8, description="Memory of one hash, KiB.")
    argon2_time: int = Field(2, ge=1, description="Passes of one hash.")

    # Coins, in hundredths.
    reward_first_name: int = Field(100, ge=0, description="For the first nickname, hundredths.")
    reward_first_avatar: int = Field(100, ge=0, description="For the first picture, hundredths.")
    reward_invitation: int = Field(500, ge=0, description="For an invited person, hundredths.")
    invite_target_day: int = Field(10, ge=0, description="Invitations paid for in a day.")
    invite_target_total: int = Field(100, ge=0, description="Invitations paid for in all.")

    # How codes leave.
    deliver_sms: Annotated[list[Channel], NoDecode] = Field(
        ["console", "file"], description="Channels for short messages: console, file."
    )
    deliver_email: Annotated[list[Channel], NoDecode] = Field(
        ["console", "file"], description="Channels for mails: console, file, smtp."
    )
    smtp_host: str = Field("", description="Mail relay.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the relay.")
    smtp_user: str = Field("", description="User at the relay; empty for none.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Password at the relay.")
    smtp_from: str = Field("", description="Sender's address.")
    smtp_security: Literal["starttls", "tls", "plain"] = Field(
        "starttls", description="`plain` only for a relay on this machine."
    )
    smtp_timeout: float = Field(20.0, gt=0, description="Seconds to wait for the relay.")

    # What `configure-distribution` tells.
    audio_url: str = Field("", description="Told by configure-distribution.")
    file_url: str = Field("", description="Told by configure-distribution.")
    image_url: str = Field("", description="Told by configure-distribution.")
    share_url: str = Field("", description="Told by configure-distribution.")
    video_url: str = Field("", description="Told by configure-distribution.")
    websocket_url: str = Field("", description="Told by configure-distribution.")

    @field_validator(
        "trusted_proxies", "cors_origins", "deliver_sms", "deliver_email", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        """A list may be written with commas, which is what an environment variable can hold."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("host")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if value == "localhost":
            return "127.0.0.1"
        try:
            return str(ipaddress.ip_address(value))
        except ValueError as error:
            raise ValueError("is no IP address; 0.0.0.0 listens on all of them") from error

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for one in value:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(f"{one} is no network, such as 10.0.0.0/8") from error
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        if not re.match(
            r"^(|(sqlite|postgres|postgresql)(\+psycopg)?://.*)$", value.get_secret_value()
        ):
            raise ValueError("is no address of SQLite or PostgreSQL")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("is no time zone") from error
        return value

    @field_validator("deliver_sms")
    @classmethod
    def _no_mail_for_sms(cls, value: list[str]) -> list[str]:
        if "smtp" in value:
            raise ValueError("short messages cannot leave by smtp")
        return value

    @field_validator("test_codes")
    @classmethod
    def _reserved_only(cls, value: dict[str, str]) -> dict[str, str]:
        for destination, code in value.items():
            if not RESERVED.match(destination) or not re.fullmatch(r"\d{6}", code):
                raise ValueError("fixed codes are six digits, for reserved test numbers only")
        return value

    @model_validator(mode="after")
    def _fixed_codes_end(self) -> Self:
        if self.test_codes and self.test_codes_until is None:
            raise ValueError("test_codes need test_codes_until, the last day they are good for")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The configured time zone."""
        return ZoneInfo(self.time_zone)

    @property
    def sqlalchemy_url(self) -> str:
        """The database's address as SQLAlchemy writes it. It may hold a password."""
        url = self.database_url.get_secret_value()
        if not url:
            return f"sqlite:///{self.data_dir / 'hupan.db'}"
        return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # The base class passes it.
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, config_file())
        return init_settings, env_settings, file_secret_settings, toml


def config_file() -> Path:
    """Where the settings file is, whether or not it exists."""
    return Path(os.environ.get("HUPAN_CONFIG", "hupan.toml"))


def load(**flags: Any) -> Settings:
    """Read the settings from all their places. Flags that are None were not given.

    Raises:
        SettingsError: a key is unknown or a value cannot be used.
    """
    known = set(Settings.model_fields)
    from_environment = {
        name.removeprefix(PREFIX).lower()
        for name in os.environ
        if name.startswith(PREFIX) and name not in PLACES
    }
    _refuse_unknown("environment", from_environment, known)
    secrets = os.environ.get("HUPAN_SECRETS_DIR")
    if secrets is not None:
        if not Path(secrets).is_dir():
            raise SettingsError(f"the folder of secrets {secrets} does not exist")
        names = {path.name.lower() for path in Path(secrets).iterdir() if path.is_file()}
        prefix = PREFIX.lower()
        # Secret files are named like the variables: hupan_smtp_password.
        _refuse_unknown(secrets, (name for name in names if not name.startswith(prefix)), set())
        _refuse_unknown(secrets, {name.removeprefix(prefix) for name in names}, known)
    file = config_file()
    if "HUPAN_CONFIG" in os.environ and not file.is_file():
        raise SettingsError(f"the settings file {file} does not exist")
    if file.is_file():
        try:
            with file.open("rb") as opened:
                _refuse_unknown(str(file), tomllib.load(opened), known)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} is no TOML: {error}") from error
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        # pydantic-settings takes its own options with an underscore in front.
        given["_secrets_dir"] = secrets
        return Settings(**given)
    except PydanticSettingsError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        # The values are left out: one of them may be a secret.
        reasons = "; ".join(
            f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()
        )
        raise SettingsError(reasons) from None


def _refuse_unknown(place: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"unknown setting {name} in {place}{hint}")
