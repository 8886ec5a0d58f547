//! What nothing can be faster than: the engine in a process that does nothing else, from ciphertext in memory to the first output.
//!
//! Ciphertext is decrypted in place by two threads into memory that was touched before, as a start could have it at best; then the
//! engine loads it and runs once. No request, no key, no file, no second copy.
//!
//! For a cold start all of it, with the engine's own start, is in a process of its own each time ([`child`]): an allocator that has
//! memory left over would make the bound one that no start can reach.

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sesemi_protocol::package::{self, FormPlace, HEAD, OpenPackage};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{
    Digest, ModelName, ModelRef, ModelVersion, PrincipalId, SecretKey, SystemEntropy,
};
use sesemi_semirt::engine::{Engine, LoadedModel};

use super::engine::{Chosen, EngineName};
use super::model::{Prepared, inputs_for};
use crate::error::BenchError;

/// A process that does nothing but listen is there after so long, in milliseconds. It is taken to be so and not measured here.
const PROCESS_MS: f64 = 2.0;
/// Threads that decrypt.
const THREADS: usize = 2;

/// A package as the bound has it: the product's format, under a key that is no secret.
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Digest,
}

/// How long each part of the bound took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Pieces {
    /// [`PROCESS_MS`] in a cold start.
    pub(crate) process_ms: f64,
    pub(crate) init_ms: f64,
    pub(crate) decrypt_ms: f64,
    pub(crate) load_ms: f64,
    pub(crate) run_ms: f64,
}

impl Pieces {
    pub(crate) fn sum(&self) -> f64 {
        self.process_ms + self.init_ms + self.decrypt_ms + self.load_ms + self.run_ms
    }
}

impl Sealed {
    pub(crate) fn of(prepared: &Prepared) -> Result<Self, BenchError> {
        let parts = prepared.form.parts();
        let bytes = package::seal(
            &key(),
            &name()?,
            &prepared.manifest,
            &[prepared.form.content(&parts)],
            &SystemEntropy::new(),
        )?;
        Ok(Self {
            bytes,
            manifest: package::manifest_digest(&prepared.manifest)?,
        })
    }
}

fn key() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

fn name() -> Result<ModelRef, BenchError> {
    let owner = PrincipalId([1; 32]);
    Ok(ModelRef::new(
        owner,
        ModelName::new("bound")?,
        ModelVersion::new(1)?,
    ))
}

/// From ciphertext to the first output, in an engine that runs. The model comes along, so that its end is not measured.
pub(crate) fn first_output(
    engine: &dyn Engine,
    mut ciphertext: Vec<u8>,
    manifest: &Digest,
    inputs: &[Tensor],
) -> Result<(Pieces, Box<dyn LoadedModel>), BenchError> {
    let mut arena = arena(&ciphertext, manifest)?;
    let started = Instant::now();
    let package = open(&ciphertext, manifest)?;
    let place = package.place(0).ok_or(NO_FORM)?;
    decrypt(&package, &mut ciphertext, &place, &mut arena)?;
    let parts = parts(&place, arena);
    let decrypted = Instant::now();
    let form = package.manifest().forms.first().ok_or(NO_FORM)?;
    let model = engine.load(package.manifest(), form, parts)?;
    let loaded = Instant::now();
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    model.execution()?.run(&views, &[])?;
    let pieces = Pieces {
        process_ms: 0.0,
        init_ms: 0.0,
        decrypt_ms: ms(decrypted - started),
        load_ms: ms(loaded - decrypted),
        run_ms: ms(loaded.elapsed()),
    };
    Ok((pieces, model))
}

const NO_FORM: BenchError = BenchError::Unexpected("the package has no form");

fn open(ciphertext: &[u8], manifest: &Digest) -> Result<OpenPackage, BenchError> {
    let head = ciphertext.get(..HEAD).unwrap_or(ciphertext);
    let length = ciphertext.len() as u64;
    Ok(OpenPackage::new(&key(), &name()?, manifest, length, head)?)
}

/// Memory for the form, every page of which was touched.
fn arena(ciphertext: &[u8], manifest: &Digest) -> Result<Vec<u8>, BenchError> {
    let place = open(ciphertext, manifest)?.place(0).ok_or(NO_FORM)?;
    let length = place.plaintext.end - place.plaintext.start;
    Ok(vec![0xa5; usize::try_from(length).unwrap_or(0)])
}

/// A segment, its ciphertext, what of its plaintext belongs to the form, and where that goes.
type Work<'m> = (u32, &'m mut [u8], Range<usize>, &'m mut [u8]);

fn decrypt(
    package: &OpenPackage,
    ciphertext: &mut [u8],
    place: &FormPlace,
    arena: &mut [u8],
) -> Result<(), BenchError> {
    let work = Mutex::new(cut(package, ciphertext, place, arena).into_iter());
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        while let Some((segment, sealed, wanted, to)) = next() {
            let plaintext = package.open(segment, sealed)?;
            to.copy_from_slice(plaintext.get(wanted).unwrap_or_default());
        }
        Ok::<(), BenchError>(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|_| scope.spawn(worker)).collect();
        let mine = worker();
        others.into_iter().fold(mine, |all, other| {
            let ended = BenchError::Unexpected("a thread that decrypts ended early");
            all.and(other.join().unwrap_or(Err(ended)))
        })
    })?;
    Ok(place.check_gaps(arena)?)
}

fn cut<'m>(
    package: &OpenPackage,
    ciphertext: &'m mut [u8],
    place: &FormPlace,
    arena: &'m mut [u8],
) -> Vec<Work<'m>> {
    let wanted = &place.plaintext;
    let size = |length: u64| usize::try_from(length).unwrap_or(usize::MAX);
    let (mut sealed, mut at, mut room) = (ciphertext, 0, arena);
    let mut work = Vec::new();
    for segment in package.segments(wanted) {
        let (range, opened) = (package.sealed(segment), package.opened(segment));
        let (_, rest) = sealed.split_at_mut(size(range.start - at));
        let (this, rest) = rest.split_at_mut(size(range.end - range.start));
        (sealed, at) = (rest, range.end);
        let start = wanted.start.max(opened.start) - opened.start;
        let end = wanted.end.min(opened.end) - opened.start;
        let (to, rest) = room.split_at_mut(size(end - start));
        room = rest;
        work.push((segment, this, size(start)..size(end), to));
    }
    work
}

/// The first part stays where it is, the others are copied: they are small.
fn parts(place: &FormPlace, mut arena: Vec<u8>) -> Vec<Vec<u8>> {
    let others = place.parts.iter().skip(1);
    let others: Vec<Vec<u8>> = others
        .map(|part| arena.get(part.clone()).unwrap_or_default().to_vec())
        .collect();
    arena.truncate(place.parts.first().map_or(0, |part| part.end));
    core::iter::once(arena).chain(others).collect()
}

/// The bound of a cold start, in a process of its own.
pub(crate) fn in_a_new_process(
    chosen: &Chosen,
    package: &Path,
    manifest: &Digest,
) -> Result<Pieces, BenchError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bound", "--engine", chosen.name.as_str()]);
    command.args(["--threads", &chosen.threads.to_string()]);
    command.args(["--manifest", &manifest.to_string()]);
    command.arg("--package").arg(package);
    if let Some(library) = &chosen.library {
        command.arg("--library").arg(library);
    }
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !done.status.success() {
        return Err(BenchError::Unexpected(
            "the process that measures the bound failed",
        ));
    }
    Ok(serde_json::from_slice(&done.stdout).map_err(std::io::Error::other)?)
}

/// That process. What it reads and touches beforehand is not measured.
pub(crate) fn child(
    engine: EngineName,
    library: Option<&Path>,
    threads: usize,
    file: &Path,
    manifest: &Digest,
) -> Result<Pieces, BenchError> {
    let ciphertext = std::fs::read(file)?;
    let inputs = inputs_for(open(&ciphertext, manifest)?.manifest());
    let (local, init) = engine.start(library, threads)?;
    let (pieces, _model) = first_output(local.engine(), ciphertext, manifest, &inputs)?;
    Ok(Pieces {
        process_ms: PROCESS_MS,
        init_ms: ms(init),
        ..pieces
    })
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
