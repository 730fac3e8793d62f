"""The key by which the workers of a run and its driver know each other: made for the run, for the user alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError
from ems.base.private import make_file, make_folder
from ems.node.driver.points import CERTIFICATE, KEY

VALID = timedelta(days=400)  # longer than any run


def make_certificate(folder: Path) -> None:
    """Write a new certificate, signed by its own key, and the key into `folder`, which is made if need be.

    EmsError if the package that makes them is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        message = f"Workers of other machines need a package that is not installed: {error}."
        raise EmsError(message, "Install it: pip install 'ems-experiments[slurm]'") from error
    make_folder(folder)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ems")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of nodes differ
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    make_file(folder / KEY)
    (folder / KEY).write_bytes(private)
    aside.write(folder / CERTIFICATE, certificate.public_bytes(pem))
