//! Actions: what is deployed, and what of it runs. Names are validated where they enter, so that everything behind may
//! use them in file names, headers and log lines without another thought.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::InstanceId;

/// The name of an action: 1 to 64 characters of `a-z`, `0-9` and `-`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionName(Arc<str>);

/// Text that is no [`ActionName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an action name has 1 to 64 characters of a-z, 0-9 and '-'")]
pub struct InvalidActionName;

impl ActionName {
    /// Longest name, in characters.
    pub const MAX_LEN: usize = 64;

    /// Checks `name` and takes it over.
    pub fn new(name: &str) -> Result<Self, InvalidActionName> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(allowed) {
            return Err(InvalidActionName);
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ActionName {
    type Err = InvalidActionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

/// What an instance runs. Which kind a platform takes, it says in an error to a deployment of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A program of this host.
    Program(Program),
    /// A container image that the platform has, or fetches.
    Container(Container),
}

/// A program of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub binary: PathBuf,
    /// Its arguments, as they are.
    pub args: Vec<OsString>,
    /// Its environment. Nothing of the host's own environment is passed on but `PATH`.
    pub env: BTreeMap<String, String>,
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its reference: repository with a tag or, better, a digest.
    pub reference: String,
    /// Arguments after the image's entry point.
    pub args: Vec<String>,
    /// Environment beside what the image sets.
    pub env: BTreeMap<String, String>,
}

/// Who an action is in OpenWhisk's words, which its instances are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its namespace, without slashes.
    pub namespace: String,
    /// Its name within the namespace.
    pub name: String,
    /// Its version, as `0.0.1`.
    pub version: String,
}

impl Entity {
    /// The name in full: `/namespace/name`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.namespace, self.name)
    }
}

/// An action to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionSpec {
    /// Its name; one action a name.
    pub name: ActionName,
    /// What its instances run.
    pub image: Image,
    /// Memory that one instance is charged for, in MiB; at least 1.
    pub memory_mib: u32,
    /// Requests that one instance serves at once; at least 1.
    pub concurrency: u32,
    /// Longest run of one request inside an instance. An instance that exceeds it gets no further requests.
    pub timeout: Duration,
    /// Who it is to its instances; `None` stands for `/guest/NAME` in its first version.
    pub entity: Option<Entity>,
}

impl ActionSpec {
    /// Who it is to its instances.
    pub fn entity(&self) -> Entity {
        self.entity.clone().unwrap_or_else(|| Entity {
            namespace: "guest".to_owned(),
            name: self.name.to_string(),
            version: "0.0.1".to_owned(),
        })
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstancePhase {
    /// Started, not ready yet.
    Starting,
    /// Serves requests, or waits for some.
    Ready,
    /// Finishes what it has in flight and gets nothing new.
    Draining,
    /// Has been told to end; its memory is still taken.
    Stopping,
}

impl InstancePhase {
    /// The phase in one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// One instance, as the platform sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Which one.
    pub id: InstanceId,
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// Requests bound to it.
    pub in_flight: u32,
    /// Its process on this host, where there is one and it is ready.
    pub pid: Option<u32>,
}

/// One deployed action, as the platform sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionStatus {
    /// Which one.
    pub name: ActionName,
    /// Memory that one instance is charged for, in MiB.
    pub memory_mib: u32,
    /// Requests that one instance serves at once.
    pub concurrency: u32,
    /// Its instances, oldest first.
    pub instances: Vec<InstanceStatus>,
    /// Invocations of it that wait for an instance.
    pub waiting: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_64_lower_case_letters_digits_and_dashes() {
        for good in ["a", "pool-0", &"x".repeat(64)] {
            assert_eq!(ActionName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a/b", "..", "a b", "é", &"x".repeat(65)] {
            assert_eq!(ActionName::new(bad), Err(InvalidActionName), "{bad:?}");
        }
    }
}
