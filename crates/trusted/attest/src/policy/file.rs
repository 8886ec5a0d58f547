//! Appraisal policies as TOML files.
//!
//! ```toml
//! # Which code: digests as `sesemi measure` prints them, or "per-release" for KeyService, which decides for each key.
//! code = ["5d01a61cc539ecd0c655757fed92e91a26980e00f779d682630c2fb55b97bdae"]
//! # Which machines: "any", or their PPIDs (SGX, TDX: 32 digits) and chip ids (SEV-SNP: 128 digits).
//! platforms = "any"
//!
//! [dcap]                                    # SGX and TDX; every line may be left out and is strictest then
//! tcb-status = ["SWHardeningNeeded"]        # accepted beside UpToDate
//! out-of-date-grace-days = 0                # for the statuses OutOfDate..., if they are accepted
//! minimum-evaluation-number = 17
//! accepted-advisories = ["INTEL-SA-00615"]
//! allow-smt = true
//! allow-dynamic-platform = false
//! allow-cached-keys = false
//!
//! [snp.milan]                               # a product without a table is not accepted
//! minimum-tcb = { boot-loader = 4, tee = 0, snp = 22, microcode = 213 }
//! ```
//!
//! Whatever the schema does not know is an error: a misspelt demand must not be a demand that silently does not exist.

use std::collections::BTreeSet;
use std::time::Duration;

use dcap_qvl::TcbStatus;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use sesemi_protocol::CodeIdentityDigest;

use super::{AppraisalPolicy, DcapRequirements, Platforms, ReferenceValues, SnpRequirements};
use crate::snp::{Product, TcbVersion};

/// Longest policy that is read, in bytes.
pub const MAX_POLICY: usize = 256 * 1024;
/// Most days of grace: a year.
const MAX_GRACE_DAYS: u32 = 366;
const SECONDS_PER_DAY: u64 = 86_400;
/// Length of a PPID, in bytes.
const PPID: usize = 16;
/// Length of a chip id, in bytes.
const CHIP_ID: usize = 64;

/// Why a policy cannot be used. The text shows the line at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the appraisal policy cannot be used: {0}")]
pub struct PolicyError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    code: Code,
    platforms: Machines,
    #[serde(default)]
    dcap: Dcap,
    #[serde(default)]
    snp: Snp,
}

struct Code(ReferenceValues);

struct Machines(Platforms);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Dcap {
    tcb_status: Vec<TcbStatus>,
    out_of_date_grace_days: u32,
    minimum_evaluation_number: u32,
    accepted_advisories: Vec<String>,
    allow_smt: bool,
    allow_dynamic_platform: bool,
    allow_cached_keys: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Snp {
    milan: Option<SnpProduct>,
    genoa: Option<SnpProduct>,
    turin: Option<SnpProduct>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SnpProduct {
    minimum_tcb: MinimumTcb,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MinimumTcb {
    /// Turin alone has this component.
    fmc: Option<u8>,
    boot_loader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

impl AppraisalPolicy {
    /// Reads a policy from TOML.
    ///
    /// # Errors
    /// [`PolicyError`], which shows the line at fault.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError(format!("it is longer than {MAX_POLICY} bytes")));
        }
        let file: File = toml::from_str(text).map_err(|e| PolicyError(e.to_string()))?;
        Ok(Self {
            code: file.code.0,
            platforms: file.platforms.0,
            dcap: file.dcap.requirements()?,
            snp: file.snp.requirements()?,
        })
    }
}

impl Dcap {
    fn requirements(self) -> Result<DcapRequirements, PolicyError> {
        if self.tcb_status.contains(&TcbStatus::Revoked) {
            let text = "dcap.tcb-status: a revoked platform is never accepted";
            return Err(PolicyError(text.into()));
        }
        if self.out_of_date_grace_days > MAX_GRACE_DAYS {
            let text = format!("dcap.out-of-date-grace-days: at most {MAX_GRACE_DAYS}");
            return Err(PolicyError(text));
        }
        let seconds = u64::from(self.out_of_date_grace_days).saturating_mul(SECONDS_PER_DAY);
        Ok(DcapRequirements {
            statuses: self.tcb_status,
            minimum_evaluation_number: self.minimum_evaluation_number,
            advisories: self
                .accepted_advisories
                .iter()
                .map(|id| id.to_ascii_uppercase())
                .collect(),
            grace: Duration::from_secs(seconds),
            allow_smt: self.allow_smt,
            allow_dynamic_platform: self.allow_dynamic_platform,
            allow_cached_keys: self.allow_cached_keys,
        })
    }
}

impl Snp {
    fn requirements(self) -> Result<SnpRequirements, PolicyError> {
        let products = [
            (Product::Milan, self.milan),
            (Product::Genoa, self.genoa),
            (Product::Turin, self.turin),
        ];
        let mut minimums = Vec::new();
        for (product, table) in products {
            let Some(SnpProduct { minimum_tcb }) = table else {
                continue;
            };
            if minimum_tcb.fmc.is_some() != (product == Product::Turin) {
                return Err(PolicyError(format!(
                    "snp.{}.minimum-tcb: fmc belongs to Turin, and Turin needs it",
                    product.as_str()
                )));
            }
            minimums.push((product, minimum_tcb.into()));
        }
        Ok(SnpRequirements(minimums))
    }
}

impl From<MinimumTcb> for TcbVersion {
    fn from(minimum: MinimumTcb) -> Self {
        Self {
            fmc: minimum.fmc,
            boot_loader: minimum.boot_loader,
            tee: minimum.tee,
            snp: minimum.snp,
            microcode: minimum.microcode,
        }
    }
}

/// A word or a list of words.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("expected \"per-release\" or a list of code identities");
        match OneOrMany::deserialize(deserializer).map_err(|_| wrong())? {
            OneOrMany::One(word) if word == "per-release" => Ok(Self(ReferenceValues::PerRelease)),
            OneOrMany::One(_) => Err(wrong()),
            OneOrMany::Many(list) if list.is_empty() => Err(D::Error::custom(
                "an empty list would approve no code at all; name at least one code identity",
            )),
            OneOrMany::Many(list) => {
                let parse = |text: &String| {
                    text.parse::<CodeIdentityDigest>()
                        .map_err(|e| D::Error::custom(format!("code identity {text:?}: {e}")))
                };
                let listed: Result<BTreeSet<_>, _> = list.iter().map(parse).collect();
                Ok(Self(ReferenceValues::Listed(listed?)))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Machines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("expected \"any\" or a list of platform ids");
        match OneOrMany::deserialize(deserializer).map_err(|_| wrong())? {
            OneOrMany::One(word) if word == "any" => Ok(Self(Platforms::Any)),
            OneOrMany::One(_) => Err(wrong()),
            OneOrMany::Many(list) if list.is_empty() => Err(D::Error::custom(
                "an empty list would accept no platform at all; name at least one",
            )),
            OneOrMany::Many(list) => {
                let parse = |text: &String| {
                    platform_id(text).ok_or_else(|| {
                        D::Error::custom(format!(
                            "platform id {text:?}: expected 32 hexadecimal digits (PPID) or 128 (chip id)"
                        ))
                    })
                };
                let listed: Result<BTreeSet<_>, _> = list.iter().map(parse).collect();
                Ok(Self(Platforms::Listed(listed?)))
            }
        }
    }
}

fn platform_id(text: &str) -> Option<Vec<u8>> {
    let id = hex::decode(text).ok()?;
    [PPID, CHIP_ID].contains(&id.len()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "5d01a61cc539ecd0c655757fed92e91a26980e00f779d682630c2fb55b97bdae";

    fn error(text: &str) -> String {
        AppraisalPolicy::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_example_is_a_policy() {
        let example: String = include_str!("file.rs")
            .lines()
            .skip_while(|line| !line.starts_with("//! ```toml"))
            .skip(1)
            .take_while(|line| !line.starts_with("//! ```"))
            .map(|line| format!("{}\n", line.trim_start_matches("//!")))
            .collect();
        let policy = AppraisalPolicy::from_toml(&example).unwrap();
        assert_eq!(policy.dcap.minimum_evaluation_number, 17);
        assert_eq!(policy.snp.0.len(), 1);
    }

    #[test]
    fn a_fault_is_shown_with_its_line() {
        let text = format!("code = [\"{CODE}\"]\nplatforms = \"any\"\n[dcap]\nallow-stm = true\n");
        let shown = error(&text);
        assert!(
            shown.contains("line 4") && shown.contains("allow-stm"),
            "{shown}"
        );
        let shown = error("code = [\"123\"]\nplatforms = \"any\"\n");
        assert!(shown.contains("line 1") && shown.contains("123"), "{shown}");
    }

    #[test]
    fn nothing_that_matters_may_be_left_out_or_empty() {
        for text in [
            "",
            "platforms = \"any\"",
            "code = []\nplatforms = \"any\"",
            "code = \"any\"\nplatforms = \"any\"",
            "code = \"per-release\"",
            "code = \"per-release\"\nplatforms = []",
            "code = \"per-release\"\nplatforms = [\"00\"]",
            "code = \"per-release\"\nplatforms = \"any\"\n[dcap]\ntcb-status = [\"Revoked\"]",
            "code = \"per-release\"\nplatforms = \"any\"\n[dcap]\ntcb-status = [\"Fine\"]",
            "code = \"per-release\"\nplatforms = \"any\"\n[dcap]\nout-of-date-grace-days = 4000",
            "code = \"per-release\"\nplatforms = \"any\"\n[snp.milan]",
            "code = \"per-release\"\nplatforms = \"any\"\n[snp.milan]\nminimum-tcb = { boot-loader = 1 }",
            "code = \"per-release\"\nplatforms = \"any\"\n[snp.turin]\n\
             minimum-tcb = { boot-loader = 1, tee = 0, snp = 1, microcode = 1 }",
        ] {
            assert!(AppraisalPolicy::from_toml(text).is_err(), "{text}");
        }
        AppraisalPolicy::from_toml("code = \"per-release\"\nplatforms = \"any\"").unwrap();
    }
}
