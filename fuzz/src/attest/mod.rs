//! Evidence, endorsements, policies, sealed state, and what a peer sends on an attested channel.

pub(crate) mod channel;
pub(crate) mod evidence;
pub(crate) mod policy;
pub(crate) mod quote;
pub(crate) mod snp;

/// A file of `crates/trusted/attest/testdata`.
macro_rules! testdata {
    ($path:literal) => {
        include_bytes!(concat!("../../../crates/trusted/attest/testdata/", $path))
    };
}
pub(crate) use testdata;
