//! `sesemi-packing-bench`: prints what packing costs and saves, as JSON. `cargo xtask bench packing` runs it.

#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sesemi_fnpacker::packing::policy::{Policy, Prices};
use sesemi_packing_bench::simulation::{Costs, ModelCosts, Site, simulate};
use sesemi_packing_bench::traffic::{Pattern, Volume, traffic};

/// Simulates all policies under all patterns of traffic.
#[derive(Parser)]
struct Cli {
    /// Requests a second, on average.
    #[arg(long, default_value_t = 4.0)]
    rate: f64,
    /// For how long traffic begins, in seconds.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Memory of a shared instance, in MiB.
    #[arg(long, default_value_t = 448)]
    memory_mib: u32,
    /// Shared endpoints.
    #[arg(long, default_value_t = 4)]
    endpoints: usize,
    /// Milliseconds of waiting that are worth one GB-second.
    #[arg(long, default_value_t = 20)]
    memory_price: u32,
    /// Which traffic of its kind it is.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// After so many seconds idle, instances end.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Milliseconds that a start takes.
    #[arg(long, default_value_t = 60)]
    start_ms: u64,
}

fn costs(start_ms: u64) -> Costs {
    let ms = Duration::from_millis;
    let model = |mib: u64, run, load| ModelCosts {
        bytes: mib << 20,
        run: ms(run),
        load: ms(load),
    };
    Costs {
        models: vec![
            model(20, 35, 10),
            model(36, 130, 25),
            model(1, 1, 2),
            model(105, 150, 60),
            model(182, 280, 100),
            model(20, 35, 10),
            model(36, 130, 25),
            model(52, 90, 35),
        ],
        start: ms(start_ms),
        start_wait: ms(20),
        request: ms(2),
        way: ms(1),
        stop: ms(20),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let costs = costs(cli.start_ms);
    let volume = Volume {
        models: costs.models.len(),
        rate: cli.rate,
        time: Duration::from_secs(cli.seconds),
        users: 20,
    };
    for pattern in Pattern::ALL {
        let scripts = traffic(pattern, &volume, cli.seed);
        for policy in Policy::ALL {
            let own = |model: &ModelCosts| 64 + (model.bytes >> 20) as u32 * 5 / 4;
            let endpoints_mib = match policy {
                Policy::OneToOne => costs.models.iter().map(own).collect(),
                Policy::AllInOne => vec![cli.memory_mib],
                _ => vec![cli.memory_mib; cli.endpoints],
            };
            let site = Site {
                processors: 2.0,
                user_memory_mib: 8192,
                idle_timeout: Duration::from_secs(cli.idle),
                slots: 4,
                program_mib: 64,
                endpoints_mib,
                instances: if policy == Policy::Cost { 1 } else { 4 },
                patience: Duration::from_secs(60),
                policy,
                prices: Prices {
                    millis_per_gb_second: cli.memory_price,
                    ..Prices::default()
                },
            };
            let outcome = simulate(&costs, &site, &scripts, volume.time);
            println!(
                "{:9} {:11} n {:5} p50 {:7.1} p99 {:8.1} gb_s {:7.1} cold {:.4} refused {}",
                pattern.as_str(),
                policy.as_str(),
                outcome.served.len(),
                outcome.quantile_ms(0.5),
                outcome.quantile_ms(0.99),
                outcome.gb_s,
                outcome.cold_share(),
                outcome.refused
            );
        }
    }
    ExitCode::SUCCESS
}
