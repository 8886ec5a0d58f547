//! `sesemi model inspect`: what a model is and takes, from its file or its compiled folder.

use std::path::Path;

use anstream::println;
use sesemi::in_one_line;
use sesemi_compile::{Description, EngineReport, FileDigest, FormDescription, Port, specs, whole};

use crate::compile::read_model;
use crate::error::CliError;
use crate::table::table;

/// `sesemi model inspect`.
///
/// # Errors
/// [`CliError`] if it is neither a model nor a compiled folder, or a part of it was changed.
pub fn inspect(path: &Path, json: bool) -> Result<(), CliError> {
    let description = if path.is_dir() {
        let description = Description::read(path)?;
        // Only for the comparison of digests.
        description.forms(path)?;
        description
    } else {
        of_file(path)?
    };
    if json {
        println!("{}", described_json(&description)?);
    } else {
        println!("{}", described(&description));
    }
    Ok(())
}

/// An ONNX file as what it would be pushed as.
fn of_file(path: &Path) -> Result<Description, CliError> {
    let onnx = read_model(path)?;
    let (inputs, outputs) = specs(&onnx).map_err(|e| CliError::Input(in_one_line(e)))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let source = FileDigest::of(name.into_owned(), &onnx);
    let form = whole(&onnx);
    let mut description = Description::new(source.clone(), (&inputs, &outputs), vec![]);
    description.forms.push(FormDescription {
        format: form.format.as_str().into(),
        instruction_set: form.instruction_set.as_str().into(),
        loaded_bytes: 0,
        run_bytes: 0,
        prepack: false,
        parts: vec![source],
    });
    Ok(description)
}

/// For tools.
pub(crate) fn described_json(description: &Description) -> Result<String, CliError> {
    serde_json::to_string(description).map_err(|e| CliError::Input(e.to_string()))
}

/// For people.
pub(crate) fn described(description: &Description) -> String {
    let ports = |ports: &[Port]| -> String {
        let all: Vec<String> = ports.iter().map(port).collect();
        all.join(", ")
    };
    let mib = |bytes: u64| match bytes {
        0 => "-".to_owned(),
        bytes => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    };
    let form = |form: &FormDescription| {
        [
            form.format.clone(),
            form.instruction_set.clone(),
            mib(form.parts.iter().map(|part| part.bytes).sum()),
            mib(form.loaded_bytes),
            mib(form.run_bytes),
            if form.prepack { "yes" } else { "no" }.to_owned(),
        ]
    };
    let forms: Vec<_> = description.forms.iter().map(form).collect();
    let batch = description.batch;
    let batch = batch.map_or(String::new(), |rows| {
        format!("\nbatch:   requests with {rows} rows at most may be run together")
    });
    let mut text = format!(
        "inputs:  {}\noutputs: {}{batch}\n\n{}",
        ports(&description.inputs),
        ports(&description.outputs),
        table(
            ["FORM", "PROCESSOR", "SIZE", "LOADED", "RUN", "PREPACK"],
            &forms
        )
    );
    if !description.engines.is_empty() {
        let rows: Vec<_> = description.engines.iter().map(engine).collect();
        let headers = ["ENGINE", "FORM", "LOAD", "RUN", "LARGEST DIFFERENCE"];
        text.push_str("\n\n");
        text.push_str(&table(headers, &rows));
    }
    text
}

fn port(port: &Port) -> String {
    let extent = |extent: &Option<u64>| extent.map_or("?".to_owned(), |it| it.to_string());
    let shape: Vec<String> = port.shape.iter().map(extent).collect();
    format!("{} {} [{}]", port.name, port.data_type, shape.join(", "))
}

fn engine(report: &EngineReport) -> [String; 5] {
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
    let found = match (&report.refused, report.difference) {
        (Some(why), _) => format!("refused: {why}"),
        (None, Some(difference)) => format!("{difference:.1e}"),
        (None, None) => "-".to_owned(),
    };
    [
        report.engine.clone(),
        report.form.clone().unwrap_or_else(|| "-".into()),
        ms(report.load_ms),
        ms(report.run_ms),
        found,
    ]
}
