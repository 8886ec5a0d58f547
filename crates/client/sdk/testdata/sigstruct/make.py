"""Makes the SIGSTRUCTs of this folder with a signing key that is thrown away, and the manifest beside one of them.

    python3 -m venv venv && venv/bin/pip install cryptography && venv/bin/python make.py

Layout: Intel SDM, volume 3D, 38.13. It writes what `gramine-sgx-sign` writes: the enclave hash is a made-up one, because
no enclave is behind it. Each run makes a new key, so the signer changes; `signer` in README.md is that of the files here.
"""

import hashlib
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

FOLDER = Path(__file__).resolve().parent
MODE64, DEBUG, KSS = 0x4, 0x2, 0x80
HEADER = bytes.fromhex("06000000e10000000000010000000000")
HEADER2 = bytes.fromhex("01010000600000006000000001000000")


def little(number):
    return number.to_bytes(384, "little")


def sigstruct(key, hash_, product, svn, flags):
    signed_head = HEADER + struct.pack("<II", 0, 0x20261122) + HEADER2 + bytes(4 + 84)
    signed_tail = (
        struct.pack("<II", 0, 0xFFFFFFFF)  # MISCSELECT, MISCMASK
        + bytes(4 + 16)  # CET, reserved, ISVFAMILYID
        + struct.pack("<QQ", flags, 0x3)
        + struct.pack("<QQ", 0xFFFFFFFFFFFFFFFD, 0xFFFFFFFFFFFFFF1B)
        + hash_
        + bytes(16 + 16)  # reserved, ISVEXTPRODID
        + struct.pack("<HH", product, svn)
    )
    assert (len(signed_head), len(signed_tail)) == (128, 128)
    modulus = key.public_key().public_numbers().n
    signature = int.from_bytes(key.sign(signed_head + signed_tail, padding.PKCS1v15(), hashes.SHA256()), "big")
    square = signature * signature
    q1, q2 = square // modulus, (square % modulus) * signature // modulus
    return (
        signed_head + little(modulus) + struct.pack("<I", 3) + little(signature) + signed_tail
        + bytes(12) + little(q1) + little(q2)
    )


def main():
    key = rsa.generate_private_key(public_exponent=3, key_size=3072)
    hash_ = hashlib.sha256(b"sesemi test enclave").digest()
    files = {
        "production.sig": (hash_, 1, 2, MODE64),
        "debug.sig": (hash_, 1, 2, MODE64 | DEBUG),
        "configurable.sig": (hash_, 1, 2, MODE64 | KSS),
    }
    for name, arguments in files.items():
        data = sigstruct(key, *arguments)
        assert len(data) == 1808
        (FOLDER / name).write_bytes(data)
    print("enclave hash", hash_.hex())
    print("signer      ", hashlib.sha256(little(key.public_key().public_numbers().n)).hexdigest())


if __name__ == "__main__":
    main()
