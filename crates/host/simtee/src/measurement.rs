//! The measurement of a simulated enclave: what the quote says about the code that runs.
//!
//! Real SGX hashes the pages of an enclave as they are loaded. Here it is the SHA-256 of the program's file, which
//! anybody can compute with ordinary tools and compare.

use ring::digest;

/// The text whose SHA-256 is the signer of every simulated enclave.
pub const SIMULATED_SIGNER_LABEL: &str = "sesemi simulated signer v1";

/// What identifies the code of an enclave, in SGX terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// MRENCLAVE: the SHA-256 of the whole ELF file.
    pub mr_enclave: [u8; 32],
    /// MRSIGNER: the SHA-256 of [`SIMULATED_SIGNER_LABEL`], for every program alike, since nobody signs them.
    pub mr_signer: [u8; 32],
    /// ISVPRODID: 1.
    pub isv_prod_id: u16,
    /// ISVSVN: 1.
    pub isv_svn: u16,
    /// CONFIGID: all zero.
    pub config_id: [u8; 64],
}

impl Measurement {
    /// The measurement of a program with these bytes. It does not check that they are an ELF file; the launcher does.
    pub fn of_elf(bytes: &[u8]) -> Self {
        Self::with_mr_enclave(sha256(bytes))
    }

    /// The measurement of a program whose file has this SHA-256.
    pub fn with_mr_enclave(mr_enclave: [u8; 32]) -> Self {
        Self {
            mr_enclave,
            mr_signer: sha256(SIMULATED_SIGNER_LABEL.as_bytes()),
            isv_prod_id: 1,
            isv_svn: 1,
            config_id: [0; 64],
        }
    }
}

/// The SHA-256 of some bytes, as an array.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha256_array(&digest::digest(&digest::SHA256, bytes))
}

/// The bytes of a SHA-256 digest as an array.
pub(crate) fn sha256_array(digest: &digest::Digest) -> [u8; 32] {
    let mut array = [0; 32];
    for (to, from) in array.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measurement_is_the_digest_of_the_file() {
        let measurement = Measurement::of_elf(b"abc");
        assert_eq!(
            hex::encode(measurement.mr_enclave),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!((measurement.isv_prod_id, measurement.isv_svn), (1, 1));
        assert_eq!(measurement.config_id, [0; 64]);
    }
}
