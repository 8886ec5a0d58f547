//! The shell around a trusted service, the same for KeyService and SeMIRT: how its process reads settings ([`settings`]),
//! whose evidence it believes ([`trust`]), how it gives up the rights that it does not need ([`sandbox`]), how it starts,
//! announces itself and stops ([`lifecycle`]), what it records of its TEE's work ([`traced`]), and the bounded HTTP server that its
//! operator and its platform talk to ([`http`]).
//!
//! Nothing here touches a key. It is trusted because it runs inside the TEE, so it is small.

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

pub mod http;
pub mod lifecycle;
pub mod sandbox;
pub mod settings;
pub mod traced;
pub mod trust;

pub use sesemi_hardening::wiped::{Wiped, wipe};
pub use sesemi_hardening::wiping::{
    WipingAllocator, everything as wipe_everything, give_back_what_is_free, keep_what_is_freed,
    share_one_arena,
};
