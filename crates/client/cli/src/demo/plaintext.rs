//! The same model without any protection, in this process: what the encrypted answers are compared with.

use rten::{ModelOptions, Value};

use super::data::{FEATURES, MODEL, Row};
use crate::error::CliError;

/// The model's probabilities for each row.
///
/// # Errors
/// [`CliError::Demo`] if the engine fails.
pub fn probabilities(rows: &[Row]) -> Result<Vec<Vec<f32>>, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Demo(format!("the plain model: {e}"));
    let model = ModelOptions::with_all_ops()
        .load(MODEL.to_vec())
        .map_err(|e| failed(&e))?;
    let input = model.node_id("features").map_err(|e| failed(&e))?;
    let output = model.node_id("probabilities").map_err(|e| failed(&e))?;
    rows.iter()
        .map(|row| {
            let value = Value::from_shape([1, FEATURES].as_slice(), row.features.clone())
                .map_err(|e| failed(&e))?;
            let outputs = model
                .run(vec![(input, value.into())], &[output], None)
                .map_err(|e| failed(&e))?;
            match outputs.into_iter().next() {
                Some(Value::FloatTensor(tensor)) => Ok(tensor.into_data()),
                _ => Err(failed(&"another output type")),
            }
        })
        .collect()
}
