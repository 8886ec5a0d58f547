//! Where traces go, how many of them, and how much: plain checked values, wherever they were read from.
//!
//! The programs read them from flags, variables and a settings file that refuses unknown keys with their line. Serde cannot flatten
//! one struct into another and do that too, so each program lists the three settings and hands them to [`Export::new`].

use core::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// The longest that a file gets unless somebody says otherwise, in MiB.
pub const MAX_MIB: u32 = 256;
/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// The share of traces that begin here which is recorded, 0 to 1. A caller that has a trace decides for itself.
///
/// Held in 2^-56ths: level 2 of Trace Context says that the last 56 bits of a trace's id are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Ratio(pub(crate) u64);

/// All values of the random bits of a trace's id.
pub(crate) const WHOLE: u64 = 1 << 56;

impl Ratio {
    /// All of them.
    pub const ALL: Self = Self(WHOLE);
}

impl TryFrom<f64> for Ratio {
    type Error = &'static str;

    fn try_from(ratio: f64) -> Result<Self, Self::Error> {
        let within = (0.0..=1.0).contains(&ratio);
        // 2^56 is exact as a float, and so is every product with it.
        let part = (ratio * WHOLE as f64) as u64;
        within.then_some(Self(part)).ok_or("must be 0 to 1")
    }
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<f64>().unwrap_or(f64::NAN).try_into()
    }
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// A file of one process, which is appended to; or a folder, in which each process makes a file of its own.
    pub to: PathBuf,
    /// How many of those that begin here.
    pub ratio: Ratio,
    /// The longest that a file gets, in bytes.
    pub max_bytes: u64,
}

impl Export {
    /// What three settings mean: without a place there are no traces, and a file gets at most [`MAX_MIB`] long if nobody says so.
    #[must_use]
    pub fn new(
        to: Option<PathBuf>,
        ratio: Option<Ratio>,
        max_mib: Option<NonZeroU32>,
    ) -> Option<Self> {
        let max_mib = max_mib.map_or(MAX_MIB, NonZeroU32::get);
        to.map(|to| Self {
            to,
            ratio: ratio.unwrap_or(Ratio::ALL),
            max_bytes: u64::from(max_mib).saturating_mul(MIB),
        })
    }
}
