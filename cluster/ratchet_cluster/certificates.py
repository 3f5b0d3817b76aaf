"""Keys and certificates of one cluster: its authority, what its servers show, what its clients sign in with.

Decides names, groups and life times. Elliptic keys, because ten RSA keys would cost more than the whole start. Who uses
which file: `plane.py`.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
VALID = datetime.timedelta(days=365)
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
CLIENTS = {  # file name -> (user, group); what RBAC sees
    "admin": ("ratchet-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "jobset": ("jobset-controller", "system:masters"),
    "kueue": ("kueue-controller", "system:masters"),
    "agent": ("node-agents", "system:masters"),
    "kubelet-client": ("kube-apiserver", "system:masters"),
}


def ensure(folder: Path) -> None:
    """Makes what is missing in `folder`: `ca`, `serving/tls`, one for each client (.crt, .key), `service-accounts`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    done = folder / "complete"
    if done.exists():
        return
    authority_key, authority = _authority()
    _write(folder / "ca.key", _pem(authority_key))
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
    (folder / "serving").mkdir(exist_ok=True)
    key, certificate = _signed(authority_key, authority, "kube-apiserver", None, server=True)
    _write(folder / "serving" / "tls.key", _pem(key))
    _write(folder / "serving" / "tls.crt", certificate)
    for name, (user, group) in CLIENTS.items():
        key, certificate = _signed(authority_key, authority, user, group, server=False)
        _write(folder / f"{name}.key", _pem(key))
        _write(folder / f"{name}.crt", certificate)
    accounts = ec.generate_private_key(ec.SECP256R1())
    _write(folder / "service-accounts.key", _pem(accounts))
    _write(
        folder / "service-accounts.pub",
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    _write(done, b"")


def ensure_rotated(folder: Path, authority: str, service: str) -> None:
    """Makes `ca.crt`, `ca.key`, `tls.crt`, `tls.key` in `folder` as a cert-controller takes them over unchanged.

    It wants an RSA authority that is named and valid for `authority`, and a certificate for `service`; it renews what
    is valid for less than 90 days.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / "complete").exists():
        return
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root = _self_signed(root_key, authority, x509.SubjectAlternativeName([x509.DNSName(authority)]))
    key, certificate = _signed(root_key, root, service, None, server=True, names=(service,))
    _write(folder / "ca.key", _pem(root_key, serialization.PrivateFormat.TraditionalOpenSSL))
    _write(folder / "ca.crt", root.public_bytes(serialization.Encoding.PEM))
    _write(folder / "tls.key", _pem(key))
    _write(folder / "tls.crt", certificate)
    _write(folder / "complete", b"")


def kubeconfig(folder: Path, client: str, server: str) -> str:
    """A kubeconfig (JSON, which is YAML) with everything inside it, so that the file can be copied."""
    text = {
        name: base64.b64encode((folder / name).read_bytes()).decode()
        for name in ("ca.crt", f"{client}.crt", f"{client}.key")
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "ratchet", "cluster": {"server": server, "certificate-authority-data": text["ca.crt"]}}
            ],
            "users": [
                {
                    "name": client,
                    "user": {
                        "client-certificate-data": text[f"{client}.crt"],
                        "client-key-data": text[f"{client}.key"],
                    },
                }
            ],
            "contexts": [
                {"name": "ratchet", "context": {"cluster": "ratchet", "user": client, "namespace": "default"}}
            ],
            "current-context": "ratchet",
        },
        indent=1,
    )


def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _self_signed(key, "ratchet local cluster")


def _self_signed(key: Key, name: str, names: x509.SubjectAlternativeName | None = None) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


def _signed(
    authority_key: Key,
    authority: x509.Certificate,
    user: str,
    group: str | None,
    *,
    server: bool,
    names: tuple[str, ...] = SERVER_NAMES,
) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])
    builder = (
        _builder(x509.Name(attributes), authority.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if server:
        hosts = [x509.DNSName(name) for name in names]
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "10.96.0.1")]
        builder = builder.add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
    return key, builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: PublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # a clock that was set back a little
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: Key, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def base64_of(path: Path) -> str:
    """A file's content the way Kubernetes objects carry it."""
    return base64.b64encode(path.read_bytes()).decode()
