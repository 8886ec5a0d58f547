//! Arguments of `sesemi model compile` and `sesemi model inspect`.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sesemi::limits::MAX_BATCH_ROWS;

/// Arguments of `model compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The ONNX file, with all weights inside.
    pub file: PathBuf,
    /// The new folder.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The engines that will run the model. With `all`, one that cannot run it is reported and left out; where ONNX Runtime is not
    /// installed, only the portable form is made.
    #[arg(long, value_enum, default_value = "all")]
    pub engine: CompileEngine,
    /// How many sample inputs each form is compared with the original on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub samples: u32,
    /// How far results may be apart, absolutely, or as a part of the value.
    #[arg(long, default_value_t = 1e-3, value_parser = tolerance)]
    pub tolerance: f64,
    /// Whether weights are laid out once more when the model is loaded: `auto` measures what it is worth.
    #[arg(long, value_enum, default_value = "auto")]
    pub prepack: Prepack,
    /// The shape of an input in samples, where 1 for each extent that may vary will not do; may be repeated.
    #[arg(long = "shape", value_name = "INPUT=1x3x224x224", value_parser = shape)]
    pub shapes: Vec<(String, Vec<u64>)>,
    /// The values of an input of integers in samples, without the last, where 0 and 1 will not do; may be repeated.
    #[arg(long = "range", value_name = "INPUT=0..30522", value_parser = range)]
    pub ranges: Vec<(String, Range<i64>)>,
    /// Requests may be rows of one run, of so many rows at most (2 to 4096): the first dimension of every input and output must be a
    /// batch of rows that have nothing to do with each other. Samples run together must give what each gives alone, and the memory
    /// of a run is measured with so many rows. An instance uses it only with `--batch-window-ms` [default: each request alone].
    #[arg(long, value_name = "ROWS", value_parser = rows)]
    pub batch: Option<NonZeroU32>,
    /// A text that an input of BYTES has in samples, where "0" and "1" will not do; may be repeated, also for one input.
    #[arg(long = "text", value_name = "INPUT=TEXT", value_parser = text)]
    pub texts: Vec<(String, String)>,
    /// Refuse a model that needs more memory than this, loaded and for one run, in MiB.
    #[arg(long, value_name = "MIB")]
    pub budget_mib: Option<u64>,
    /// Threads of a run while it is measured.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Folder of sesemi-compile [default: that of this binary].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Engines that a model is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompileEngine {
    /// RTen alone: the portable form.
    Rten,
    /// ONNX Runtime alone, which must be installed.
    Onnxruntime,
    /// Both.
    All,
}

/// Whether weights are laid out once more when a form is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prepack {
    /// If runs get faster by a tenth or more.
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

impl Prepack {
    /// What is tried.
    #[must_use]
    pub fn choices(self) -> &'static [bool] {
        match self {
            Self::Auto => &[false, true],
            Self::On => &[true],
            Self::Off => &[false],
        }
    }
}

fn rows(text: &str) -> Result<NonZeroU32, String> {
    let rows = text
        .parse()
        .ok()
        .filter(|rows| (2..=MAX_BATCH_ROWS).contains(rows));
    rows.and_then(NonZeroU32::new)
        .ok_or_else(|| "a number from 2 to 4096".into())
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("a number from 0".into()),
    }
}

fn shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let wrong = || "an input and its extents, such as image=1x3x224x224".to_owned();
    let (name, extents) = text.rsplit_once('=').ok_or_else(wrong)?;
    let extents = extents.split('x').map(str::parse);
    let extents = extents.collect::<Result<_, _>>().map_err(|_| wrong())?;
    Ok((name.to_owned(), extents))
}

fn text(text: &str) -> Result<(String, String), String> {
    let wrong = || "an input and a text, such as review=good".to_owned();
    let (name, text) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), text.to_owned()))
}

fn range(text: &str) -> Result<(String, Range<i64>), String> {
    let wrong = || "an input and its values, such as input_ids=0..30522".to_owned();
    let (name, range) = text.rsplit_once('=').ok_or_else(wrong)?;
    let (start, end) = range.split_once("..").ok_or_else(wrong)?;
    match (start.parse(), end.parse()) {
        (Ok(start), Ok(end)) if start < end => Ok((name.to_owned(), start..end)),
        _ => Err(wrong()),
    }
}
