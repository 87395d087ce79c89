"""Certificate authorities and certificates for the tests, made anew by ``openssl``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, each in a PEM file."""

    file: Path
    key: Path

    def in_one_file(self) -> Path:
        """Key and certificate together, as Kafka reads a PEM key store."""
        both = self.file.with_suffix(".store.pem")
        both.write_text(self.key.read_text() + self.file.read_text())
        return both


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_authority(folder: Path, name: str) -> Certificate:
    """A certificate authority of its own, valid for a day."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}",
             "-keyout", made.key, "-out", made.file)  # fmt: skip
    return made


def make_certificate(authority: Certificate, name: str, alternative: str, password: str = "") -> Certificate:
    """A certificate signed by an authority.

    Parameters
    ----------
    authority : Certificate
    name : str
        Common name and name of the files, which go beside those of the authority.
    alternative : str
        Subject alternative name, such as ``IP:127.0.0.1``.
    password : str
        Encrypts the private key; empty: it is not encrypted.
    """
    folder = authority.file.parent
    made, request = Certificate(folder / f"{name}.pem", folder / f"{name}.key"), folder / f"{name}.csr"
    encryption = ("-passout", f"pass:{password}") if password else ("-nodes",)
    _openssl("req", "-newkey", "rsa:2048", *encryption, "-subj", f"/CN={name}", "-keyout", made.key,
             "-out", request)  # fmt: skip
    extension = folder / f"{name}.ext"
    extension.write_text(f"subjectAltName={alternative}\n")
    _openssl("x509", "-req", "-in", request, "-CA", authority.file, "-CAkey", authority.key,
             "-CAcreateserial", "-days", "1", "-extfile", extension, "-out", made.file)  # fmt: skip
    return made
