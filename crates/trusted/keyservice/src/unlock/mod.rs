//! The ways to the state key: whatever KeyService keeps is sealed under keys derived from it, and it stands nowhere in the
//! clear.
//!
//! Each way is a file in the folder `unlock` that holds the state key sealed under another key ([`wraps`]):
//!
//! - `<code>.tee`: under the TEE's sealing key. This code on this platform opens it by itself at every start;
//! - `recovery`: under the recovery key, which is nowhere as a whole. It exists as [`Share`]s, one for each custodian, and
//!   enough of them together open the file on any platform and for any code.
//!
//! The files are the host's to lose, to replace and to read; none of that gives the state key away. What the host can do is
//! to keep KeyService from starting.

mod error;
mod files;
mod split;
pub mod wraps;

pub use error::UnlockError;
pub use sesemi_protocol::share::{Scheme, Share, ShareError};
pub use split::{combine, split};
pub use wraps::{Recovery, UnlockFolder, Unlocked};
