"""Over TLS the broker must be the one that the URL names, with a certificate that the system trusts."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from kombu import Connection

from orchestrator.broker.celery_app import make_app
from orchestrator.settings import Settings
from orchestrator.wire import transport_of


def certificate(folder: Path, *names: x509.GeneralName) -> Path:
    """A certificate that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = folder / "broker.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + built.public_bytes(Encoding.PEM)
    )
    return file


@contextmanager
def broker(file: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server that listens with this certificate: its port, and what was said to it over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:  # kombu tries again
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                with suppress(OSError), context.wrap_socket(plain, server_side=True) as talking:
                    heard.append(talking.recv(8))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], heard
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def ours(url: str) -> Connection:
    """As intake, the relay and publishers connect."""
    return Connection(url, transport=transport_of(url), connect_timeout=5)


def celerys(url: str) -> Connection:
    """As workers connect, and those who ring for them."""
    settings = Settings.model_validate({"database_url": "postgresql://u:p@h/d", "broker_url": url})
    return make_app(settings, []).connection_for_write()


def connect(how: Callable[[str], Connection], port: int, host: str = "127.0.0.1") -> Exception:
    """Connect, and tell what came of it: this server never speaks AMQP."""
    with how(f"amqps://guest:guest@{host}:{port}//") as connection:
        try:
            connection.connect()
        except Exception as error:  # noqa: BLE001 - told to the test
            return error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    raise AssertionError("it spoke AMQP")


everybody = pytest.mark.parametrize("how", [ours, celerys])
HERE, NAMED = x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("broker.example.org")


@everybody
@pytest.mark.parametrize(("names", "host"), [([HERE], "127.0.0.1"), ([NAMED], "broker.example.org")])
def test_a_broker_that_is_who_it_should_be_is_spoken_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: Callable[[str], Connection],
    names: list[x509.GeneralName],
    host: str,
) -> None:
    file = certificate(tmp_path, *names)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *how, **more: found("127.0.0.1", *how, **more))
    with broker(file) as (port, heard):
        assert not isinstance(connect(how, port, host), ssl.SSLCertVerificationError)
    assert set(heard) == {b"AMQP\x00\x00\x09\x01"}


@everybody
def test_a_broker_that_shows_another_ones_certificate_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[str], Connection]
) -> None:
    file = certificate(tmp_path, NAMED)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with broker(file) as (port, heard):
        assert isinstance(connect(how, port), ssl.SSLCertVerificationError)
    assert heard == []


@everybody
def test_a_broker_that_nobody_vouches_for_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[str], Connection]
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with broker(certificate(tmp_path, HERE)) as (port, heard):
        assert isinstance(connect(how, port), ssl.SSLCertVerificationError)
    assert heard == []
