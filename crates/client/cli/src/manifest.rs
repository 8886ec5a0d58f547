//! What is pushed: an ONNX file as it is, or the forms of a compiled folder.

use std::num::NonZeroU32;
use std::path::Path;

use rten::ModelOptions;
use sesemi::{DataType, TensorSpec, in_one_line};
use sesemi_compile::{CompiledForm, Description, specs, whole};

use crate::compile::read_model;
use crate::error::CliError;

/// A model's inputs, outputs and forms, the preferred form first.
#[derive(Debug)]
pub struct Pushed {
    /// Its inputs.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs.
    pub outputs: Vec<TensorSpec>,
    /// Its forms.
    pub forms: Vec<CompiledForm>,
    /// Most rows of one run, if requests may be run together.
    pub batch: Option<NonZeroU32>,
}

/// Reads what is to be pushed.
///
/// # Errors
/// [`CliError::Folder`] if a compiled folder is not what it was, [`CliError::Input`] if a file is no model that RTen runs as it is.
pub fn pushed(path: &Path) -> Result<Pushed, CliError> {
    if path.is_dir() {
        let description = Description::read(path)?;
        let (inputs, outputs) = description.specs().map_err(CliError::Input)?;
        return Ok(Pushed {
            inputs,
            outputs,
            forms: description.forms(path)?,
            batch: description.batch,
        });
    }
    of_onnx(&read_model(path)?)
}

/// An ONNX file as it is, which every engine must be able to run.
///
/// # Errors
/// [`CliError::Input`] if it is no model, or none that RTen runs.
pub fn of_onnx(bytes: &[u8]) -> Result<Pushed, CliError> {
    // This reads strictly, so that what comes behind it is given models alone.
    let (inputs, outputs) = specs(bytes).map_err(|e| CliError::Input(in_one_line(e)))?;
    let refused = |why: String| {
        CliError::Input(format!(
            "the engine rten does not run this model: {why}; `sesemi model compile` makes forms for other engines, and a \
             folder that can be pushed"
        ))
    };
    let unknown = |spec: &&TensorSpec| !runs_in_rten(spec.data_type);
    if let Some(spec) = inputs.iter().chain(&outputs).find(unknown) {
        let (name, data_type) = (&spec.name, spec.data_type.as_str());
        return Err(refused(format!(
            "'{name}' is {data_type}, and it has FP32, INT32, INT64, INT8, UINT8 and BOOL only"
        )));
    }
    let loaded = ModelOptions::with_all_ops().load(bytes.to_vec());
    loaded.map_err(|e| refused(e.to_string()))?;
    Ok(Pushed {
        inputs,
        outputs,
        forms: vec![whole(bytes)],
        batch: None,
    })
}

/// Whether SeMIRT with RTen takes tensors of this type.
fn runs_in_rten(data_type: DataType) -> bool {
    matches!(
        data_type,
        DataType::Fp32
            | DataType::Int32
            | DataType::Int64
            | DataType::Bool
            | DataType::Int8
            | DataType::Uint8
    )
}
