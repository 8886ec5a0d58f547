//! The one way AMD's authorities sign: RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt (RFC 4055).
//!
//! The parser is lenient about tags outside of what is signed. So the frame around it is compared byte by byte here: of a
//! certificate or a list that verifies there is one encoding, and it is the one that was issued.

use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};

use super::{Link, SnpError};

/// The AlgorithmIdentifier in DER, with the trailer field left out as its default value is to be.
const PSS_SHA384: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30";
/// The same with the trailer field written out, as in AMD's older certificates.
const PSS_SHA384_TRAILER: &[u8] = b"\x30\x46\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x39\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";

/// Checks that `der` is nothing but the SEQUENCE of `signed`, the algorithm above and the BIT STRING `signature`.
pub(super) fn check_frame(
    der: &[u8],
    signed: &[u8],
    signature: &[u8],
    link: Link,
) -> Result<(), SnpError> {
    let malformed = SnpError::Malformed(link);
    let Some(content) = strip_header(0x30, der) else {
        return Err(malformed);
    };
    let Some(after) = content.strip_prefix(signed) else {
        return Err(malformed);
    };
    let bit_string = [PSS_SHA384, PSS_SHA384_TRAILER]
        .into_iter()
        .find_map(|algorithm| after.strip_prefix(algorithm))
        .ok_or(SnpError::Algorithm(link))?;
    match strip_header(0x03, bit_string) {
        Some([0, bits @ ..]) if bits == signature => Ok(()),
        _ => Err(malformed),
    }
}

/// What follows the header of an element that goes on to the end. With an RSA signature inside, lengths take two bytes.
fn strip_header(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let ([found, 0x82, high, low], content) = der.split_first_chunk()? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (*found == tag && length == content.len()).then_some(content)
}

/// Verifies `signature` over the bytes of `link` as they were received, with an RSA key (PKCS #1 DER).
pub(super) fn check(
    rsa_key: &[u8],
    signed: &[u8],
    signature: &[u8],
    link: Link,
) -> Result<(), SnpError> {
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, rsa_key)
        .verify(signed, signature)
        .map_err(|_| SnpError::Signature(link))
}
