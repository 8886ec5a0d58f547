//! What instances have in memory while they run: one request at a time and four at once, and four slots of one instance next to four
//! instances of one slot, in turns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi::ModelRef;

use super::callers::at_once;
use super::instance::Instance;
use super::model::Prepared;
use super::site::Caller;
use super::{CALLERS, ENOUGH_MIB, Plan, Stage};
use crate::error::BenchError;
use crate::figures::Samples;

/// Requests of each caller while memory is looked at.
const REQUESTS: usize = 4;
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) fn measure(plan: &Plan) -> Result<Vec<Samples>, BenchError> {
    plan.each_model(|stage, prepared| measure_model(plan, stage, prepared))
}

fn measure_model(
    plan: &Plan,
    stage: &mut Stage,
    prepared: &Prepared,
) -> Result<Vec<Samples>, BenchError> {
    let Stage { site, launcher, .. } = stage;
    let pushed = site.push(prepared, 1)?;
    let users = (0..CALLERS).map(|_| site.user(std::slice::from_ref(&pushed), launcher.code));
    let users = users.collect::<Result<Vec<_>, _>>()?;
    let arguments = |slots| site.arguments(&plan.chosen, slots, ENOUGH_MIB);
    let (shared, single) = (arguments(CALLERS), arguments(1));
    let mut bench = Bench {
        prepared,
        pushed,
        users,
    };

    let (mut concurrent, mut sharing) = (vec![], vec![]);
    let (mut one, mut four, mut apart) = (vec![], vec![], vec![]);
    for _ in plan.rounds("memory", prepared.model, plan.runs) {
        let instance = launcher.launch(&shared)?;
        let with_one = bench.most(&[instance.pid], std::slice::from_ref(&instance))?;
        let all = [&instance; CALLERS].map(|it| Instance {
            gateway: it.gateway.clone(),
            pid: it.pid,
        });
        let with_four = bench.most(&[instance.pid], &all)?;
        launcher.stop_all()?;

        let instances = (0..CALLERS).map(|_| launcher.launch(&single));
        let instances = instances.collect::<Result<Vec<_>, _>>()?;
        let pids: Vec<u64> = instances.iter().map(|it| it.pid).collect();
        let of_four = bench.most(&pids, &instances)?;
        launcher.stop_all()?;

        concurrent.push(with_four / with_one);
        sharing.push(with_four / of_four);
        one.push(with_one);
        four.push(with_four);
        apart.push(of_four);
    }
    let name = |what: &str| plan.chosen.figure(what, prepared.model);
    let concurrently = if plan.chosen.is_onnxruntime() {
        1.15
    } else {
        1.3
    };
    Ok(vec![
        Samples::new(name("memory.concurrent_ratio"), "times one", concurrent)
            .at_most(concurrently),
        Samples::new(name("memory.sharing_ratio"), "times four apart", sharing).at_most(0.35),
        Samples::new(name("memory.one_mib"), "MiB", one),
        Samples::new(name("memory.four_mib"), "MiB", four),
        Samples::new(name("memory.four_apart_mib"), "MiB", apart),
    ])
}

struct Bench<'p> {
    prepared: &'p Prepared,
    pushed: ModelRef,
    users: Vec<Caller>,
}

impl Bench<'_> {
    /// The most that these processes have in memory together, in MiB, while a user calls each of these instances. The first
    /// request of each is over by then: what loading takes for a moment is not what running takes.
    fn most(&mut self, pids: &[u64], instances: &[Instance]) -> Result<f64, BenchError> {
        let waiting = self.users.split_off(instances.len());
        let callers = std::mem::take(&mut self.users);
        let pairs: Vec<(Caller, &Instance)> = callers.into_iter().zip(instances).collect();
        let call = |pair: &mut (Caller, &Instance), times: usize| {
            for _ in 0..times {
                pair.0.call(&pair.1.gateway, &self.pushed, self.prepared)?;
            }
            Ok(())
        };
        let (_, pairs) = at_once(pairs, |pair| call(pair, 1))?;
        let done = AtomicBool::new(false);
        let (called, most) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(pids, &done));
            let called = at_once(pairs, |pair| call(pair, REQUESTS));
            done.store(true, Ordering::Relaxed);
            let ended = || Err(BenchError::Unexpected("a thread ended early"));
            (called, watch.join().unwrap_or_else(|_| ended()))
        });
        let (_, pairs) = called?;
        self.users
            .extend(pairs.into_iter().map(|(caller, _)| caller));
        self.users.extend(waiting);
        most
    }
}

fn watch(pids: &[u64], done: &AtomicBool) -> Result<f64, BenchError> {
    let mut most = 0.0f64;
    loop {
        let last = done.load(Ordering::Relaxed);
        let now = pids.iter().map(|pid| resident_kib(*pid));
        most = most.max(now.sum::<Result<f64, _>>()? / 1024.0);
        if last {
            return Ok(most);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What a process has in memory, in KiB.
pub(super) fn resident_kib(pid: u64) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .ok_or(BenchError::Unexpected("the kernel does not say VmRSS"))
}
