"""The schema as it began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0.1.1"
down_revision = None
branch_labels = None
depends_on = None

#: What is only ever added to: the database itself refuses to change or delete it.
APPEND_ONLY = ("posting", "entry", "audit")
#: What kept answers are made of: table → (what happens to it, whose account that changes).
#: A medal is everybody's, which account 0 stands for.
ANNOUNCED = {
    "account": ("UPDATE", "id"),
    "session": ("DELETE", "account_id"),
    "profile": ("INSERT UPDATE DELETE", "account_id"),
    "wallet": ("UPDATE", "account_id"),
    "account_medal": ("INSERT DELETE", "account_id"),
    "medal": ("UPDATE DELETE", ""),
    "remark": ("INSERT UPDATE DELETE", "owner_id"),
}
#: Tables whose ids begin with seven digits.
SEVEN_DIGITS = ("account", "group_chat", "bot")


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1000001),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("name_id", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("avatar_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("avatar_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("phone", sa.String(length=32), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column("password_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("vip_until", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("banned_until", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ban_reason", sa.String(length=255), server_default="", nullable=False),
        sa.Column("invite_code", sa.String(length=16), nullable=False),
        sa.Column(
            "invited_by", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("invited_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("registered_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("online_days", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("streak_days", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_day", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_login_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["invited_by"], ["account.id"], name=op.f("fk_account_invited_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("email", name=op.f("uq_account_email")),
        sa.UniqueConstraint("invite_code", name=op.f("uq_account_invite_code")),
        sa.UniqueConstraint("phone", name=op.f("uq_account_phone")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_account_invited_by", "account", ["invited_by"], unique=False)
    op.create_table(
        "advert",
        sa.Column("for_vip", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("android_code_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("ios_code_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("bottom_height", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("is_show", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("for_vip", name=op.f("pk_advert")),
    )
    op.create_table(
        "audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_account_id", "audit", ["account_id"], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "bot",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1000001),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("introduction", sa.String(length=1000), server_default="", nullable=False),
        sa.Column("avatar_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("headcount", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("banned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sort", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("is_add", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("is_apply", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("always_agree", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bot")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "category",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sort", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_category")),
        sa.UniqueConstraint("name", name=op.f("uq_category_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "code",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("destination", sa.String(length=254), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("nonce", sa.LargeBinary(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_code")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_code_destination_purpose", "code", ["destination", "purpose", "id"], unique=False
    )
    op.create_table(
        "failure",
        sa.Column(
            "key",
            sa.String(length=700).with_variant(sa.String(length=700, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_failure")),
    )
    op.create_table(
        "group_chat",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1000001),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("introduction", sa.String(length=1000), server_default="", nullable=False),
        sa.Column("avatar_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("headcount", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("banned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sort", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_group_chat")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_group_chat_category"), "group_chat", ["category"], unique=False)
    op.create_table(
        "medal",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=255), server_default="", nullable=False),
        sa.Column("image_url", sa.String(length=2048), server_default="", nullable=False),
        sa.Column("sort", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_medal")),
        sa.UniqueConstraint("name", name=op.f("uq_medal_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "posting",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("reverses", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["reverses"], ["posting.id"], name=op.f("fk_posting_reverses")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_posting")),
        sa.UniqueConstraint("key", name=op.f("uq_posting_key")),
        sa.UniqueConstraint("reverses", name=op.f("uq_posting_reverses")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rate",
        sa.Column("key", sa.String(length=500), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate")),
    )
    op.create_table(
        "spent_captcha",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spent_captcha")),
    )
    op.create_index("ix_spent_captcha_expires_at", "spent_captcha", ["expires_at"], unique=False)
    op.create_table(
        "account_medal",
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("medal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("granted_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_account_medal_account_id")
        ),
        sa.ForeignKeyConstraint(["medal_id"], ["medal.id"], name=op.f("fk_account_medal_medal_id")),
        sa.PrimaryKeyConstraint("account_id", "medal_id", name=op.f("pk_account_medal")),
    )
    op.create_table(
        "known_device",
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_known_device_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "device_id", name=op.f("pk_known_device")),
    )
    op.create_table(
        "link",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("nonce", sa.LargeBinary(length=16), nullable=False),
        sa.Column("value", sa.String(length=254), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_link_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "module_ignore",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("ignore", sa.String(length=255), server_default="", nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_module_ignore_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_module_ignore")),
        sa.UniqueConstraint(
            "account_id", "device_id", name=op.f("uq_module_ignore_account_id_device_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "notification",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("device_id", sa.String(length=255), nullable=False),
        sa.Column("registration_id", sa.String(length=255), nullable=False),
        sa.Column("is_open", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("type", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_notification_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sa.UniqueConstraint(
            "account_id",
            "device_id",
            "registration_id",
            name=op.f("uq_notification_account_id_device_id_registration_id"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "profile",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("introduction", sa.String(length=1000), server_default="", nullable=False),
        sa.Column("gender", sa.BigInteger(), server_default="3", nullable=False),
        sa.Column("birthday", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("province", sa.String(length=64), server_default="", nullable=False),
        sa.Column("city", sa.String(length=64), server_default="", nullable=False),
        sa.Column("district", sa.String(length=64), server_default="", nullable=False),
        sa.Column("location_code", sa.String(length=16), server_default="", nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_profile_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profile")),
        sa.UniqueConstraint("account_id", name=op.f("uq_profile_account_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "remark",
        sa.Column("owner_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "friend_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("phone", sa.String(length=64), server_default="", nullable=False),
        sa.Column("others", sa.String(length=4096), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["friend_id"], ["account.id"], name=op.f("fk_remark_friend_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name=op.f("fk_remark_owner_id")),
        sa.PrimaryKeyConstraint("owner_id", "friend_id", name=op.f("pk_remark")),
    )
    op.create_table(
        "session",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("device_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("platform", sa.String(length=400), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("coin_anchor", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_session_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_session_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_session_account_id_seen_at", "session", ["account_id", "seen_at"], unique=False
    )
    op.create_table(
        "wallet",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "account_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True
        ),
        sa.Column("balance", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("entries", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("head", sa.LargeBinary(length=32), nullable=False),
        sa.CheckConstraint(
            "balance >= 0 OR account_id IS NULL", name=op.f("ck_wallet_not_negative")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_wallet_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wallet")),
        sa.UniqueConstraint("account_id", name=op.f("uq_wallet_account_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "entry",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "posting_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column(
            "wallet_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("typ", sa.BigInteger(), nullable=False),
        sa.Column("before", sa.BigInteger(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=255), server_default="", nullable=False),
        sa.Column("remark", sa.String(length=255), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.CheckConstraint("after = before + change", name=op.f("ck_entry_adds_up")),
        sa.ForeignKeyConstraint(["posting_id"], ["posting.id"], name=op.f("fk_entry_posting_id")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallet.id"], name=op.f("fk_entry_wallet_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry")),
        sa.UniqueConstraint("wallet_id", "seq", name=op.f("uq_entry_wallet_id_seq")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_entry_posting_id"), "entry", ["posting_id"], unique=False)
    op.create_table(
        "changed",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changed")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changed_xid", "changed", ["xid"], unique=False)
    op.create_table(
        "outbox",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False, start=1),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("channel", sa.String(length=8), nullable=False),
        sa.Column("destination", sa.String(length=254), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("code_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("link_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("dropped_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.String(length=255), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["code_id"], ["code.id"], name=op.f("fk_outbox_code_id")),
        sa.ForeignKeyConstraint(["link_id"], ["link.id"], name=op.f("fk_outbox_link_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_destination", "outbox", ["destination"], unique=False)
    op.create_index("ix_outbox_sent_at_due_at", "outbox", ["sent_at", "due_at"], unique=False)

    op.execute(
        sa.text("INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, :zero)").bindparams(
            sa.bindparam("zero", bytes(32), sa.LargeBinary)
        )
    )
    op.execute(
        sa.text("INSERT INTO wallet (head) VALUES (:zero)").bindparams(
            sa.bindparam("zero", bytes(32), sa.LargeBinary)
        )
    )
    op.execute("INSERT INTO advert (for_vip) VALUES (0), (1)")
    if op.get_bind().dialect.name == "sqlite":
        for table in SEVEN_DIGITS:
            op.execute(
                sa.text(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (:name, 1000000)"
                ).bindparams(name=table)
            )
        for table in APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                    " BEGIN SELECT RAISE(ABORT, 'append-only'); END"
                )
        for table, (verbs, column) in ANNOUNCED.items():
            for verb in verbs.split():
                row = "OLD" if verb == "DELETE" else "NEW"
                who = f"{row}.{column}" if column else "0"
                op.execute(
                    f"CREATE TRIGGER {table}_changed_{verb.lower()} AFTER {verb} ON {table}"
                    f" WHEN {who} IS NOT NULL"
                    f" BEGIN INSERT INTO changed (account_id) VALUES ({who}); END"
                )
    else:
        op.execute(
            "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'append-only'; END $$"
        )
        for table in APPEND_ONLY:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
                f" ON {table} FOR EACH STATEMENT EXECUTE FUNCTION append_only()"
            )
        for table, (verbs, column) in ANNOUNCED.items():
            who = f"coalesce(NEW.{column}, OLD.{column})" if column else "0"
            op.execute(
                f"CREATE FUNCTION {table}_changed() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN IF {who} IS NOT NULL THEN INSERT INTO changed (account_id, xid)"
                f" VALUES ({who}, pg_current_xact_id()::text::bigint); END IF; RETURN NULL; END $$"
            )
            op.execute(
                f"CREATE TRIGGER {table}_changed AFTER {verbs.replace(' ', ' OR ')}"
                f" ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_changed()"
            )


def downgrade() -> None:
    raise RuntimeError("there is nothing before the beginning; restore a backup instead")
