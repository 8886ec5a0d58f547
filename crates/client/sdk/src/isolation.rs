//! What an owner or a user says about isolation, where it need not say everything: what is left unsaid stays as it was.
//!
//! A key is deposited again for each new build of the code, and rotated. If that asked for [`Isolation::default`] unless told
//! otherwise, an update would quietly take away what the user once asked for.

use sesemi_protocol::{Isolation, IsolationLevel};

/// What is to be asked for from now on; the default changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IsolationChange {
    /// What requests may share an enclave with; `None` leaves it.
    pub level: Option<IsolationLevel>,
    /// The quantum of responses in milliseconds, 0 for none; `None` leaves it.
    pub quantum_ms: Option<u32>,
}

impl IsolationChange {
    /// `known` with the change.
    #[must_use]
    pub fn over(self, known: Isolation) -> Isolation {
        Isolation {
            level: self.level.unwrap_or(known.level),
            quantum_ms: self.quantum_ms.unwrap_or(known.quantum_ms),
        }
    }
}

impl From<Isolation> for IsolationChange {
    /// Everything is said.
    fn from(asked: Isolation) -> Self {
        Self {
            level: Some(asked.level),
            quantum_ms: Some(asked.quantum_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_unsaid_stays_as_it_was() {
        let known = Isolation::new(IsolationLevel::Sequential, 50).unwrap();
        assert_eq!(IsolationChange::default().over(known), known);
        let level = IsolationChange {
            level: Some(IsolationLevel::DedicatedUser),
            quantum_ms: None,
        };
        let quantum = IsolationChange {
            level: None,
            quantum_ms: Some(0),
        };
        let of = |level, quantum_ms| Isolation::new(level, quantum_ms).unwrap();
        assert_eq!(level.over(known), of(IsolationLevel::DedicatedUser, 50));
        assert_eq!(quantum.over(known), of(IsolationLevel::Sequential, 0));
        let other = of(IsolationLevel::Shared, 7);
        assert_eq!(IsolationChange::from(other).over(known), other);
    }
}
