//! The arguments of `sesemi endorsements`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use sesemi_attest::snp::Product;

/// AMD's own key distribution service.
const KDS: &str = "https://kdsintf.amd.com";

/// Arguments of `endorsements`: one maker, and which platform of theirs.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("maker").required(true).args(["pccs", "amd"])))]
pub struct EndorsementsArgs {
    /// For SGX and TDX: address of a PCCS, or Intel's own, `https://api.trustedservices.intel.com`.
    #[arg(long, value_name = "URL")]
    pub pccs: Option<String>,
    /// For SEV-SNP: the line of AMD's processors.
    #[arg(long, value_enum, value_name = "PRODUCT")]
    pub amd: Option<AmdProduct>,
    /// Evidence of the platform: a quote, which tells --tee, --fmspc and --ca; or an SEV-SNP report, whose chip's certificate
    /// is fetched too.
    #[arg(long, value_name = "FILE")]
    pub evidence: Option<PathBuf>,
    /// Which TEE of Intel's.
    #[arg(long, value_enum, conflicts_with_all = ["amd", "evidence"])]
    pub tee: Option<DcapTee>,
    /// Model of the processor: family, model, stepping and platform, 12 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = fmspc, conflicts_with_all = ["amd", "evidence"])]
    pub fmspc: Option<String>,
    /// The authority that certified the processor [default: platform, as for all servers that are registered as a whole].
    #[arg(long, value_enum, conflicts_with_all = ["amd", "evidence"])]
    pub ca: Option<PckAuthority>,
    /// Address of AMD's key distribution service, or of a mirror.
    #[arg(long, value_name = "URL", default_value = KDS)]
    pub kds: String,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Keep what else is in the file: only what is for the same platforms is replaced.
    #[arg(long)]
    pub add: bool,
    /// Longest wait for each answer, in seconds, from 1 to 600.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A line of AMD's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmdProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl From<AmdProduct> for Product {
    fn from(product: AmdProduct) -> Self {
        match product {
            AmdProduct::Milan => Self::Milan,
            AmdProduct::Genoa => Self::Genoa,
            AmdProduct::Turin => Self::Turin,
        }
    }
}

/// A TEE whose evidence is a DCAP quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DcapTee {
    /// Enclaves.
    Sgx,
    /// Trust domains.
    Tdx,
}

impl DcapTee {
    /// As paths and endorsements name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }
}

/// Which of Intel's two authorities certifies a processor's provisioning certification key (PCK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PckAuthority {
    /// Machines that were registered as a whole.
    Platform,
    /// Single processors.
    Processor,
}

impl PckAuthority {
    /// As requests name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        }
    }
}

fn fmspc(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("12 hexadecimal digits, for example 00906ED50000".into())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=600) => Ok(Duration::from_secs(seconds)),
        _ => Err("a number of seconds from 1 to 600".into()),
    }
}
