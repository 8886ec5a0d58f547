//! How far requests that share an enclave are kept apart. A model's owner chooses when it registers a version, a user when it
//! deposits a request key, and the stricter of the two comes with the keys in the lease.
//!
//! It is bound to the keys because only then can nobody who wants less of it take it away: neither the host that starts the
//! enclave, nor the operator who configures it, nor the one of the two principals who asked for less. The levels follow the
//! paper (arXiv 2412.11640): SeMIRT serves many requests at once by default, and its strong mode, which gives that up, is
//! [`IsolationLevel::Sequential`].

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use minicbor::{Decode, Decoder, Encode};

use crate::limits::MAX_QUANTUM_MS;

/// What a request may share an enclave with. The greater level is the stricter one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum IsolationLevel {
    /// Anybody's requests, also in one run with this one: their tensors are then the rows of one. What separates them is the code
    /// of the enclave and the model itself, which could carry what it reads in one row into another.
    #[n(3)]
    Batched,
    /// Anybody's requests, at the same time, but each user's in runs of their own. What separates them is the code of the enclave.
    #[default]
    #[n(0)]
    Shared,
    /// Requests of the same user alone: whatever the enclave holds of a user is cleared before it serves another.
    #[n(1)]
    DedicatedUser,
    /// Nothing: one request at a time, buffers wiped after each, and no key kept from one to the next. It costs a key release
    /// for every request.
    #[n(2)]
    Sequential,
}

impl IsolationLevel {
    /// Every level, the laxest first.
    pub const ALL: [Self; 4] = [
        Self::Batched,
        Self::Shared,
        Self::DedicatedUser,
        Self::Sequential,
    ];

    /// Its name, as it is written on command lines and shown to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batched => "batched",
            Self::Shared => "shared",
            Self::DedicatedUser => "dedicated-user",
            Self::Sequential => "sequential",
        }
    }
}

impl fmt::Display for IsolationLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IsolationLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or(UnknownLevel)
    }
}

/// No name of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an isolation level is batched, shared, dedicated-user or sequential")]
pub struct UnknownLevel;

/// What one party asks for, or what a lease demands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Isolation {
    /// What a request may share an enclave with.
    #[n(0)]
    pub level: IsolationLevel,
    /// In milliseconds: a response leaves only when a multiple of it has passed since its request came, so that how long the
    /// work took is seen no finer than that. 0 for as soon as it is there; at most [`MAX_QUANTUM_MS`].
    #[cbor(n(1), decode_with = "quantum")]
    pub quantum_ms: u32,
}

/// A wait that is out of bounds is refused wherever it comes from: whoever reads it waits by it.
fn quantum<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<u32, minicbor::decode::Error> {
    let quantum = d.u32()?;
    if quantum > MAX_QUANTUM_MS {
        return Err(minicbor::decode::Error::message("quantum out of bounds"));
    }
    Ok(quantum)
}

/// The quantum is out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a response quantum is 0 (none) to {MAX_QUANTUM_MS} ms")]
pub struct QuantumError;

impl Isolation {
    /// A level and a quantum in milliseconds.
    ///
    /// # Errors
    /// [`QuantumError`] if the quantum is above [`MAX_QUANTUM_MS`].
    pub fn new(level: IsolationLevel, quantum_ms: u32) -> Result<Self, QuantumError> {
        let isolation = Self { level, quantum_ms };
        isolation.check().map(|()| isolation)
    }

    /// Whether it is within bounds.
    ///
    /// # Errors
    /// [`QuantumError`] if the quantum is above [`MAX_QUANTUM_MS`].
    pub fn check(&self) -> Result<(), QuantumError> {
        if self.quantum_ms > MAX_QUANTUM_MS {
            return Err(QuantumError);
        }
        Ok(())
    }

    /// What satisfies both: the stricter level and the greater quantum. The greater of two quanta hides more, although its
    /// multiples need not be multiples of the other.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self {
            level: self.level.max(other.level),
            quantum_ms: self.quantum_ms.max(other.quantum_ms),
        }
    }

    /// The quantum as a time; `None` if responses leave as soon as they are there.
    #[must_use]
    pub fn quantum(self) -> Option<Duration> {
        let quantum = Duration::from_millis(u64::from(self.quantum_ms));
        Some(quantum).filter(|quantum| !quantum.is_zero())
    }
}

impl From<IsolationLevel> for Isolation {
    /// The level without a quantum.
    fn from(level: IsolationLevel) -> Self {
        Self {
            level,
            quantum_ms: 0,
        }
    }
}

impl fmt::Display for Isolation {
    /// `sequential`, or `sequential, every 50 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        if self.quantum_ms > 0 {
            write!(f, ", every {} ms", self.quantum_ms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{CborError, decode, encode};

    fn isolation(level: IsolationLevel, quantum_ms: u32) -> Isolation {
        Isolation::new(level, quantum_ms).unwrap()
    }

    #[test]
    fn the_stricter_of_two_is_the_greater_level_and_the_greater_quantum() {
        use IsolationLevel::{Batched, DedicatedUser, Sequential, Shared};
        assert!(Batched < Shared && Shared < DedicatedUser && DedicatedUser < Sequential);
        let of = |a, b| isolation(a, 10).stricter(isolation(b, 25));
        assert_eq!(of(Sequential, Shared), isolation(Sequential, 25));
        assert_eq!(of(Batched, Shared), isolation(Shared, 25));
        assert_eq!(of(Batched, Batched), isolation(Batched, 25));
        assert_eq!(of(Shared, DedicatedUser), isolation(DedicatedUser, 25));
        let both = Isolation::from(Sequential).stricter(isolation(Shared, 60_000));
        assert_eq!(both, isolation(Sequential, 60_000));
    }

    #[test]
    fn stricter_weakens_neither_side_and_is_the_least_that_does_not() {
        let quanta = [0, 1, 20, 60_000];
        let all: Vec<Isolation> = IsolationLevel::ALL
            .into_iter()
            .flat_map(|level| quanta.map(|quantum| isolation(level, quantum)))
            .collect();
        let covers =
            |a: Isolation, b: Isolation| a.level >= b.level && a.quantum_ms >= b.quantum_ms;
        for a in &all {
            assert_eq!(a.stricter(isolation(IsolationLevel::Batched, 0)), *a);
            assert_eq!(a.stricter(*a), *a);
            for b in &all {
                let both = a.stricter(*b);
                assert_eq!(both, b.stricter(*a));
                assert!(covers(both, *a) && covers(both, *b));
                for other in all.iter().filter(|c| covers(**c, *a) && covers(**c, *b)) {
                    assert!(covers(*other, both), "{other} is enough for {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn an_isolation_has_one_encoding_and_bounds() {
        for level in IsolationLevel::ALL {
            for quantum_ms in [0, 23, 24, 255, 256, 60_000] {
                let isolation = isolation(level, quantum_ms);
                let bytes = encode(&isolation).unwrap();
                assert_eq!(decode::<Isolation>(&bytes, 16).unwrap(), isolation);
            }
        }
        assert_eq!(
            encode(&isolation(IsolationLevel::Sequential, 500))
                .unwrap()
                .as_slice(),
            [0x82, 0x02, 0x19, 0x01, 0xf4]
        );
        // A fifth level, a quantum of 60001 ms, none at all, one more field, a quantum in long form, a map.
        let others: [&[u8]; 6] = [
            &[0x82, 0x04, 0x00],
            &[0x82, 0x00, 0x19, 0xea, 0x61],
            &[0x81, 0x00],
            &[0x83, 0x00, 0x00, 0x00],
            &[0x82, 0x00, 0x18, 0x05],
            &[0xa2, 0x00, 0x00, 0x01, 0x00],
        ];
        for other in others {
            let refused = decode::<Isolation>(other, 16);
            assert!(
                matches!(
                    refused,
                    Err(CborError::Malformed(_) | CborError::NotDeterministic)
                ),
                "{other:x?}"
            );
        }
        assert_eq!(
            Isolation::new(IsolationLevel::Shared, 60_001),
            Err(QuantumError)
        );
    }

    #[test]
    fn a_level_is_read_by_its_name_and_no_other() {
        for level in IsolationLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for other in ["", "Shared", "dedicated", "sequential "] {
            assert_eq!(other.parse::<IsolationLevel>(), Err(UnknownLevel));
        }
        assert_eq!(isolation(IsolationLevel::Shared, 0).to_string(), "shared");
        assert_eq!(
            isolation(IsolationLevel::Sequential, 50).to_string(),
            "sequential, every 50 ms"
        );
    }

    #[test]
    fn no_quantum_is_no_wait() {
        assert_eq!(Isolation::default().quantum(), None);
        let waits = isolation(IsolationLevel::Shared, 50).quantum();
        assert_eq!(waits, Some(Duration::from_millis(50)));
    }
}
