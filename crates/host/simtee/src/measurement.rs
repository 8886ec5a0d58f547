//! The measurement of a simulated enclave or trust domain: what the quote says about the code that runs.
//!
//! Real SGX hashes the pages of an enclave as they are loaded, real TDX the initial memory of a virtual machine. Here it
//! is the SHA-256 (SGX) or SHA-384 (TDX) of the program's file, which anybody can compute with ordinary tools and compare.

use ring::digest;

use crate::Tee;

/// The text whose SHA-256 is the signer of every simulated enclave.
pub const SIMULATED_SIGNER_LABEL: &str = "sesemi simulated signer v1";

/// What the digest over a program and its libraries begins with, so that it is never that of a file.
const LIBRARIES_LABEL: &[u8] = b"sesemi simulated libraries v1\0";

/// TD attribute SEPT_VE_DISABLE (bit 28): the host cannot make the trust domain run an exception handler by taking a
/// page away. Verifiers demand it.
const SEPT_VE_DISABLE: [u8; 8] = [0, 0, 0, 0x10, 0, 0, 0, 0];
/// XFAM: x87, SSE, AVX, AVX-512, PKRU, CET and AMX state, what a current trust domain has.
const XFAM: [u8; 8] = [0xe7, 0x02, 0x06, 0, 0, 0, 0, 0];

/// What identifies the code of an enclave, in SGX terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurement {
    /// MRENCLAVE: the SHA-256 of the whole ELF file.
    pub mr_enclave: [u8; 32],
    /// MRSIGNER: the SHA-256 of [`SIMULATED_SIGNER_LABEL`], for every program alike, since nobody signs them.
    pub mr_signer: [u8; 32],
    /// ISVPRODID: 1.
    pub isv_prod_id: u16,
    /// ISVSVN: 1 unless the launcher is told otherwise. In real SGX the signer sets it in the SIGSTRUCT.
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

/// What identifies the code of a trust domain, in TDX terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdMeasurement {
    /// MRTD: the SHA-384 of the whole ELF file.
    pub mr_td: [u8; 48],
    /// RTMR0 to RTMR3, which a real guest extends as it boots: all zero, because nothing is measured after the start.
    pub rt_mr: [[u8; 48]; 4],
    /// MRCONFIGID: all zero.
    pub mr_config_id: [u8; 48],
    /// MROWNER: all zero.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG: all zero.
    pub mr_owner_config: [u8; 48],
    /// TD attributes, little-endian: SEPT_VE_DISABLE alone, and so neither debug nor migration.
    pub td_attributes: [u8; 8],
    /// XFAM, little-endian: the processor state that the trust domain may use.
    pub xfam: [u8; 8],
}

impl TdMeasurement {
    /// The measurement of a program with these bytes.
    pub fn of_elf(bytes: &[u8]) -> Self {
        Self::with_mr_td(sha384(bytes))
    }

    /// The measurement of a program whose file has this SHA-384.
    pub fn with_mr_td(mr_td: [u8; 48]) -> Self {
        Self {
            mr_td,
            rt_mr: [[0; 48]; 4],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            td_attributes: SEPT_VE_DISABLE,
            xfam: XFAM,
        }
    }
}

/// A library's name and its digest.
pub(crate) type Named<const N: usize> = (String, [u8; N]);

/// The digest over a program and the libraries that are handed to it: the program's own if there are none. Otherwise that of a
/// label, the program's digest, the number of libraries (1 byte), and of each the length of its name (1 byte), its name and its
/// digest. Names of more than 255 bytes, and more than 255 libraries, are refused when they are loaded.
pub(crate) fn with_libraries<const N: usize>(
    algorithm: &'static digest::Algorithm,
    program: [u8; N],
    libraries: &[Named<N>],
) -> [u8; N] {
    if libraries.is_empty() {
        return program;
    }
    let mut context = digest::Context::new(algorithm);
    context.update(LIBRARIES_LABEL);
    context.update(&program);
    context.update(&[libraries.len() as u8]);
    for (name, digest) in libraries {
        context.update(&[name.len() as u8]);
        context.update(name.as_bytes());
        context.update(digest);
    }
    digest_array(&context.finish())
}

/// For whom a [`device`](crate::device) answers: an enclave or a trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    /// An SGX enclave.
    Sgx(Measurement),
    /// A TDX trust domain.
    Tdx(Box<TdMeasurement>),
}

impl Measured {
    /// The kind of TEE.
    pub fn tee(&self) -> Tee {
        match self {
            Self::Sgx(_) => Tee::Sgx,
            Self::Tdx(_) => Tee::Tdx,
        }
    }
}

impl From<&Measurement> for Measured {
    fn from(measurement: &Measurement) -> Self {
        Self::Sgx(measurement.clone())
    }
}

impl From<&TdMeasurement> for Measured {
    fn from(measurement: &TdMeasurement) -> Self {
        Self::Tdx(Box::new(measurement.clone()))
    }
}

/// The SHA-256 of some bytes, as an array.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest_array(&digest::digest(&digest::SHA256, bytes))
}

/// The SHA-384 of some bytes, as an array.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest_array(&digest::digest(&digest::SHA384, bytes))
}

/// The bytes of a digest as an array of the digest's length.
pub(crate) fn digest_array<const N: usize>(digest: &digest::Digest) -> [u8; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_change_the_measurement_by_name_content_order_and_number() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        let named = |name: &str, digest| (name.to_owned(), digest);
        let over = |libraries: &[Named<32>]| with_libraries(&digest::SHA256, [7; 32], libraries);
        assert_eq!(
            over(&[]),
            [7; 32],
            "without any, the measurement is the program's"
        );
        let all = [
            over(&[named("x", a)]),
            over(&[named("x", b)]),
            over(&[named("y", a)]),
            over(&[named("x", a), named("y", b)]),
            over(&[named("y", b), named("x", a)]),
            over(&[named("x", a), named("x", a)]),
            sha256(&[[7; 32], a].concat()),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        // printf 'sesemi simulated libraries v1\0' and what the specification says, through sha256sum.
        let mut bytes = LIBRARIES_LABEL.to_vec();
        bytes.extend([7; 32]);
        bytes.extend([1, 1, b'x']);
        bytes.extend(a);
        assert_eq!(all[0], sha256(&bytes));
    }

    #[test]
    fn the_measurement_is_the_digest_of_the_file() {
        let measurement = Measurement::of_elf(b"abc");
        assert_eq!(
            hex::encode(measurement.mr_enclave),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!((measurement.isv_prod_id, measurement.isv_svn), (1, 1));
        assert_eq!(measurement.config_id, [0; 64]);
        assert_eq!(
            hex::encode(TdMeasurement::of_elf(b"abc").mr_td),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7"
        );
    }
}
