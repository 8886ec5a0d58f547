//! The two COSE messages in use (RFC 9052): [`sign1`] for what principals and services say, [`encrypt0`] for what
//! nobody else may read.
//!
//! Only the deterministic encoding of exactly these shapes is accepted, and parsing copies nothing: a request's ciphertext
//! is opened in the buffer it arrived in. A general COSE library would take any shape and copy each byte string; it serves
//! as the judge in the tests instead.

pub mod encrypt0;
pub mod sign1;

/// COSE header label `alg` (RFC 9052, section 3.1).
pub(crate) const LABEL_ALG: i64 = 1;
/// COSE header label `kid`.
const LABEL_KID: i64 = 4;
/// COSE header label `IV`.
const LABEL_IV: i64 = 5;
/// Ed25519 signatures, `EdDSA` in the COSE registry (RFC 9053, section 2.2).
const ALG_EDDSA: i64 = -8;
/// AES-256-GCM with a 128-bit tag, `A256GCM` (RFC 9053, section 4.1).
pub(crate) const ALG_A256GCM: i64 = 3;

/// Why bytes are not the COSE message that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Above the limit for this kind of message.
    #[error("message of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// Length of the input, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Not of the one shape that is accepted.
    #[error("not a message of the expected form: {0}")]
    Malformed(&'static str),
    /// The signature or the tag does not verify.
    #[error("the message is not authentic: changed on the way, or made with another key")]
    NotAuthentic,
    /// Keys could not be derived or randomness was missing.
    #[error("the cryptographic provider failed: {0}")]
    Provider(&'static str),
}

/// The shape of a decoding error is of no use to a peer, and its text must not depend on secrets.
fn malformed(what: &'static str) -> impl Fn(minicbor::decode::Error) -> CoseError {
    move |_| CoseError::Malformed(what)
}

/// Encoding into a `Vec` cannot fail; the type says otherwise.
fn infallible<E>(_: E) -> CoseError {
    CoseError::Provider("encoding failed")
}
