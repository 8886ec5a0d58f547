//! `simtee init` and `simtee measure`: what there is, in words or as JSON.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sesemi_simtee::{FMSPC, Image, InitOutcome, Machine, Measured, SimteeError, Tee};

use super::{Outcome, output};

pub(crate) fn init(state: &Path, json: bool) -> Outcome {
    let (machine, outcome) = Machine::init(state, SystemTime::now())?;
    let (word, sentence) = match outcome {
        InitOutcome::Created => ("created", "created a simulated machine"),
        InitOutcome::Kept => ("kept", "kept the simulated machine that is already there"),
        InitOutcome::Renewed => (
            "renewed",
            "kept the simulated machine that is already there; renewed its collateral",
        ),
    };
    let expires = machine
        .collateral_expires()
        .duration_since(UNIX_EPOCH)?
        .as_secs();
    let (domain, ppid, fmspc) = (
        hex::encode(machine.trust_domain()),
        hex::encode(machine.ppid()),
        hex::encode(FMSPC),
    );
    let public = state.join("public");
    if json {
        output::print(
            &json!({
                "outcome": word,
                "state": state.to_string_lossy(),
                "public": public.to_string_lossy(),
                "trust_domain": domain,
                "ppid": ppid,
                "fmspc": fmspc,
                "collateral_expires": expires,
                "simulated": true,
            })
            .to_string(),
        )?;
    } else {
        output::print(&format!(
            "{sentence}: {}\npublic files  {}\ntrust domain  {domain}\nppid          {ppid}",
            state.display(),
            public.display(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn measure(tee: Tee, binary: &Path, libraries: &[PathBuf], json: bool) -> Outcome {
    let image = load(binary, libraries)?;
    let (mut fields, words) = described(&image.measured(tee)?);
    if json {
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("interpreter".to_owned(), json!(image.interpreter()));
            fields.insert("simulated".to_owned(), json!(true));
        }
        output::print(&fields.to_string())?;
    } else {
        output::print(&words)?;
    }
    warn_if_dynamic(&image, binary);
    Ok(ExitCode::SUCCESS)
}

/// A program with the libraries that it is given.
pub(crate) fn load(binary: &Path, libraries: &[PathBuf]) -> Result<Image, SimteeError> {
    let image = Image::load(binary)?;
    let mut libraries = libraries.iter();
    libraries.try_fold(image, |image, library| image.with_library(library))
}

/// The measurement as JSON and in words.
fn described(measured: &Measured) -> (Value, String) {
    match measured {
        Measured::Sgx(measurement) => {
            let (enclave, signer) = (
                hex::encode(measurement.mr_enclave),
                hex::encode(measurement.mr_signer),
            );
            let words = format!(
                "mr_enclave   {enclave}\nmr_signer    {signer}\nisv_prod_id  {}\nisv_svn      {}",
                measurement.isv_prod_id, measurement.isv_svn,
            );
            let fields = json!({
                "mr_enclave": enclave,
                "mr_signer": signer,
                "isv_prod_id": measurement.isv_prod_id,
                "isv_svn": measurement.isv_svn,
                "config_id": hex::encode(measurement.config_id),
            });
            (fields, words)
        }
        Measured::Tdx(measurement) => {
            let mr_td = hex::encode(measurement.mr_td);
            let words = format!("mr_td        {mr_td}");
            let fields = json!({
                "mr_td": mr_td,
                "rt_mr": measurement.rt_mr.map(hex::encode),
                "mr_config_id": hex::encode(measurement.mr_config_id),
                "mr_owner": hex::encode(measurement.mr_owner),
                "mr_owner_config": hex::encode(measurement.mr_owner_config),
                "td_attributes": hex::encode(measurement.td_attributes),
                "xfam": hex::encode(measurement.xfam),
            });
            (fields, words)
        }
    }
}

pub(crate) fn warn_if_dynamic(image: &Image, binary: &Path) {
    if let Some(interpreter) = image.interpreter() {
        output::warn(&format!(
            "{} is dynamically linked: its interpreter {interpreter} and the libraries that this loads by itself are not measured; \
             a simulated enclave should be statically linked",
            binary.display(),
        ));
    }
}
