//! How isolation is asked for on the command line: the same two options wherever an owner or a user may ask.

use clap::{Args, ValueEnum};
use sesemi::{IsolationChange, IsolationLevel};

/// The options; what is not given stays as it was.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct IsolationArgs {
    /// What requests may share an enclave with: owner and user both may ask, and the stricter wins [default: shared; a request
    /// key keeps what it has, and the first one of a model has that of your key for all models, if there is one].
    #[arg(long, value_name = "LEVEL", help_heading = "Isolation")]
    pub isolation: Option<LevelArg>,
    /// Release responses only at multiples of this time after the request came, so that their timing says less of the work: 0
    /// (none) to 60000 ms. The greater of the owner's and the user's wins [default: 0; for request keys as with
    /// `--isolation`].
    #[arg(
        long,
        value_name = "MS",
        help_heading = "Isolation",
        value_parser = clap::value_parser!(u32).range(0..=60_000)
    )]
    pub response_quantum_ms: Option<u32>,
}

/// A level, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Other users' requests, also as rows of one run, if the model has a batch: the model itself could mix them
    Batched,
    /// Other users' requests, at the same time; the enclave's code keeps them apart
    Shared,
    /// Requests of the same user alone; the enclave is cleared before it serves another
    DedicatedUser,
    /// Nothing: one request at a time, buffers wiped and keys dropped after each. Slow: every request costs a key release
    Sequential,
}

impl From<LevelArg> for IsolationLevel {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Batched => Self::Batched,
            LevelArg::Shared => Self::Shared,
            LevelArg::DedicatedUser => Self::DedicatedUser,
            LevelArg::Sequential => Self::Sequential,
        }
    }
}

impl IsolationArgs {
    /// What was asked for.
    #[must_use]
    pub fn change(self) -> IsolationChange {
        IsolationChange {
            level: self.isolation.map(Into::into),
            quantum_ms: self.response_quantum_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        isolation: IsolationArgs,
    }

    fn read(words: &[&str]) -> Option<IsolationChange> {
        let line = Line::try_parse_from(core::iter::once(&"line").chain(words)).ok()?;
        Some(line.isolation.change())
    }

    #[test]
    fn a_level_is_written_on_the_command_line_as_everywhere() {
        for level in IsolationLevel::ALL {
            let change = read(&["--isolation", level.as_str()]).unwrap();
            assert_eq!(change.level, Some(level));
            assert_eq!(change.quantum_ms, None);
        }
        assert_eq!(read(&["--isolation", "none"]), None);
        assert_eq!(read(&[]), Some(IsolationChange::default()));
    }

    #[test]
    fn a_quantum_is_at_most_a_minute() {
        let of = |text| read(&["--response-quantum-ms", text]).map(|change| change.quantum_ms);
        assert_eq!(of("0"), Some(Some(0)));
        assert_eq!(of("60000"), Some(Some(60_000)));
        for bad in ["60001", "-1", "fast"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
