#!/usr/bin/env python3
"""Makes the PKI in `made/`: certificates and revocation lists shaped like AMD's, each with one thing wrong.

    python3 -m venv venv && venv/bin/pip install cryptography==48.0.0 && venv/bin/python make.py

Every run makes new keys, so all files change together. The authorities' private keys are thrown away; only the VCEK's
is kept, so that tests can sign reports of their own. Validity periods are nested, root outermost: a test reaches each
"not yet valid" and "expired" by its choice of the time alone.
"""

from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

HERE = Path(__file__).resolve().parent
OUT = HERE / "made"
ROOTS = HERE.parent.parent / "roots" / "amd"
PERIODS = {"ark": (2020, 2060), "ask": (2021, 2059), "vcek": (2022, 2058), "crl": (2023, 2057)}
ASK_SERIAL, VCEK_SERIAL = 0x10001, 0x77
HWID = bytes(range(64))
AMD = "1.3.6.1.4.1.3704.1."
# Boot loader, TEE, SNP firmware (high enough that DER needs a second byte), microcode.
TCB = {"3.1": 3, "3.2": 0, "3.3": 0x85, "3.8": 115}


def name(common_name):
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Tests"),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
    ])


ARK, ASK, VCEK = name("ARK-Made"), name("SEV-Made"), name("SEV-VCEK")


def period(kind):
    return [datetime(year, 1, 1, tzinfo=timezone.utc) for year in PERIODS[kind]]


def pss(digest=hashes.SHA384()):
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)


def sign(builder, key, digest=hashes.SHA384()):
    return builder.sign(key, digest, rsa_padding=pss(digest))


def certificate(kind, subject, issuer, key, serial):
    start, end = period(kind)
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(serial).not_valid_before(start).not_valid_after(end)
    )


def usage(certificates, lists):
    flags = dict.fromkeys(
        ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"], False)
    return x509.KeyUsage(key_cert_sign=certificates, crl_sign=lists, **flags)


def authority(kind, subject, issuer, key, serial, ca=True, certificates=True, lists=False):
    return (
        certificate(kind, subject, issuer, key, serial)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage(certificates, lists), critical=True)
    )


def extension(builder, suffix, value, critical=False):
    oid = ObjectIdentifier(suffix if suffix.startswith("2.") else AMD + suffix)
    return builder.add_extension(x509.UnrecognizedExtension(oid, value), critical)


def integer(value):
    return bytes([2, 1, value]) if value < 128 else bytes([2, 2, 0, value])


def vcek(key, tcb=TCB, hwid=HWID, product=b"Milan-B0", subject=VCEK, issuer=ASK, without=None):
    builder = certificate("vcek", subject, issuer, key, VCEK_SERIAL)
    parts = {"2": b"\x16" + bytes([len(product)]) + product}
    parts |= {suffix: integer(value) for suffix, value in tcb.items()}
    parts["4"] = hwid
    for suffix, value in parts.items():
        if suffix != without:
            builder = extension(builder, suffix, value)
    return builder


def crl(revoked=(), issuer=ARK, number=7):
    this_update, next_update = period("crl")
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer)
    builder = builder.last_update(this_update).next_update(next_update)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this_update)
        builder = builder.add_revoked_certificate(entry.build())
    return builder if number is None else builder.add_extension(x509.CRLNumber(number), critical=False)


def main():
    OUT.mkdir(exist_ok=True)

    def save(file, made):
        (OUT / f"{file}.der").write_bytes(made.public_bytes(Encoding.DER))

    def rsa_key():
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    ark_key, ask_key, other = rsa_key(), rsa_key(), rsa_key()
    vcek_key = ec.generate_private_key(ec.SECP384R1())
    (OUT / "test-only-vcek-private-key.pk8").write_bytes(
        vcek_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))

    def ark(**flags):
        return authority("ark", ARK, ARK, ark_key, 0x10000, **({"lists": True} | flags))

    save("ark", sign(ark(), ark_key))
    save("ark-signed-by-another", sign(ark(), other))
    save("ark-without-crl-sign", sign(ark(lists=False), ark_key))
    save("ark-issued-by-another", sign(authority("ark", ARK, name("Another"), ark_key, 1, lists=True), ark_key))

    def ask(issuer=ARK, **flags):
        return authority("ask", ASK, issuer, ask_key, ASK_SERIAL, **flags)

    save("ask", sign(ask(), ark_key))
    save("ask-signed-by-another", sign(ask(), other))
    save("ask-issued-by-another", sign(ask(issuer=name("Another")), ark_key))
    save("ask-no-ca", sign(ask(ca=False, certificates=False), ark_key))
    save("ask-without-cert-sign", sign(ask(certificates=False, lists=True), ark_key))

    save("vcek", sign(vcek(vcek_key), ask_key))
    save("vcek-turin", sign(vcek(vcek_key, {"3.9": 1} | TCB, HWID[:8], b"Turin"), ask_key))
    save("vcek-signed-by-another", sign(vcek(vcek_key), other))
    save("vcek-issued-by-another", sign(vcek(vcek_key, issuer=name("Another")), ask_key))
    save("vcek-named-vlek", sign(vcek(vcek_key, subject=name("SEV-VLEK")), ask_key))
    save("vcek-sha256", sign(vcek(vcek_key), ask_key, hashes.SHA256()))
    save("vcek-p256", sign(vcek(ec.generate_private_key(ec.SECP256R1())), ask_key))
    save("vcek-without-hwid", sign(vcek(vcek_key, without="4"), ask_key))
    save("vcek-is-ca", sign(vcek(vcek_key).add_extension(x509.BasicConstraints(True, None), True), ask_key))
    save("vcek-unknown-critical", sign(extension(vcek(vcek_key), "99", b"\x05\x00", critical=True), ask_key))

    save("crl", sign(crl(), ark_key))
    save("crl-revokes-ark", sign(crl([1, 0x10000]), ark_key))
    save("crl-revokes-ask", sign(crl([1, ASK_SERIAL, 2]), ark_key))
    save("crl-revokes-vcek", sign(crl([1, 2, VCEK_SERIAL]), ark_key))
    save("crl-signed-by-another", sign(crl(), other))
    save("crl-issued-by-another", sign(crl(issuer=name("Another")), ark_key))
    save("crl-sha256", sign(crl(), ark_key, hashes.SHA256()))
    save("crl-without-number", sign(crl(number=None), ark_key))
    # In the names of AMD's own, and so refused for nothing but the signature.
    milan = x509.load_der_x509_certificate((ROOTS / "ask-milan.der").read_bytes())
    save("vcek-in-amds-name", sign(vcek(vcek_key, issuer=milan.subject), ask_key))
    save("crl-in-amds-name", sign(crl(issuer=milan.issuer), ark_key))
    # A delta list names only what changed: it must not pass for the whole.
    save("crl-delta", sign(crl().add_extension(x509.DeltaCRLIndicator(1), critical=True), ark_key))


if __name__ == "__main__":
    main()
