//! Floods over real sockets: of connections that say nothing, of connections and calls from one address, of principals. They
//! hold what one address may hold, for a while and no longer, and who came with something to say is served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod connections;
mod replays;
mod running;
mod strangers;
