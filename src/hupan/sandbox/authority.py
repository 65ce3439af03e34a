"""A certificate authority for this machine's sandboxes, and the files in which clients find it.

Two certificates, so that trusting it is safe with every verifier. Java 17 does not apply the name
constraints of a root that it trusts, but every verifier applies those of a certificate below one.
So the root signs a single certificate below itself, which is constrained to one domain, and the
root's key is forgotten at once. The key that stays on the disk can sign for that domain only.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hupan.sandbox.proxy import DOMAIN

__all__ = ["DAYS", "TRUSTSTORE_PASSWORD", "Authority", "NoTruststore", "look"]

#: How long an authority is good for.
DAYS = 30
#: One with less time left is made anew, so that none ends while a command runs.
SPARE = timedelta(days=1)
#: A trust store holds nothing secret; Java wants a password all the same.
TRUSTSTORE_PASSWORD = "changeit"  # noqa: S105  # It is the one that every Java has.

_NAME = "Hupan sandbox"
_EVERYWHERE = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


class NoTruststore(RuntimeError):
    """Nothing here can write a trust store for Java; the text says what would."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the file of an authority holds."""

    key: ec.EllipticCurvePrivateKey
    issuer: x509.Certificate
    root: x509.Certificate


class Authority:
    """The authority of a folder: the one that is kept there, or a new one.

    `ca_pem` is the certificate to trust. `note` says why a new authority was made, and is empty
    where it is the first one or the kept one is good. Nothing is ever installed anywhere.

    Args:
        folder: where it stays; only its owner may look inside.
        now: what is compared with the dates, which are the machine's and not the sandbox's.
    """

    def __init__(
        self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.folder = folder
        self.now = now
        self.ca_pem = folder / "ca.pem"
        self.note = ""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            kept, self.note = _read(folder, now())
            if kept is None:
                kept = self._make()
        self._kept = kept

    @property
    def ends(self) -> datetime:
        """When the root, and with it everything below, is over."""
        return self._kept.root.not_valid_after_utc

    def certificate(self, hosts: Iterable[str]) -> tuple[Path, Path]:
        """A certificate for these hosts with the one that signed it, and its key.

        Raises:
            ValueError: a host is not below the domain that this authority may sign for.
        """
        names = sorted({host.lower() for host in hosts})
        for name in names:
            if not f".{name}".endswith(f".{DOMAIN}"):
                raise ValueError(f"{name} is not below {DOMAIN}, so no client would believe it")
        issuer = self._kept.issuer
        # The names say what is inside: these files are written once and never change.
        mark = hashlib.sha256(" ".join([str(issuer.serial_number), *names]).encode()).hexdigest()
        cert_pem = self.folder / f"host-{mark[:16]}.pem"
        key_pem = self.folder / f"host-{mark[:16]}.key"
        with self._alone():
            if not (cert_pem.exists() and key_pem.exists()):
                key = ec.generate_private_key(ec.SECP256R1())
                leaf = _sign(
                    key.public_key(),
                    (self._kept.key, issuer),
                    ends=issuer.not_valid_after_utc,
                    now=self.now(),
                    usages=("digital_signature",),
                    extensions=[
                        (x509.BasicConstraints(ca=False, path_length=None), True),
                        (x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False),
                        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                    ],
                )
                _write(key_pem, _key_bytes(key), 0o600)
                _write(cert_pem, _pem(leaf) + _pem(issuer), 0o644)
        return cert_pem, key_pem

    def bundle(self, path: Path, base: Path | None = None) -> Path:
        """Write the certificates that are trusted anyhow, and ours, into one file.

        Args:
            path: the file to write.
            base: the file of the others; without it, that of `SSL_CERT_FILE`, of OpenSSL or of
                certifi, and nothing where there is none of these.
        """
        base = base or _default_bundle()
        others = base.read_bytes().rstrip() + b"\n" if base else b""
        _write(path, others + _pem(self._kept.root), 0o644)
        return path

    def truststore(self, path: Path) -> Path:
        """Write a PKCS12 trust store that Java reads, with ours as the only certificate.

        Raises:
            NoTruststore: neither this version of cryptography nor a `keytool` can write one.
        """
        # Missing in versions before 45, which a lock of somebody else's may hold back.
        write: Any = getattr(pkcs12, "serialize_java_truststore", None)
        if write is not None:
            entry = pkcs12.PKCS12Certificate(self._kept.root, b"hupan")
            password = serialization.BestAvailableEncryption(TRUSTSTORE_PASSWORD.encode())
            _write(path, write([entry], password), 0o644)
            return path
        keytool = shutil.which("keytool")
        if keytool is None:
            raise NoTruststore(
                "no trust store for Java: it takes cryptography 45 or newer, or keytool on the"
                " PATH; Java programs will not trust the sandbox"
            )
        path.unlink(missing_ok=True)
        told = subprocess.run(  # noqa: S603  # The words are ours.
            [
                keytool, "-importcert", "-noprompt", "-trustcacerts", "-alias", "hupan",
                "-file", str(self.ca_pem), "-keystore", str(path), "-storetype", "PKCS12",
                "-storepass", TRUSTSTORE_PASSWORD,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode:
            raise NoTruststore(f"no trust store for Java: keytool says {told.stdout.strip()}")
        return path

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others out who start at the same moment.

        SQLite's lock is there on every system, waits by itself and ends with the process.
        """
        with contextlib.closing(
            sqlite3.connect(self.folder / "lock", timeout=30, isolation_level=None)
        ) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield

    def _make(self) -> _Kept:
        """Make a root, the one certificate below it that may sign, and forget the root's key."""
        for old in self.folder.glob("host-*"):
            old.unlink()
        now = self.now()
        ends = now + timedelta(days=DAYS)
        below = x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(DOMAIN)],
            # Constraints bind only the kind of name they speak of, so addresses need a line too.
            excluded_subtrees=[x509.IPAddress(network) for network in _EVERYWHERE],
        )
        root_key = ec.generate_private_key(ec.SECP256R1())
        root = _sign(
            root_key.public_key(),
            (root_key, None),
            ends=ends,
            now=now,
            usages=("key_cert_sign", "crl_sign"),
            extensions=[(x509.BasicConstraints(ca=True, path_length=1), True), (below, True)],
        )
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _sign(
            key.public_key(),
            (root_key, root),
            ends=ends,
            now=now,
            usages=("key_cert_sign", "crl_sign"),
            extensions=[
                (x509.BasicConstraints(ca=True, path_length=0), True),
                (below, True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            ],
            name=f"{_NAME}, below {DOMAIN} only",
        )
        _write(self.folder / "authority.pem", _key_bytes(key) + _pem(issuer) + _pem(root), 0o600)
        _write(self.ca_pem, _pem(root), 0o644)
        return _Kept(key, issuer, root)


def look(folder: Path) -> tuple[datetime, str] | None:
    """When the authority of a folder ends, and its fingerprint (SHA-256); changes nothing.

    None where there is none, or none that can be used today.
    """
    kept, _ = _read(folder, datetime.now(UTC))
    if kept is None:
        return None
    return kept.root.not_valid_after_utc, kept.root.fingerprint(hashes.SHA256()).hex(":").upper()


def _read(folder: Path, now: datetime) -> tuple[_Kept | None, str]:
    """The authority of a folder, or None and why it cannot be used."""
    path = folder / "authority.pem"
    try:
        pem = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None, ""
    again = "a new one was made: trust it where you trusted the old one by hand"
    try:
        key = serialization.load_pem_private_key(pem, None)
        issuer, root = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return None, f"the certificate authority in {folder} could not be read; {again}"
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    if os.name == "posix" and mode & 0o077:
        return None, f"the key of the certificate authority in {folder} was open to others; {again}"
    ends = root.not_valid_after_utc
    if ends <= now:
        return None, f"the certificate authority expired on {ends:%Y-%m-%d}; {again}"
    if ends <= now + SPARE:
        return None, f"the certificate authority ends on {ends:%Y-%m-%d %H:%M} UTC; {again}"
    if not (folder / "ca.pem").exists():
        return None, f"{folder / 'ca.pem'} was gone; {again}"
    return _Kept(key, issuer, root), ""


def _sign(
    key: ec.EllipticCurvePublicKey,
    by: tuple[ec.EllipticCurvePrivateKey, x509.Certificate | None],
    *,
    ends: datetime,
    now: datetime,
    usages: tuple[str, ...],
    extensions: list[tuple[x509.ExtensionType, bool]],
    name: str = _NAME,
) -> x509.Certificate:
    """One certificate. Every extension that strict verifiers ask for is there."""
    signing_key, issuer = by
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    flags = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # The clock of a device may be a little behind.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(ends)
        .add_extension(x509.KeyUsage(**(flags | dict.fromkeys(usages, True))), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signing_key, hashes.SHA256())


def _default_bundle() -> Path | None:
    """The file of the certificates that this machine trusts."""
    found = ssl.get_default_verify_paths()
    for name in (os.environ.get("SSL_CERT_FILE"), found.cafile, found.openssl_cafile):
        if name and Path(name).is_file():
            return Path(name)
    if find_spec("certifi") is None:
        return None
    import certifi

    return Path(certifi.where())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all; it never was readable by more than `mode` says."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    fresh.replace(path)
