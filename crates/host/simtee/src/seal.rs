//! Sealing keys: what a simulated enclave encrypts its stored state with.
//!
//! A key is bound to the machine (by its secret), to its trust domain (so that simulated state and production state can
//! never open each other) and, by policy, to the code or to its signer. Every input is preceded by its length, so that
//! no two different inputs are the same bytes.

use ring::hmac;

use crate::Measurement;

/// The domain label at the head of every derivation.
pub const SEAL_KEY_LABEL: &str = "sesemi/simtee/seal-key/v1";

/// What a sealing key is bound to, besides the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealPolicy {
    /// The exact program: MRENCLAVE and CONFIGID. An upgraded program gets another key.
    Measurement = 0,
    /// The signer, the product and a security version: MRSIGNER, ISVPRODID, ISVSVN and CONFIGID. A newer program gets the
    /// keys of older versions too. All simulated programs have the same signer, so on one machine **every** program of
    /// one version gets this key.
    Signer = 1,
}

impl TryFrom<u8> for SealPolicy {
    type Error = u8;

    /// The policy that a byte of the device protocol names, or the byte if it names none.
    fn try_from(byte: u8) -> Result<Self, u8> {
        match byte {
            0 => Ok(Self::Measurement),
            1 => Ok(Self::Signer),
            other => Err(other),
        }
    }
}

/// HMAC-SHA-256 over the label, the trust domain, the policy and the values that the policy measures. The security version
/// counts for the policy by signer alone: code that is measured in full has no other version.
pub(crate) fn seal_key(
    secret: &[u8],
    trust_domain: &[u8; 32],
    policy: SealPolicy,
    measurement: &Measurement,
    isv_svn: u16,
) -> [u8; 32] {
    let product = measurement.isv_prod_id.to_be_bytes();
    let version = isv_svn.to_be_bytes();
    let measured: &[&[u8]] = match policy {
        SealPolicy::Measurement => &[&measurement.mr_enclave, &measurement.config_id],
        SealPolicy::Signer => &[
            &measurement.mr_signer,
            &product,
            &version,
            &measurement.config_id,
        ],
    };
    let policy_byte = [policy as u8];
    let head: [&[u8]; 3] = [SEAL_KEY_LABEL.as_bytes(), trust_domain, &policy_byte];

    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in head.iter().chain(measured) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let mut key = [0; 32];
    for (to, from) in key.iter_mut().zip(mac.sign().as_ref()) {
        *to = *from;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another implementation of HMAC, so that a change of the derivation is noticed: it would lose
    /// all state that was sealed before.
    #[test]
    fn the_derivation_gives_the_published_values() {
        let measurement = Measurement::with_mr_enclave([3; 32]);
        let key = |policy| hex::encode(seal_key(&[1; 32], &[2; 32], policy, &measurement, 1));
        assert_eq!(
            key(SealPolicy::Measurement),
            "f12da1a0e682caa7abd5355aa8400b6f02da770d9b9bc93024ab63170bc8640b"
        );
        assert_eq!(
            key(SealPolicy::Signer),
            "6eb500abf50bab50a482adf6e7a0205bbb7d3894edcd2d40aeb43c59ea6187d5"
        );
    }

    #[test]
    fn another_trust_domain_has_other_keys() {
        let measurement = Measurement::of_elf(b"program");
        let key = |domain| seal_key(&[1; 32], domain, SealPolicy::Measurement, &measurement, 1);
        assert_ne!(key(&[2; 32]), key(&[3; 32]));
    }
}
