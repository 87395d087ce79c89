"""TLS and SASL: what a connection to Kafka needs, and what it means when the broker refuses it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from aiokafka.errors import (
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from stream.errors import ConfigurationError
from stream.settings import Settings

__all__ = ["refusal", "tls_context"]

NAME_FAULTS = {62, 64}
"""OpenSSL's codes for a certificate of another host or IP address."""


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What TLS needs: whom to trust and, where one is set, our own certificate; None without TLS.

    Raises
    ------
    ConfigurationError
        When a file cannot be used; one line with its setting.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except OSError as error:
        raise _bad_file(error, "CAFILE", settings.ssl_cafile) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ssl_certfile is not None:
        # Given in any case: OpenSSL would ask for the password on a terminal that a service does not have.
        password = settings.ssl_key_password.get_secret_value
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
        except OSError as error:
            raise _bad_file(error, "CERTFILE", settings.ssl_certfile, settings.ssl_keyfile) from None
    return context


def _bad_file(error: OSError, setting: str, *paths: Path | None) -> ConfigurationError:
    names = " with ".join(str(path) for path in paths if path)
    # OpenSSL says little; a missing file has a proper reason.
    why = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else str(error)
    also = " (and its key and STANCEWATCH_SSL_KEY_PASSWORD)" if setting == "CERTFILE" else ""
    return ConfigurationError(f"STANCEWATCH_SSL_{setting}: cannot use {names}: {why}. Expected PEM{also}")


def refusal(settings: Settings, error: BaseException) -> str:
    """What the failure of a connection means and what to do, if it is one of security; otherwise empty.

    Parameters
    ----------
    settings : Settings
        In force when it failed.
    error : BaseException
        As aiokafka raised it; the causes behind it are looked at too.
    """
    return next(filter(None, (_meaning(settings, reason) for reason in _causes(error))), "")


def _meaning(settings: Settings, error: BaseException) -> str:
    login = f"the login of {settings.sasl_username!r} by {settings.sasl_mechanism}"
    match error:
        case ssl.SSLCertVerificationError(verify_code=code, verify_message=why) if code in NAME_FAULTS:
            said = f"shows a certificate of another name ({why})"
            remedy = "use a name that is in its certificate in STANCEWATCH_BROKER"
        case ssl.SSLCertVerificationError(verify_message=why):
            said = f"shows a certificate that is not trusted ({why})"
            remedy = "set STANCEWATCH_SSL_CAFILE to the certificate authority that signed it"
        case ssl.SSLError(reason=why) if "ALERT" in str(why):
            said = f"wants a certificate of ours that it trusts ({why})"
            remedy = "set STANCEWATCH_SSL_CERTFILE and STANCEWATCH_SSL_KEYFILE"
        case SaslAuthenticationFailed():
            said = f"refuses {login}"
            remedy = "check STANCEWATCH_SASL_USERNAME, STANCEWATCH_SASL_PASSWORD, STANCEWATCH_SASL_MECHANISM"
        case UnsupportedSaslMechanismError():
            said = f"does not offer {settings.sasl_mechanism}"
            remedy = "set STANCEWATCH_SASL_MECHANISM to one that is enabled there"
        case ssl.SSLError() | IllegalSaslStateError() | EOFError() | ConnectionResetError():
            said = f"ended the connection, it does not seem to speak {settings.security_protocol}"
            remedy = "set STANCEWATCH_SECURITY_PROTOCOL to that of its listener"
        case _:
            return ""
    return f"{said}: {remedy}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
