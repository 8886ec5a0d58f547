//! What attestation costs.
//!
//! Each metric is measured once a round, all of them one after the other, so that a machine that slows down slows them all
//! and their ratios still hold. What a process does once at its start (its key, its certificate, reading endorsements) is
//! done before the watch starts; what a connection needs is inside.

mod channel;
mod pieces;
mod release;
mod samples;
mod tls;

use std::time::{Duration, Instant};

use serde::Serialize;

use self::channel::Channels;
use self::pieces::Pieces;
use self::release::Releases;
use self::samples::RealEvidence;
use self::tls::PlainTls;
use crate::enclave::Lab;
use crate::error::BenchError;
use crate::stopwatch::Lap;

/// Rounds that warm up caches, the allocator and the kernel, and are not counted.
const WARM_UP: u32 = 20;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    /// The baseline: mutual TLS 1.3 with pinned certificates, connect to one byte each way.
    MutualTls,
    /// The evidence in one certificate that was never seen before: read, verified, appraised.
    CertificateFilter,
    /// Fresh evidence of one side: made, sent as bytes, verified, appraised.
    BoundEvidence,
    /// A whole channel between two enclaves that never met.
    MutualRaTls,
    /// The same between two that remember each other's certificates.
    MutualRaTlsAgain,
    /// A new connection of an enclave that KeyService has never seen, and one key release on it.
    ReleaseNew,
    /// A key release on a connection that is open.
    ReleaseKept,
    /// A real SGX quote (version 3).
    VerifySgx,
    /// A real TDX quote (version 4).
    VerifyTdx,
    /// A real SEV-SNP report (Milan).
    VerifySnp,
}

impl Metric {
    const ALL: [Self; 10] = [
        Self::MutualTls,
        Self::CertificateFilter,
        Self::BoundEvidence,
        Self::MutualRaTls,
        Self::MutualRaTlsAgain,
        Self::ReleaseNew,
        Self::ReleaseKept,
        Self::VerifySgx,
        Self::VerifyTdx,
        Self::VerifySnp,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::MutualTls => "attest.mutual_tls",
            Self::CertificateFilter => "attest.certificate_filter",
            Self::BoundEvidence => "attest.bound_evidence",
            Self::MutualRaTls => "attest.mutual_ra_tls",
            Self::MutualRaTlsAgain => "attest.mutual_ra_tls_again",
            Self::ReleaseNew => "attest.release_new",
            Self::ReleaseKept => "attest.release_kept",
            Self::VerifySgx => "attest.verify_sgx",
            Self::VerifyTdx => "attest.verify_tdx",
            Self::VerifySnp => "attest.verify_snp",
        }
    }

    /// What the wall clock should say at most, in milliseconds.
    fn aim_ms(self) -> Option<f64> {
        match self {
            Self::MutualRaTls => Some(3.0),
            Self::ReleaseKept => Some(0.3),
            _ => None,
        }
    }

    /// Whether it is a connection like the baseline's, or a call on one, so that the ratio says something.
    fn compares(self) -> bool {
        matches!(
            self,
            Self::MutualRaTls | Self::MutualRaTlsAgain | Self::ReleaseNew | Self::ReleaseKept
        )
    }
}

/// What was measured, for `cargo xtask bench attest`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The TEE that the enclaves ran in.
    tee: &'static str,
    /// How many threads the runtime has that all work is done in.
    threads: u32,
    /// The metric that others are compared with.
    baseline: &'static str,
    metrics: Vec<Samples>,
}

/// The samples of one metric, in the order of the rounds.
#[derive(Debug, Serialize)]
struct Samples {
    name: &'static str,
    aim_ms: Option<f64>,
    compares: bool,
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

impl Samples {
    fn of(metric: Metric) -> Self {
        Self {
            name: metric.name(),
            aim_ms: metric.aim_ms(),
            compares: metric.compares(),
            wall_ms: Vec::new(),
            cpu_ms: Vec::new(),
        }
    }

    fn add(&mut self, lap: Lap) {
        self.wall_ms.push(lap.wall.as_secs_f64() * 1e3);
        self.cpu_ms.push(lap.cpu.as_secs_f64() * 1e3);
    }
}

/// Measures `runs` rounds, or as many as begin within `limit`.
pub(crate) async fn run(runs: u32, limit: Duration) -> Result<Report, BenchError> {
    let started = Instant::now();
    let mut bench = Bench::start().await?;
    for _ in 0..WARM_UP.min(runs) {
        bench.round(|_, _| {}).await?;
    }
    let mut metrics = Metric::ALL.map(Samples::of);
    let mut done = 0;
    while done < runs && (done == 0 || started.elapsed() < limit) {
        bench
            .round(|metric, lap| {
                if let Some(samples) = metrics.iter_mut().find(|it| it.name == metric.name()) {
                    samples.add(lap);
                }
            })
            .await?;
        done += 1;
    }
    if done < runs {
        eprintln!(
            "note: {done} of {runs} rounds in {} s, the limit",
            limit.as_secs()
        );
    }
    bench.releases.stop().await?;
    Ok(Report {
        tee: sesemi_testkit::enclave::NAME,
        threads: 1,
        baseline: Metric::MutualTls.name(),
        metrics: metrics.into(),
    })
}

/// Everything that stands ready between two measurements.
struct Bench {
    tls: PlainTls,
    pieces: Pieces,
    channels: Channels,
    releases: Releases,
    sgx: RealEvidence,
    tdx: RealEvidence,
    snp: RealEvidence,
}

impl Bench {
    async fn start() -> Result<Self, BenchError> {
        let lab = Lab::new()?;
        Ok(Self {
            tls: PlainTls::new().await?,
            pieces: Pieces::new(lab.clone())?,
            channels: Channels::new(lab.clone()).await?,
            releases: Releases::start(lab).await?,
            sgx: RealEvidence::sgx()?,
            tdx: RealEvidence::tdx()?,
            snp: RealEvidence::snp()?,
        })
    }

    async fn round(&mut self, mut record: impl FnMut(Metric, Lap)) -> Result<(), BenchError> {
        for metric in Metric::ALL {
            let lap = self.measure(metric).await.map_err(|source| {
                let (what, source) = (metric.name(), Box::new(source));
                BenchError::Metric { what, source }
            })?;
            record(metric, lap);
        }
        Ok(())
    }

    async fn measure(&mut self, metric: Metric) -> Result<Lap, BenchError> {
        match metric {
            Metric::MutualTls => self.tls.connect().await,
            Metric::CertificateFilter => self.pieces.certificate_filter(),
            Metric::BoundEvidence => self.pieces.bound_evidence(),
            Metric::MutualRaTls => self.channels.first_contact().await,
            Metric::MutualRaTlsAgain => self.channels.again().await,
            Metric::ReleaseNew => self.releases.on_a_new_connection().await,
            Metric::ReleaseKept => self.releases.on_the_kept_connection().await,
            Metric::VerifySgx => self.sgx.verify(),
            Metric::VerifyTdx => self.tdx.verify(),
            Metric::VerifySnp => self.snp.verify(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_metric_is_measured_in_every_round() {
        let report = run(2, Duration::from_secs(600)).await.unwrap();
        assert_eq!((report.tee, report.threads), ("simulated", 1));
        let names: Vec<_> = report.metrics.iter().map(|it| it.name).collect();
        assert_eq!(names, Metric::ALL.map(Metric::name));
        for samples in &report.metrics {
            assert_eq!(samples.wall_ms.len(), 2, "{}", samples.name);
            assert_eq!(samples.cpu_ms.len(), 2, "{}", samples.name);
            assert!(samples.wall_ms.iter().all(|ms| *ms > 0.0));
        }
    }

    #[tokio::test]
    async fn one_round_is_measured_even_when_the_time_is_over() {
        let report = run(3, Duration::ZERO).await.unwrap();
        assert!(report.metrics.iter().all(|it| it.wall_ms.len() == 1));
    }
}
