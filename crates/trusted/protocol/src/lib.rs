//! The formats that owners, users, KeyService and SeMIRT exchange, and every protocol step on them.
//!
//! This crate is sans-IO: no sockets, no files, no clock, no async. Randomness comes in through
//! [`Entropy`], so that each step can be replayed in a test, and everything that an outsider sent is checked for size
//! before anything is allocated for it. `spec/` describes each format in words, with test vectors.
//!
//! Where to look:
//! - [`id`]: who and what: principals, services, models, code identities, requests;
//! - [`cbor`], [`cose`]: strict deterministic CBOR (RFC 8949, 4.2.1) and the two COSE messages (RFC 9052) in use;
//! - [`envelope`]: sealed requests and responses; [`tensor`]: what is in them;
//!   [`mod@reference`]: where they lie if they are not sent;
//! - [`package`]: the encrypted model package and its manifest;
//! - [`command`], [`receipt`]: what principals tell KeyService, and how it acknowledges; [`query`]: what they ask it;
//! - [`audit`]: its log, as principals see and verify it; [`share`]: what custodians keep;
//! - [`release`]: how an enclave asks for keys and what a lease holds; [`isolation`]: what it demands of the enclave;
//! - [`wire`]: the messages on an attested channel;
//! - [`causes`]: errors as people read them;
//! - [`limits`]: every bound, in one place.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod audit;
pub mod causes;
pub mod cbor;
pub mod command;
pub mod cose;
pub mod entropy;
pub mod envelope;
pub mod id;
pub mod identity;
pub mod isolation;
pub mod kdf;
pub mod limits;
pub mod package;
pub mod padding;
pub mod query;
pub mod receipt;
pub mod reference;
pub mod refusal;
pub mod release;
pub mod secret;
pub mod share;
pub mod tensor;
pub mod wire;

pub use entropy::{Entropy, EntropyError, SystemEntropy};
pub use id::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    ModelVersion, PrincipalId, RequestId, ServiceId, VersionSelector,
};
pub use identity::{PublicIdentity, SigningIdentity};
pub use isolation::{Isolation, IsolationLevel};
pub use refusal::{Refusal, RefusalCode};
pub use secret::SecretKey;
