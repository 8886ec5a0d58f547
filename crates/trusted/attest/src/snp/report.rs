//! The attestation report: a fixed layout, read from front to back (AMD 56860, table *ATTESTATION_REPORT*).

use super::SnpError;
use super::tcb::RawTcb;

/// Length of a report, in bytes.
pub const REPORT_LEN: usize = 0x4a0;
/// How much of it, from the front, is signed.
pub(super) const SIGNED_LEN: usize = 0x2a0;

/// A report's fields in their order, neither verified nor judged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnpReport {
    /// Version of the layout.
    pub version: u32,
    /// The guest's security version, from its ID block.
    pub guest_svn: u32,
    /// What the host may do with the guest.
    pub policy: GuestPolicy,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report; 0 is the highest.
    pub vmpl: u32,
    /// 1: ECDSA P-384 with SHA-384.
    pub signature_algorithm: u32,
    /// The firmware that runs.
    pub current_tcb: RawTcb,
    /// The platform's settings.
    pub platform_info: PlatformInfo,
    /// Which keys are involved.
    pub key_info: KeyInfo,
    /// What the guest had put in.
    pub report_data: [u8; 64],
    /// SHA-384 of the guest's memory at launch.
    pub measurement: [u8; 48],
    /// What the host put in at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the ID key; zero without one.
    pub author_key_digest: [u8; 48],
    /// This instance of the guest.
    pub report_id: [u8; 32],
    /// Its migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// The firmware that the signing key was derived for.
    pub reported_tcb: RawTcb,
    /// CPUID family, model and stepping, extended parts added in. From version 3.
    pub cpuid: Option<[u8; 3]>,
    /// Which chip; zero where the host masks it. Turin uses the first 8 bytes.
    pub chip_id: [u8; 64],
    /// The firmware that the host can no longer go back behind.
    pub committed_tcb: RawTcb,
    /// Version of the firmware that runs.
    pub current_version: FirmwareVersion,
    /// Version of the firmware that the host can no longer go back behind.
    pub committed_version: FirmwareVersion,
    /// The firmware that ran when the guest was launched.
    pub launch_tcb: RawTcb,
    /// Mitigations that were verified at launch, and those now; a bit for each. From version 5.
    pub mitigations: Option<[u64; 2]>,
    /// r and s, big-endian.
    pub(super) signature: [u8; 96],
}

impl SnpReport {
    /// Reads a report. Verifies nothing.
    ///
    /// # Errors
    /// [`SnpError::ReportLength`]; [`SnpError::ReportVersion`]; [`SnpError::Reserved`] where its version demands zeroes.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnpError> {
        if bytes.len() != REPORT_LEN {
            return Err(SnpError::ReportLength(bytes.len()));
        }
        let mut reader = Reader { rest: bytes };
        let version = reader.u32()?;
        if !matches!(version, 2 | 3 | 5) {
            return Err(SnpError::ReportVersion(version));
        }
        reader.fields(version)
    }
}

/// What the host may do with a guest, chosen at its launch (AMD 56860, table *Guest policy*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Whether bit 17 is set, as it must be, and none from 26, as they must not.
    #[must_use]
    pub fn is_well_formed(self) -> bool {
        self.0 & (1 << 17) != 0 && self.0 < 1 << 26
    }

    /// Whether the guest may share a core with other threads of the host.
    #[must_use]
    pub fn smt_allowed(self) -> bool {
        self.0 & (1 << 16) != 0
    }

    /// Whether a migration agent may be bound to the guest.
    #[must_use]
    pub fn migration_allowed(self) -> bool {
        self.0 & (1 << 18) != 0
    }

    /// Whether the host may read and write the guest's memory.
    #[must_use]
    pub fn debug_allowed(self) -> bool {
        self.0 & (1 << 19) != 0
    }

    /// Whether the guest may run on one socket only.
    #[must_use]
    pub fn single_socket(self) -> bool {
        self.0 & (1 << 20) != 0
    }

    /// Whether the guest demands that the host cannot see ciphertext.
    #[must_use]
    pub fn ciphertext_hiding(self) -> bool {
        self.0 & (1 << 24) != 0
    }
}

/// Settings of the platform. Bits not named here mean nothing to us and do not lead to a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// Whether the platform runs several threads on a core.
    #[must_use]
    pub fn smt_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the host cannot see the ciphertext of guests' memory.
    #[must_use]
    pub fn ciphertext_hiding(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Whether the memory modules were checked for aliased addresses since the last reset (CVE-2024-21944). From version 3.
    #[must_use]
    pub fn alias_check_complete(self) -> bool {
        self.0 & (1 << 5) != 0
    }
}

/// Which keys a report involves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyInfo(u32);

impl KeyInfo {
    /// Whether an author key signed the ID key.
    #[must_use]
    pub fn author_key_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the host had the firmware sign nothing.
    #[must_use]
    pub fn chip_key_masked(self) -> bool {
        self.0 & 2 != 0
    }

    /// The kind of the key that signed: 0 VCEK, 1 VLEK, 7 none.
    #[must_use]
    pub fn signing_key(self) -> u32 {
        (self.0 >> 2) & 7
    }
}

/// A version of the SNP firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// Major number.
    pub major: u8,
    /// Minor number.
    pub minor: u8,
    /// Build number.
    pub build: u8,
}

/// What is left of a report. Numbers are little-endian.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn fields(mut self, version: u32) -> Result<SnpReport, SnpError> {
        let r = &mut self;
        // The fields of an expression of a struct are evaluated as they are written: the order here is the report's.
        Ok(SnpReport {
            version,
            guest_svn: r.u32()?,
            policy: GuestPolicy(r.u64()?),
            family_id: r.take()?,
            image_id: r.take()?,
            vmpl: r.u32()?,
            signature_algorithm: r.u32()?,
            current_tcb: RawTcb(r.take()?),
            platform_info: PlatformInfo(r.u64()?),
            key_info: r.key_info()?,
            report_data: r.take()?,
            measurement: r.take()?,
            host_data: r.take()?,
            id_key_digest: r.take()?,
            author_key_digest: r.take()?,
            report_id: r.take()?,
            report_id_ma: r.take()?,
            reported_tcb: RawTcb(r.take()?),
            cpuid: r.cpuid(version)?,
            chip_id: r.take()?,
            committed_tcb: RawTcb(r.take()?),
            current_version: r.firmware_version()?,
            committed_version: r.firmware_version()?,
            launch_tcb: RawTcb(r.take()?),
            mitigations: r.mitigations(version)?,
            signature: r.signature()?,
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnpError> {
        let (field, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(SnpError::ReportLength(0))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, SnpError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, SnpError> {
        self.take().map(u64::from_le_bytes)
    }

    fn reserved<const N: usize>(&mut self) -> Result<(), SnpError> {
        let offset = REPORT_LEN.saturating_sub(self.rest.len());
        if self.take::<N>()? == [0; N] {
            Ok(())
        } else {
            Err(SnpError::Reserved(offset))
        }
    }

    fn key_info(&mut self) -> Result<KeyInfo, SnpError> {
        let offset = REPORT_LEN.saturating_sub(self.rest.len());
        let bits = self.u32()?;
        if bits >> 5 != 0 {
            return Err(SnpError::Reserved(offset));
        }
        self.reserved::<4>()?;
        Ok(KeyInfo(bits))
    }

    fn cpuid(&mut self, version: u32) -> Result<Option<[u8; 3]>, SnpError> {
        if version < 3 {
            self.reserved::<24>()?;
            return Ok(None);
        }
        let cpuid = self.take()?;
        self.reserved::<21>()?;
        Ok(Some(cpuid))
    }

    fn firmware_version(&mut self) -> Result<FirmwareVersion, SnpError> {
        let [build, minor, major] = self.take()?;
        self.reserved::<1>()?;
        Ok(FirmwareVersion {
            major,
            minor,
            build,
        })
    }

    fn mitigations(&mut self, version: u32) -> Result<Option<[u64; 2]>, SnpError> {
        if version < 5 {
            self.reserved::<168>()?;
            return Ok(None);
        }
        let mitigations = [self.u64()?, self.u64()?];
        self.reserved::<152>()?;
        Ok(Some(mitigations))
    }

    /// r and s stand in 72 bytes each, little-endian, and are turned around.
    fn signature(&mut self) -> Result<[u8; 96], SnpError> {
        let mut signature = [0; 96];
        let (r, s) = signature.split_at_mut(48);
        for half in [r, s] {
            half.copy_from_slice(&self.take::<48>()?);
            half.reverse();
            self.reserved::<24>()?;
        }
        self.reserved::<368>()?;
        Ok(signature)
    }
}
