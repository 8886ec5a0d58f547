//! What the back-end is told once, at its start.

use std::time::Duration;

use crate::Credentials;

/// Settings of an [`OpenWhisk`](super::OpenWhisk).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWhiskConfig {
    /// The controller: `http://HOST[:PORT]` or `https://HOST[:PORT]`, with TLS 1.3 and the authorities that this machine trusts.
    pub address: String,
    /// Who we are there.
    pub credentials: Credentials,
    /// The namespace; `_` is that of the credentials.
    pub namespace: String,
    /// Whether a deployment replaces an action of its name, say one that an earlier gateway has left.
    pub overwrite: bool,
    /// OpenWhisk's `activation.payload.max`, in bytes.
    pub max_payload_bytes: usize,
    /// Memory that the invokers have for instances, in MiB. It is told to those who ask for [`limits`](crate::Platform::limits).
    pub user_memory_mib: u32,
    /// Time for a request that invokes nothing.
    pub request_timeout: Duration,
}

impl OpenWhiskConfig {
    /// The namespace of these credentials, with the limits that OpenWhisk has unless its operator sets others.
    pub fn new(address: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            address: address.into(),
            credentials,
            namespace: "_".to_owned(),
            overwrite: false,
            max_payload_bytes: 1 << 20,
            user_memory_mib: 2048,
            request_timeout: Duration::from_secs(30),
        }
    }

    /// What is wrong, as a phrase.
    pub(super) fn check(&self) -> Result<(), String> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-_.@".contains(&c);
        if self.namespace.is_empty() || !self.namespace.bytes().all(allowed) {
            return Err(format!(
                "{:?} is no namespace: letters, digits and -_.@ are needed",
                self.namespace
            ));
        }
        Ok(())
    }
}
