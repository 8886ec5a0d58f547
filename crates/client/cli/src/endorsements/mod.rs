//! `sesemi endorsements`: fetches what TEE makers publish about their platforms and writes the file that verifiers read.
//!
//! No verifier opens a network connection; this command does it for them. Whoever runs it and wherever it fetches from need no trust:
//! everything is signed by the makers, and verified together with evidence. What a service can do is to withhold or to give what
//! is old, and dates and numbers show that.

mod amd;
pub mod args;
mod error;
mod fetch;
mod file;
mod intel;
mod report;
mod revocation;

use std::path::Path;

use anstream::println;
use sesemi_attest::Evidence;
use sesemi_attest::evidence::{MAX_EVIDENCE, SNP_REPORT};
use time::OffsetDateTime;

pub use args::EndorsementsArgs;
pub use error::EndorsementsError;

use crate::demo::progress_bar;
use crate::error::CliError;
use crate::files::read_at_most;
use fetch::Service;
use file::File;
use report::{Fetched, Written};

/// `sesemi endorsements`.
///
/// # Errors
/// [`EndorsementsError`], which says what to do; nothing was written then.
pub async fn run(args: EndorsementsArgs) -> Result<(), CliError> {
    let progress = progress_bar();
    let done = fetch_and_write(&args, &progress).await;
    progress.finish_and_clear();
    let (sets, fetched) = done?;
    let written = Written {
        path: &args.out,
        sets,
        fetched: &fetched,
        now: OffsetDateTime::now_utc(),
    };
    if args.json {
        println!("{}", written.as_json());
    } else {
        println!("{}", written.for_people());
    }
    Ok(())
}

async fn fetch_and_write(
    args: &EndorsementsArgs,
    progress: &indicatif::ProgressBar,
) -> Result<(usize, Fetched), EndorsementsError> {
    // What is in the way is found before anything is fetched.
    let mut file = match args.add {
        true => File::open(&args.out)?,
        false => File::fresh(&args.out),
    };
    let service = |address: &str, endings: &[&str]| {
        Service::new(address, endings, args.timeout, progress.clone())
    };
    let fetched = if let Some(product) = args.amd {
        let product = product.into();
        let wanted = match &args.evidence {
            Some(path) => Some(amd::Wanted::from_report(path, &evidence(path)?, product)?),
            None => None,
        };
        let kds = service(&args.kds, &amd::ENDINGS)?;
        let (published, fetched) = amd::fetch(&kds, product, wanted.as_ref()).await?;
        file.put_snp(published)?;
        fetched
    } else {
        let wanted = intel::Wanted::from_args(args)?;
        // The argument group asks for one of the two.
        let pccs = service(args.pccs.as_deref().unwrap_or_default(), &intel::ENDINGS)?;
        let (collateral, fetched) = intel::fetch(&pccs, &wanted).await?;
        file.put_dcap(collateral)?;
        fetched
    };
    file.write()?;
    Ok((file.sets(), fetched))
}

/// Evidence from a file: a quote, an SEV-SNP report as the processor made it, or evidence as it travels.
fn evidence(path: &Path) -> Result<Evidence, EndorsementsError> {
    let bytes = read_at_most(path, MAX_EVIDENCE.saturating_add(1)).map_err(|source| {
        EndorsementsError::File {
            path: path.to_owned(),
            source,
        }
    })?;
    let evidence = if bytes.len() == SNP_REPORT {
        Evidence::from_snp(&bytes, None)
    } else {
        Evidence::from_bytes(bytes)
    };
    evidence.map_err(|e| EndorsementsError::Evidence {
        path: path.to_owned(),
        why: e.to_string(),
    })
}
