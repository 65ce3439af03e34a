"""All tables. Times are Unix seconds, coins are integers in hundredths.

Alembic's one history makes these for SQLite and for PostgreSQL; a test compares both with what is
written here.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["metadata"]

#: The ids of people, groups and bots have seven digits or more.
FIRST_ID = 1_000_001

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows by itself only in a column of type INTEGER.
Big = BigInteger().with_variant(Integer, "sqlite")


def key(start: int = 1) -> Column[int]:
    """An id that counts up. A table with one says `sqlite_autoincrement`.

    Without it SQLite hands the id of a deleted row out again, and whoever still holds it would
    mean somebody else's row.
    """
    return Column("id", Big, Identity(start=start), primary_key=True, autoincrement=True)


def number(name: str, default: int | None = 0) -> Column[int]:
    """A whole number that is never null, with a default in the database."""
    text = None if default is None else str(default)
    return Column(name, BigInteger, nullable=False, server_default=text)


def text(name: str, length: int = 255) -> Column[str]:
    """A text that is never null and empty by default."""
    return Column(name, String(length), nullable=False, server_default="")


def owner(
    name: str = "account_id", *, primary_key: bool = False, unique: bool | None = None
) -> Column[int]:
    """Whose row it is."""
    return Column(
        name,
        Big,
        ForeignKey("account.id"),
        nullable=False,
        primary_key=primary_key,
        unique=unique,
    )


account = Table(
    "account",
    metadata,
    key(FIRST_ID),
    text("name"),
    # These two grow with every change, so that clients can tell a new name or picture.
    number("name_id", 1),
    text("avatar_url", 2048),
    number("avatar_id", 0),
    Column("phone", String(32), unique=True),
    Column("email", String(254), unique=True),
    Column("password_hash", String(255)),
    # Grows when another password is set, and not when the same one is hashed anew.
    number("password_version"),
    number("vip_until"),
    number("banned_until"),
    text("ban_reason"),
    Column("invite_code", String(16), nullable=False, unique=True),
    Column("invited_by", Big, ForeignKey("account.id")),
    number("invited_at"),
    number("registered_at", None),
    number("deleted_at"),
    number("online_days"),
    number("streak_days"),
    # The last day that was counted, as a proleptic ordinal in the configured time zone.
    number("last_day"),
    number("last_login_at"),
    number("last_seen_at"),
    Index("ix_account_invited_by", "invited_by"),
    sqlite_autoincrement=True,
)

profile = Table(
    "profile",
    metadata,
    key(),
    owner(unique=True),
    text("introduction", 1000),
    number("gender", 3),
    number("birthday"),
    text("province", 64),
    text("city", 64),
    text("district", 64),
    text("location_code", 16),
    number("updated_at", None),
    sqlite_autoincrement=True,
)

session = Table(
    "session",
    metadata,
    key(),
    owner(),
    Column("token_hash", LargeBinary(32), nullable=False, unique=True),
    text("device_id", 255),
    text("platform", 400),
    number("created_at", None),
    number("seen_at", None),
    # The newest coin record when page 1 was last read: later pages count from there.
    number("coin_anchor"),
    Index("ix_session_account_id_seen_at", "account_id", "seen_at"),
    sqlite_autoincrement=True,
)

known_device = Table(
    "known_device",
    metadata,
    owner(primary_key=True),
    Column("device_id", String(255), primary_key=True),
    number("first_at", None),
    number("last_at", None),
)

spent_captcha = Table(
    "spent_captcha",
    metadata,
    Column("id", String(64), primary_key=True),
    number("expires_at", None),
    Index("ix_spent_captcha_expires_at", "expires_at"),
)

code = Table(
    "code",
    metadata,
    key(),
    Column("channel", String(8), nullable=False),
    Column("destination", String(254), nullable=False),
    Column("purpose", String(16), nullable=False),
    # The code itself is nowhere: it is an HMAC of this under a key outside the database.
    Column("nonce", LargeBinary(16), nullable=False),
    number("created_at", None),
    number("expires_at", None),
    number("used_at"),
    Index("ix_code_destination_purpose", "destination", "purpose", "id"),
    sqlite_autoincrement=True,
)

#: Windows of "so many in so long"; one row a key, changed by one statement.
rate = Table(
    "rate",
    metadata,
    Column("key", String(500), primary_key=True),
    number("opened_at", None),
    number("taken", None),
)

#: Consecutive failures; one row a key, gone with a success.
failure = Table(
    "failure",
    metadata,
    # In the order of its bytes, in which those with one beginning are neighbours.
    Column(
        "key",
        String(700).with_variant(String(700, collation="C"), "postgresql"),
        primary_key=True,
    ),
    number("failures", None),
    number("until", 0),
)

wallet = Table(
    "wallet",
    metadata,
    key(),
    # Null for the counterpart that coins come from and go to.
    Column("account_id", Big, ForeignKey("account.id"), unique=True),
    number("balance"),
    # How many entries there are, and the hash of the newest.
    number("entries"),
    Column("head", LargeBinary(32), nullable=False),
    CheckConstraint("balance >= 0 OR account_id IS NULL", name="not_negative"),
    sqlite_autoincrement=True,
)

posting = Table(
    "posting",
    metadata,
    key(),
    Column("key", String(200), nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("reverses", Big, ForeignKey("posting.id"), unique=True),
    number("created_at", None),
    sqlite_autoincrement=True,
)

entry = Table(
    "entry",
    metadata,
    key(),
    Column("posting_id", Big, ForeignKey("posting.id"), nullable=False, index=True),
    Column("wallet_id", Big, ForeignKey("wallet.id"), nullable=False),
    number("seq", None),
    number("typ", None),
    number("before", None),
    number("change", None),
    number("after", None),
    text("reason"),
    text("remark"),
    number("created_at", None),
    Column("hash", LargeBinary(32), nullable=False),
    UniqueConstraint("wallet_id", "seq"),
    CheckConstraint("after = before + change", name="adds_up"),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Big, primary_key=True, autoincrement=False),
    number("at", None),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    number("account_id"),
    Column("source", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("ix_audit_account_id", "account_id"),
)

#: One row: where the audit's chain ends, so that a cut tail is seen.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    number("seq", None),
    Column("hash", LargeBinary(32), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    key(),
    Column("channel", String(8), nullable=False),
    Column("destination", String(254), nullable=False),
    Column("purpose", String(32), nullable=False),
    # What the text is made of when it leaves; names a secret, never holds one.
    Column("code_id", Big, ForeignKey("code.id")),
    Column("link_id", Big, ForeignKey("link.id")),
    number("created_at", None),
    number("due_at", None),
    number("sent_at"),
    number("attempts"),
    number("dropped_at"),
    text("error"),
    Index("ix_outbox_sent_at_due_at", "sent_at", "due_at"),
    Index("ix_outbox_destination", "destination"),
    sqlite_autoincrement=True,
)

#: Which accounts have changed, newest last; 0 stands for all of them. Triggers write it, so that
#: no rule, no tool and no hand can forget to. What answers are kept of reads it.
changed = Table(
    "changed",
    metadata,
    key(),
    number("account_id", None),
    # PostgreSQL's number of the transaction, which tells what a snapshot has not seen.
    number("xid"),
    Index("ix_changed_xid", "xid"),
    sqlite_autoincrement=True,
)

#: One-time links: undoing a contact change, setting a first password.
link = Table(
    "link",
    metadata,
    key(),
    owner(),
    Column("kind", String(16), nullable=False),
    Column("nonce", LargeBinary(16), nullable=False),
    text("value", 254),
    number("created_at", None),
    number("expires_at", None),
    number("used_at"),
    sqlite_autoincrement=True,
)

medal = Table(
    "medal",
    metadata,
    key(),
    Column("name", String(64), nullable=False, unique=True),
    text("description"),
    text("image_url", 2048),
    number("sort"),
    sqlite_autoincrement=True,
)

account_medal = Table(
    "account_medal",
    metadata,
    owner(primary_key=True),
    Column("medal_id", Big, ForeignKey("medal.id"), primary_key=True),
    number("granted_at", None),
)

remark = Table(
    "remark",
    metadata,
    owner("owner_id", primary_key=True),
    owner("friend_id", primary_key=True),
    text("name"),
    text("phone", 64),
    text("others", 4096),
)

module_ignore = Table(
    "module_ignore",
    metadata,
    key(),
    owner(),
    Column("device_id", String(255), nullable=False),
    text("ignore", 255),
    number("updated_at", None),
    UniqueConstraint("account_id", "device_id"),
    sqlite_autoincrement=True,
)

notification = Table(
    "notification",
    metadata,
    key(),
    owner(),
    Column("device_id", String(255), nullable=False),
    Column("registration_id", String(255), nullable=False),
    number("is_open", 1),
    number("type"),
    number("created_at", None),
    number("updated_at", None),
    UniqueConstraint("account_id", "device_id", "registration_id"),
    sqlite_autoincrement=True,
)

category = Table(
    "category",
    metadata,
    key(),
    Column("name", String(64), nullable=False, unique=True),
    number("sort"),
    sqlite_autoincrement=True,
)

group_chat = Table(
    "group_chat",
    metadata,
    key(FIRST_ID),
    Column("category", String(64), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    text("introduction", 1000),
    text("avatar_url", 2048),
    number("headcount"),
    number("created_at", None),
    number("banned"),
    number("sort"),
    sqlite_autoincrement=True,
)

bot = Table(
    "bot",
    metadata,
    key(FIRST_ID),
    Column("name", String(255), nullable=False),
    text("introduction", 1000),
    text("avatar_url", 2048),
    number("headcount"),
    number("created_at", None),
    number("banned"),
    number("sort"),
    number("is_add", 1),
    number("is_apply"),
    number("always_agree"),
    sqlite_autoincrement=True,
)

advert = Table(
    "advert",
    metadata,
    # 1 is what VIPs get, 0 what everybody else gets.
    Column("for_vip", Integer, primary_key=True, autoincrement=False),
    text("android_code_id"),
    text("ios_code_id"),
    number("bottom_height"),
    number("is_show"),
)
