//! The demo's data: a small real model and the rows it was not trained on, built into the binary.

use sesemi::{DataType, Dimension, FormContent, Manifest, ModelFormat, TensorSpec};

use crate::error::CliError;

/// The classifier (models/breast-cancer/README.md), as ONNX.
pub const MODEL: &[u8] = include_bytes!("../../../../../models/breast-cancer/breast-cancer.onnx");
/// The rows that it was not trained on, as CSV with a label.
pub const HELD_OUT: &str = include_str!("../../../../../models/breast-cancer/held-out.csv");
/// Features of a row.
pub const FEATURES: usize = 30;

/// One row of a CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The numbers of all columns but the label.
    pub features: Vec<f32>,
    /// The column named `label`, if there is one.
    pub label: Option<u32>,
}

/// The forms of the demo's model: one, which runs anywhere.
#[must_use]
pub fn forms() -> [FormContent<'static>; 1] {
    [FormContent::portable(ModelFormat::Onnx, &[MODEL])]
}

/// The manifest of the demo's model.
#[must_use]
pub fn manifest() -> Manifest {
    let spec = |name: &str, extent| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    };
    Manifest::describing(
        vec![spec("features", FEATURES as u64)],
        vec![spec("probabilities", 2)],
        &forms(),
    )
}

/// Reads a CSV file of numbers with a header.
///
/// # Errors
/// [`CliError::Input`], with the line at fault.
pub fn parse_csv(text: &str) -> Result<Vec<Row>, CliError> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header: Vec<&str> = lines
        .next()
        .ok_or_else(|| CliError::Input("the CSV file is empty".into()))?
        .split(',')
        .map(str::trim)
        .collect();
    let label_at = header.iter().position(|name| *name == "label");
    lines
        .enumerate()
        .map(|(i, line)| parse_row(line, &header, label_at, i + 2))
        .collect()
}

fn parse_row(
    line: &str,
    header: &[&str],
    label_at: Option<usize>,
    number: usize,
) -> Result<Row, CliError> {
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() != header.len() {
        return Err(CliError::Input(format!(
            "line {number} of the CSV file has {} values, the header {}",
            cells.len(),
            header.len()
        )));
    }
    let wrong = |cell: &str| {
        CliError::Input(format!(
            "line {number} of the CSV file: '{cell}' is not a number"
        ))
    };
    let mut row = Row {
        features: Vec::new(),
        label: None,
    };
    for (at, cell) in cells.iter().enumerate() {
        if Some(at) == label_at {
            row.label = Some(cell.parse().map_err(|_| wrong(cell))?);
        } else {
            let value: f32 = cell.parse().map_err(|_| wrong(cell))?;
            if !value.is_finite() {
                return Err(wrong(cell));
            }
            row.features.push(value);
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_held_out_rows_have_thirty_features_and_a_label() {
        let rows = parse_csv(HELD_OUT).unwrap();
        assert!(rows.len() > 100);
        assert!(
            rows.iter()
                .all(|row| row.features.len() == FEATURES && row.label.is_some_and(|l| l < 2))
        );
    }

    #[test]
    fn mistakes_are_shown_with_their_line() {
        let message = |text| parse_csv(text).unwrap_err().to_string();
        assert!(message("a,label\n1,x\n").contains("line 2"));
        assert!(message("a,b\n1,2\n1\n").contains("line 3"));
        assert!(message("a,b\n1,NaN\n").contains("not a number"));
        assert!(message("").contains("empty"));
    }
}
