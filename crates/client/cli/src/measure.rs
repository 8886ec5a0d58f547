//! `sesemi measure`: the code identity of what somebody built, for people who approve it and for scripts.
//!
//! The SDK reads and checks; here are files and words.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstream::println;
use sesemi::measure::Measurement;
use sesemi::measure::gramine::{MAX_MANIFEST, Manifest};
use sesemi::measure::reference::{MAX_REFERENCE, Reference};
use sesemi::measure::sigstruct::{SIGSTRUCT_LEN, Sigstruct, SigstructError};
use sesemi::measure::simulated::SimulatedKind;
use sesemi::{CodeIdentity, TeeKind, TrustAnchor};

use crate::args::{MeasureArgs, Simulated};
use crate::connection::simulated_root;
use crate::error::{CliError, file};
use crate::files::read_at_most;
use crate::{stack, up};

/// Why no identity is printed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// No SIGSTRUCT, or one of an enclave that nobody may approve.
    #[error("{path} is not the SIGSTRUCT of an enclave that can be approved")]
    Sigstruct {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SigstructError,
    },
    /// The manifest beside it.
    #[error("{path} cannot be used")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sesemi::measure::gramine::ManifestError,
    },
    /// The manifest would open the enclave, or is that of another one.
    #[error("{path} is not a manifest to approve:{findings}")]
    Findings {
        /// The file.
        path: PathBuf,
        /// One a line.
        findings: String,
    },
    /// The reference values.
    #[error("{path} cannot be used")]
    Reference {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sesemi::measure::reference::ReferenceError,
    },
    /// The trust anchor has no such root.
    #[error(transparent)]
    Root(#[from] sesemi::measure::NoRoot),
    /// A built-in root cannot be used.
    #[error("the built-in roots cannot be used")]
    Anchor(#[from] sesemi::VerifyError),
    /// The identity has no encoding; never in practice.
    #[error("the identity cannot be encoded: {0}")]
    Encoding(String),
}

/// What was measured, where that was taken from, and what whoever approves it should know.
struct Found {
    measurement: Measurement,
    anchor: TrustAnchor,
    checked: Vec<String>,
    cautions: Vec<String>,
}

/// `sesemi measure`.
///
/// # Errors
/// [`CliError`], which names the file and what is wrong with it.
pub async fn run(args: MeasureArgs) -> Result<(), CliError> {
    let json = args.json;
    let found = match (&args.binary, &args.sgx_sigstruct, &args.reference) {
        (Some(binary), ..) => of_binary(binary, &args).await?,
        (_, Some(sigstruct), _) => of_sigstruct(sigstruct)?,
        (.., Some(reference)) => of_reference(reference)?,
        // The argument group asks for exactly one.
        (None, None, None) => return Err(CliError::Input("name something to measure".into())),
    };
    let identity = found.measurement.identity(&found.anchor);
    let identity = identity.map_err(MeasureError::from)?;
    let text = if json {
        as_json(&found, &identity)?
    } else {
        for_people(&found, &identity)?
    };
    println!("{text}");
    Ok(())
}

async fn of_binary(binary: &Path, args: &MeasureArgs) -> Result<Found, CliError> {
    let from_environment = || std::env::var_os("SESEMI_SIMULATED_ROOT").map(PathBuf::from);
    let root = match args.simulated_root.clone().or_else(from_environment) {
        Some(root) => Some(root),
        None => simulated_root(args.stack.as_deref())?,
    };
    let root = root.ok_or_else(|| {
        CliError::Input(
            "a program alone has an identity only on a simulated platform: give --simulated-root FILE or --stack FILE, \
             or SESEMI_STACK; for hardware give --sgx-sigstruct or --reference instead"
                .into(),
        )
    })?;
    let kind = match args.tee {
        Simulated::Sgx => SimulatedKind::Sgx,
        Simulated::Tdx => SimulatedKind::Tdx,
    };
    let simtee = up::binaries(args.bin_dir.clone())?.join("simtee");
    Ok(Found {
        measurement: stack::measurement(&simtee, binary, &args.library, kind).await?,
        anchor: stack::anchor(&root)?,
        checked: vec![format!("simtee measured {}", binary.display())],
        cautions: vec!["a simulated TEE protects nothing".into()],
    })
}

fn of_sigstruct(given: &Path) -> Result<Found, CliError> {
    let (path, manifest) = sigstruct_and_manifest(given);
    // One byte more than it may have, so that a longer file shows as one.
    let bytes = read_at_most(&path, SIGSTRUCT_LEN.saturating_add(1)).map_err(file(&path))?;
    let signed = Sigstruct::verify(&bytes).map_err(|source| MeasureError::Sigstruct {
        path: path.clone(),
        source,
    })?;
    let checked = vec![format!(
        "the signature in {}, dated {:08x}",
        path.display(),
        signed.date
    )];
    let mut cautions = Vec::new();
    match manifest {
        Some(manifest) => {
            check_manifest(&manifest, &signed)?;
            cautions.push(format!(
                "the settings in {} are sound, but nothing here proves that they are the measured ones",
                manifest.display()
            ));
            cautions.push(
                "whether this manifest is the one that was measured, gramine-sgx-sign alone can say: sign again and compare mr-enclave"
                    .into(),
            );
        }
        None => cautions.push(
            "no manifest lies beside it: its settings, which mr-enclave covers, were not looked at"
                .into(),
        ),
    }
    Ok(Found {
        measurement: Measurement::Sgx(signed.measurement),
        anchor: TrustAnchor::production().map_err(MeasureError::from)?,
        checked,
        cautions,
    })
}

/// `NAME.sig` and `NAME.manifest.sgx` stand side by side, and either names both.
fn sigstruct_and_manifest(given: &Path) -> (PathBuf, Option<PathBuf>) {
    const MANIFEST: &str = ".manifest.sgx";
    let name = given.to_string_lossy();
    if let Some(stem) = name.strip_suffix(MANIFEST) {
        return (format!("{stem}.sig").into(), Some(given.to_owned()));
    }
    let beside = name
        .strip_suffix(".sig")
        .map(|stem| PathBuf::from(format!("{stem}{MANIFEST}")));
    (given.to_owned(), beside.filter(|path| path.exists()))
}

fn check_manifest(path: &Path, signed: &Sigstruct) -> Result<(), CliError> {
    let text = read_text(path, MAX_MANIFEST)?;
    let manifest = Manifest::from_toml(&text).map_err(|source| MeasureError::Manifest {
        path: path.to_owned(),
        source,
    })?;
    let findings = manifest.findings(&signed.measurement);
    if findings.is_empty() {
        return Ok(());
    }
    let line = |finding: &sesemi::measure::gramine::Finding| {
        format!("\n  {}: {}", finding.option, finding.hint)
    };
    Err(MeasureError::Findings {
        path: path.to_owned(),
        findings: findings.iter().map(line).collect(),
    }
    .into())
}

fn of_reference(path: &Path) -> Result<Found, CliError> {
    let text = read_text(path, MAX_REFERENCE)?;
    let reference = Reference::from_toml(&text).map_err(|source| MeasureError::Reference {
        path: path.to_owned(),
        source,
    })?;
    let given = format!(
        "the values are those of {}; nothing was measured here",
        path.display()
    );
    let mut cautions = vec![given];
    cautions.extend(reference.cautions.into_iter().map(str::to_owned));
    Ok(Found {
        measurement: reference.measurement,
        anchor: TrustAnchor::production().map_err(MeasureError::from)?,
        checked: Vec::new(),
        cautions,
    })
}

fn read_text(path: &Path, limit: usize) -> Result<String, CliError> {
    let bytes = read_at_most(path, limit.saturating_add(1)).map_err(file(path))?;
    String::from_utf8(bytes)
        .map_err(|_| CliError::Input(format!("{} is not a text in UTF-8", path.display())))
}

/// Whose word evidence of this identity rests on.
fn rests_on(found: &Found, tee: TeeKind) -> &'static str {
    match (found.anchor.is_simulated(), tee) {
        (true, _) => "the root of a SIMULATED platform",
        (false, TeeKind::Sgx | TeeKind::Tdx) => "Intel's production root",
        (false, TeeKind::Snp) => "AMD's production root",
    }
}

fn digest(identity: &CodeIdentity) -> Result<String, CliError> {
    let digest = identity.digest();
    let digest = digest.map_err(|e| MeasureError::Encoding(e.to_string()))?;
    Ok(digest.to_string())
}

fn for_people(found: &Found, identity: &CodeIdentity) -> Result<String, CliError> {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<18} {value}");
    };
    line("tee", identity.tee.as_str());
    for (name, value) in found.measurement.fields() {
        let zero = value.len() > 8 && value.bytes().all(|digit| digit == b'0');
        line(name, if zero { "zero" } else { &value });
    }
    line("trust-domain", &identity.trust_domain.to_string());
    line("", rests_on(found, identity.tee));
    for checked in &found.checked {
        line("checked", checked);
    }
    for caution in &found.cautions {
        line("mind", caution);
    }
    let _ = write!(out, "{:<18} {}", "approve this", digest(identity)?);
    Ok(out)
}

fn as_json(found: &Found, identity: &CodeIdentity) -> Result<String, CliError> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let measurements: Vec<String> = identity.measurements.iter().map(|m| hex(m)).collect();
    let fields: serde_json::Map<_, _> = found
        .measurement
        .fields()
        .into_iter()
        .map(|(name, value)| (name.replace('-', "_"), value.into()))
        .collect();
    let value = serde_json::json!({
        "code": digest(identity)?,
        "simulated": found.anchor.is_simulated(),
        "tee": identity.tee.as_str(),
        "trust_domain": identity.trust_domain.to_string(),
        "measurements": measurements,
        "signer": hex(&identity.signer),
        "product": identity.product,
        "security_version": identity.security_version,
        "configuration": hex(&identity.configuration),
        "debug": false,
        "fields": fields,
        "checked": found.checked,
        "mind": found.cautions,
    });
    Ok(value.to_string())
}
