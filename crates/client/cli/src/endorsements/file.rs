//! The file that verifiers read (spec/evidence.md, *Endorsements*): what is in it already, what takes its place, and how it is
//! written so that nobody ever reads half of it.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dcap_qvl::QuoteCollateralV3;
use serde::{Deserialize, Serialize};
use sesemi::Endorsements;
use sesemi_attest::snp::{Product, names_chip};
use sesemi_attest::verifier::MAX_ENDORSEMENTS;

use super::EndorsementsError;
use super::amd::Published;
use super::revocation::Revocation;
use crate::files::read_at_most;

/// Any number of sets, as they stand in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sets {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dcap: Vec<QuoteCollateralV3>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    snp: Vec<SnpSet>,
}

/// What AMD publishes for one product line; bytes are hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpSet {
    product: String,
    crl: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    vceks: Vec<String>,
}

/// A file of endorsements, in memory.
pub(super) struct File {
    path: PathBuf,
    sets: Sets,
}

impl File {
    /// A file to be written from nothing.
    pub(super) fn fresh(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            sets: Sets::default(),
        }
    }

    /// A file with what is in it already; from nothing if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, EndorsementsError> {
        let io = |source| EndorsementsError::File {
            path: path.to_owned(),
            source,
        };
        let bytes = match read_at_most(path, MAX_ENDORSEMENTS.saturating_add(1)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::fresh(path));
            }
            other => other.map_err(io)?,
        };
        // A verifier's judgement first: what it does not read is not to be kept.
        Endorsements::from_json(&bytes).map_err(|source| EndorsementsError::Existing {
            path: path.to_owned(),
            source,
        })?;
        let sets = match serde_json::from_slice(&bytes) {
            Ok(sets) => sets,
            // The other form: one collateral as DCAP tools write it.
            Err(_) => Sets {
                dcap: vec![serde_json::from_slice(&bytes).map_err(EndorsementsError::Json)?],
                ..Sets::default()
            },
        };
        Ok(Self {
            path: path.to_owned(),
            sets,
        })
    }

    /// How many sets are in it.
    pub(super) fn sets(&self) -> usize {
        self.sets.dcap.len().saturating_add(self.sets.snp.len())
    }

    /// Puts collateral in the place of what is for the same TEE and model of processor.
    pub(super) fn put_dcap(&mut self, new: QuoteCollateralV3) -> Result<(), EndorsementsError> {
        let head = |set: &QuoteCollateralV3| {
            serde_json::from_str::<Head>(&set.tcb_info).map_err(EndorsementsError::Json)
        };
        let of_new = head(&new)?;
        let mut kept = Vec::new();
        for set in std::mem::take(&mut self.sets.dcap) {
            let of_old = head(&set)?;
            if of_old.is_for_the_same(&of_new) {
                let what = "TCB evaluation data number";
                self.not_older(what, of_old.number, of_new.number)?;
            } else {
                kept.push(set);
            }
        }
        kept.push(new);
        self.sets.dcap = kept;
        Ok(())
    }

    /// Puts a list in the place of the product's. Certificates of other chips stay, because the list is no word on them.
    pub(super) fn put_snp(&mut self, new: Published) -> Result<(), EndorsementsError> {
        let name = file_name(new.product);
        let mut vceks = Vec::new();
        let old: Vec<SnpSet> = self
            .sets
            .snp
            .extract_if(.., |set| set.product == name)
            .collect();
        for set in old {
            let number = hex::decode(&set.crl).ok();
            let number = number.and_then(|der| Revocation::read(&der).ok());
            let number = number.map_or(0, |list| list.number);
            self.not_older("revocation list number", number, new.crl_number)?;
            vceks.extend(set.vceks);
        }
        if let Some(chip) = new.chip {
            // Verifiers take the first certificate that names the chip.
            vceks.retain(|vcek| !hex::decode(vcek).is_ok_and(|vcek| names_chip(&vcek, &chip.id)));
            vceks.push(hex::encode(chip.vcek));
        }
        self.sets.snp.push(SnpSet {
            product: name,
            crl: hex::encode(new.crl),
            vceks,
        });
        Ok(())
    }

    fn not_older(&self, what: &'static str, have: u64, got: u64) -> Result<(), EndorsementsError> {
        if got >= have {
            return Ok(());
        }
        Err(EndorsementsError::Older {
            path: self.path.clone(),
            what,
            have,
            got,
        })
    }

    /// Writes the file beside its place and renames it, once a verifier would read it.
    pub(super) fn write(&self) -> Result<(), EndorsementsError> {
        let mut bytes = serde_json::to_vec(&self.sets).map_err(EndorsementsError::Json)?;
        bytes.push(b'\n');
        Endorsements::from_json(&bytes).map_err(|source| EndorsementsError::Unusable {
            path: self.path.clone(),
            source,
        })?;
        self.replace(&bytes)
            .map_err(|source| EndorsementsError::File {
                path: self.path.clone(),
                source,
            })
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Not named *.json, which services read from a folder. What is published may be read by all whom the umask lets.
        let mut staged = tempfile::Builder::new()
            .prefix(".endorsements-")
            .suffix(".new")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        staged.write_all(bytes)?;
        staged.as_file().sync_all()?;
        staged.persist(&self.path)?;
        Ok(())
    }
}

/// A product line as files name it.
fn file_name(product: Product) -> String {
    product.as_str().to_ascii_lowercase()
}

/// Which platforms TCB info is for, and its number.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: String,
    fmspc: String,
    #[serde(default, rename = "tcbEvaluationDataNumber")]
    number: u64,
}

impl Head {
    /// As verifiers tell them apart: what is not for TDX is for SGX.
    fn is_for_the_same(&self, other: &Self) -> bool {
        (self.id == "TDX") == (other.id == "TDX") && self.fmspc.eq_ignore_ascii_case(&other.fmspc)
    }
}
