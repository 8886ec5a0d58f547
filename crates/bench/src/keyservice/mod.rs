//! What KeyService does in production: releases with a million grants, durable commands, starts, and room on disk and in memory.
//!
//! - [`build`]: a state with so many grants;
//! - [`release`]: releases on a kept connection, with many grants and with few, in turns;
//! - [`durable`]: commands a second, next to a plain loop over the same database library;
//! - [`start`]: opening a state, in a process of its own.

mod build;
mod durable;
mod release;
pub(crate) mod start;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sesemi_keyservice::start::{DATABASE, SNAPSHOTS};

use crate::enclave::Lab;
use crate::error::BenchError;
use crate::figures::{Report, Samples};

/// What `stat` counts blocks in, in bytes.
const BLOCK: u64 = 512;
/// Grants of the small state that the large one is compared with.
const FEW: usize = 1_000;

/// Measures with so many grants; every figure has `rounds` samples.
pub(crate) fn run(grants: usize, rounds: usize) -> Result<Report, BenchError> {
    let lab = Lab::new()?;
    eprintln!("durable commands");
    let mut metrics = on_all_cores()?.block_on(durable::measure(&lab, rounds))?;

    eprintln!("building states with {FEW} and {grants} grants");
    let few = build::State::build(&lab, FEW)?;
    let many = build::State::build(&lab, grants)?;
    eprintln!("starts");
    metrics.extend(start::measure(&lab, &few, &many, rounds)?);
    metrics.extend(space(&many)?);

    eprintln!("releases");
    metrics.extend(release::measure(&lab, &few, &many, rounds)?);
    Ok(Report {
        tee: sesemi_testkit::enclave::NAME,
        engine: None,
        threads: None,
        metrics,
    })
}

fn on_all_cores() -> Result<tokio::runtime::Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// What the state folder takes on disk after starts and orderly ends: log, two snapshots, and the files by which it is unlocked.
/// What counts is the disk's blocks: the database's file is longer, by an end that was never written.
fn space(many: &build::State) -> Result<Vec<Samples>, BenchError> {
    let grants = many.shape.grants as f64;
    let folder = many.folder.path();
    let log = std::fs::metadata(folder.join(DATABASE))?;
    let per_grant = |name, bytes: u64| Samples::new(name, "bytes", vec![bytes as f64 / grants]);
    let on_disk = log.blocks() * BLOCK;
    let snapshots = blocks(&folder.join(SNAPSHOTS))? * BLOCK;
    Ok(vec![
        per_grant("keyservice.bytes_per_grant", blocks(folder)? * BLOCK).at_most(600.0),
        per_grant("keyservice.log_bytes_per_grant", on_disk),
        per_grant("keyservice.log_file_bytes_per_grant", log.len()),
        per_grant("keyservice.snapshot_bytes_per_grant", snapshots),
    ])
}

/// Blocks of all files in a folder and its folders.
fn blocks(folder: &Path) -> Result<u64, BenchError> {
    let mut sum = 0;
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        sum += if item.file_type()?.is_dir() {
            blocks(&item.path())?
        } else {
            item.metadata()?.blocks()
        };
    }
    Ok(sum)
}

/// The middle of unsorted values, and the one that 99 of 100 do not exceed.
fn p50_p99(values: &mut [f64]) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let at = |hundredths: usize| {
        let place = (values.len() * hundredths).div_ceil(100).checked_sub(1)?;
        values.get(place).copied()
    };
    Some((at(50)?, at(99)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_99th_of_a_hundred() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(p50_p99(&mut values), Some((50.0, 99.0)));
        assert_eq!(p50_p99(&mut []), None);
    }
}
