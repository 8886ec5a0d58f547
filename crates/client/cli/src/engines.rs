//! `sesemi engines`: libraries of inference engines, and the choice of one.

use std::path::PathBuf;

use anstream::{eprintln, println};
use sesemi_engines::{ONNXRUNTIME, default_folder};

use crate::args::{EngineArg, EnginesCommand, Installable};
use crate::error::CliError;
use crate::stack::StackEngine;
use crate::table::table;

/// `sesemi engines`.
///
/// # Errors
/// [`CliError::Engine`].
pub fn run(command: EnginesCommand) -> Result<(), CliError> {
    match command {
        EnginesCommand::Install {
            engine: Installable::Onnxruntime,
            to,
            json,
        } => install(to, json),
        EnginesCommand::List { from, json } => list(from, json),
    }
}

/// The engine for a stack, with its library if it has one.
///
/// # Errors
/// [`CliError::Input`] if the library is not installed, [`CliError::Engine`] if another one lies in its place.
pub fn chosen(engine: EngineArg) -> Result<StackEngine, CliError> {
    if engine == EngineArg::Rten {
        return Ok(StackEngine::Rten);
    }
    let folder = std::env::var_os("SESEMI_ENGINES").map(PathBuf::from);
    let folder = folder.map_or_else(default_folder, Ok)?;
    match ONNXRUNTIME.installed(&folder)? {
        Some(library) => Ok(StackEngine::OnnxRuntime { library }),
        None => Err(CliError::Input(format!(
            "ONNX Runtime is not in {}: run `sesemi engines install`, or take the engine rten",
            folder.display()
        ))),
    }
}

fn install(to: Option<PathBuf>, json: bool) -> Result<(), CliError> {
    let folder = to.map_or_else(default_folder, Ok)?;
    if !json {
        eprintln!("fetching ONNX Runtime {} ...", ONNXRUNTIME.version);
    }
    let path = ONNXRUNTIME.install(&folder)?;
    if json {
        let engine = serde_json::json!({
            "engine": ONNXRUNTIME.engine,
            "version": ONNXRUNTIME.version,
            "library": path,
        });
        println!("{engine}");
    } else {
        println!("{}", path.display());
    }
    Ok(())
}

fn list(from: Option<PathBuf>, json: bool) -> Result<(), CliError> {
    let folder = from.map_or_else(default_folder, Ok)?;
    let (state, library) = match ONNXRUNTIME.installed(&folder) {
        Ok(Some(path)) => ("installed", Some(path)),
        Ok(None) => ("not installed", None),
        Err(sesemi_engines::InstallError::Digest { path, .. }) => {
            ("not the pinned library", Some(path))
        }
        Err(error) => return Err(error.into()),
    };
    if json {
        let engines = serde_json::json!([
            {"engine": "rten", "state": "built in"},
            {
                "engine": ONNXRUNTIME.engine,
                "version": ONNXRUNTIME.version,
                "state": state,
                "library": library,
            },
        ]);
        println!("{engines}");
        return Ok(());
    }
    let place = library.unwrap_or_else(|| ONNXRUNTIME.path(&folder));
    let rows = [
        [
            "rten".into(),
            String::new(),
            "built in".into(),
            String::new(),
        ],
        [
            ONNXRUNTIME.engine.into(),
            ONNXRUNTIME.version.into(),
            state.into(),
            place.display().to_string(),
        ],
    ];
    println!(
        "{}",
        table(["engine", "version", "state", "library"], &rows)
    );
    Ok(())
}
