//! The Gramine manifest beside a SIGSTRUCT: settings that would give away what the enclave is for.
//!
//! The manifest is measured: the signing tool puts its hash into MRENCLAVE. So whoever approves an identity approves its
//! settings with it, and should know that they are sound. That this very manifest is the measured one cannot be told
//! without Gramine itself, whose loader is measured too: sign it again and compare. Option names: Gramine's *Manifest
//! syntax*, versions 1.7 to 1.9.

use sesemi_attest::code_identity::SgxMeasurement;
use toml::{Table, Value};

/// Longest manifest that is read, in bytes. Lists of hashed files are most of it.
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// Nested tables that are looked into; Gramine's options are at most five deep.
const MAX_DEPTH: usize = 16;

/// Why a manifest cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Gramine manifest cannot be read: {0}")]
pub struct ManifestError(String);

/// A setting that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The option, as the manifest calls it.
    pub option: String,
    /// What is wrong with it, and what to do.
    pub hint: String,
}

/// A manifest that was read.
#[derive(Debug, Clone)]
pub struct Manifest(Table);

impl Manifest {
    /// Reads a manifest: what `gramine-manifest` or, with the hashes of all files, `gramine-sgx-sign` wrote.
    ///
    /// # Errors
    /// [`ManifestError`], which shows the line at fault.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST {
            let text = format!("it is longer than {MAX_MANIFEST} bytes");
            return Err(ManifestError(text));
        }
        text.parse()
            .map(Self)
            .map_err(|e: toml::de::Error| ManifestError(e.to_string()))
    }

    /// Every setting that contradicts `signed` or would let the host look in or change what runs; best none.
    #[must_use]
    pub fn findings(&self, signed: &SgxMeasurement) -> Vec<Finding> {
        let mut found = Findings(Vec::new());
        self.numbers(signed, &mut found);
        self.required(&mut found);
        self.environment(&mut found);
        self.files(&mut found);
        insecure("", &self.0, MAX_DEPTH, &mut found);
        found.0
    }

    fn get(&self, path: &[&str]) -> Option<&Value> {
        let (last, tables) = path.split_last()?;
        let mut table = &self.0;
        for name in tables {
            table = table.get(*name)?.as_table()?;
        }
        table.get(*last)
    }

    /// Gramine takes 0 for both if they are left out.
    fn numbers(&self, signed: &SgxMeasurement, found: &mut Findings) {
        let numbers = [
            ("isvprodid", signed.isv_prod_id),
            ("isvsvn", signed.isv_svn),
        ];
        for (name, signed) in numbers {
            let option = self.get(&["sgx", name]);
            let value = option.map_or(Some(0), Value::as_integer);
            if value != Some(i64::from(signed)) {
                let said = option.map_or_else(|| "0 (left out)".into(), ToString::to_string);
                found.add(
                    format!("sgx.{name}"),
                    format!("the manifest says {said}, the SIGSTRUCT {signed}: they do not belong together; sign again"),
                );
            }
        }
    }

    fn required(&self, found: &mut Findings) {
        if self
            .get(&["sgx", "remote_attestation"])
            .and_then(Value::as_str)
            != Some("dcap")
        {
            let hint = "must be \"dcap\": without it the enclave cannot make evidence";
            found.add("sgx.remote_attestation", hint);
        }
        let flags = [
            (
                "debug",
                "must be false: the host reads all memory of a debug enclave",
            ),
            (
                "enable_stats",
                "must be false: it opens the enclave's threads to debuggers",
            ),
        ];
        for (name, hint) in flags {
            if !matches!(self.get(&["sgx", name]), None | Some(Value::Boolean(false))) {
                found.add(format!("sgx.{name}"), hint);
            }
        }
        let level = self.get(&["loader", "log_level"]);
        if !matches!(
            level.map(Value::as_str),
            None | Some(Some("error" | "none"))
        ) {
            let hint = "must be \"error\" or \"none\": Gramine says of the others that they may leak what the enclave does";
            found.add("loader.log_level", hint);
        }
        if self.get(&["loader", "argv"]).is_none() {
            let hint = "is missing: name the arguments here, where they are measured, and addresses in the settings file";
            found.add("loader.argv", hint);
        }
    }

    fn environment(&self, found: &mut Findings) {
        let variables = self.get(&["loader", "env"]).and_then(Value::as_table);
        for (name, value) in variables.into_iter().flatten() {
            let from_host = value.get("passthrough").and_then(Value::as_bool) == Some(true);
            if from_host {
                let hint =
                    "the host chooses this variable; give it a value, or use the settings file";
                found.add(format!("loader.env.{name}"), hint);
            }
        }
    }

    fn files(&self, found: &mut Findings) {
        let policy = self.get(&["sgx", "file_check_policy"]);
        if !matches!(policy.map(Value::as_str), None | Some(Some("strict"))) {
            let hint = "must be \"strict\": anything else lets the host put any file in";
            found.add("sgx.file_check_policy", hint);
        }
        let mounts = self.get(&["fs", "mounts"]).and_then(Value::as_array);
        for mount in mounts.into_iter().flatten() {
            let text = |name| mount.get(name).and_then(Value::as_str);
            let sealing = text("key_name").is_some_and(|name| name.starts_with("_sgx_"));
            if text("type") == Some("encrypted") && sealing {
                let hint = "an encrypted mount with the enclave's sealing key: SeSeMI seals with that key itself, and one \
                            key must not serve two; use a plain mount, the state in it is sealed";
                found.add(
                    format!("fs.mounts {}", text("path").unwrap_or_default()),
                    hint,
                );
            }
        }
        let trusted = self
            .get(&["sgx", "trusted_files"])
            .and_then(Value::as_array);
        let unhashed = |file: &&Value| file.get("sha256").and_then(Value::as_str).is_none();
        if let Some(file) = trusted.into_iter().flatten().find(unhashed) {
            let hint = format!(
                "{file} has no sha256: give the manifest that gramine-sgx-sign wrote (.manifest.sgx), not its input"
            );
            found.add("sgx.trusted_files", hint);
        }
    }
}

/// Gramine marks what protects nothing by name, and turns it on by `true` or by giving a value.
fn insecure(prefix: &str, table: &Table, depth: usize, found: &mut Findings) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    for (name, value) in table {
        let option = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let off = matches!(value, Value::Boolean(false) | Value::Integer(0));
        if name.starts_with("insecure__") && !off {
            found.add(option, "Gramine itself calls this insecure; remove it");
        } else if let Some(inner) = value.as_table() {
            insecure(&option, inner, depth, found);
        }
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, option: impl Into<String>, hint: impl Into<String>) {
        // The manifest is somebody else's text, which must not make lines of its own in what we print.
        let plain = |text: String| text.chars().filter(|c| !c.is_control()).collect();
        self.0.push(Finding {
            option: plain(option.into()),
            hint: plain(hint.into()),
        });
    }
}
