//! The life of one instance, from the start of its process to its end, in one task. Whatever happens in between, the
//! scheduler hears of its end: the memory it was charged for comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::client::InstanceClient;
use super::driver::Driver;
use super::link::Link;
use super::process::Process;
use super::schedule::Scheduler;
use crate::{ActionSpec, Image, InstanceId, StartFailure};

/// Tells the scheduler that the instance is gone when its supervisor ends, also if it panics or is cut off.
struct Registration {
    driver: Arc<Driver>,
    id: InstanceId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.driver.tell_gone(self.id);
    }
}

/// Starts an instance, watches it, and ends it when `stop` says so.
pub(super) fn supervise(
    driver: Arc<Driver>,
    id: InstanceId,
    spec: Arc<ActionSpec>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    // Made before the task runs for the first time: a runtime that shuts down may never run it.
    let registration = Registration { driver, id };
    async move { live(&registration.driver, id, &spec, &stop).await }
}

async fn live(driver: &Arc<Driver>, id: InstanceId, spec: &ActionSpec, stop: &CancellationToken) {
    let began = Instant::now();
    let process = match (driver.logs.create(&spec.name, id), &spec.image) {
        (Ok(logs), Image::Program(program)) => {
            Process::spawn(&driver.config.launcher, program, logs)
        }
        (Ok(_), Image::Container(_)) => Err(StartFailure::NotAProgram),
        (Err(error), _) => Err(StartFailure::Logs(error)),
    };
    let mut process = match process {
        Ok(process) => process,
        Err(cause) => return start_failed(driver, id, spec, cause),
    };
    let ready = tokio::select! {
        ready = tokio::time::timeout(driver.config.start_timeout, make_ready(driver, spec, &mut process)) => {
            ready.unwrap_or(Err(StartFailure::TooSlow(driver.config.start_timeout)))
        }
        () = stop.cancelled() => Err(StartFailure::Stopped),
    };
    match ready {
        Ok(client) => {
            let init_time = began.elapsed();
            tracing::info!(action = %spec.name, instance = %id, ?init_time, "instance is ready");
            driver.tell_started(id, Link::new(client, process.pid(), init_time));
            watch(driver, id, spec, &mut process, stop).await;
        }
        Err(cause) => start_failed(driver, id, spec, cause),
    }
    process.stop(driver.config.stop_grace, &driver.halt).await;
    tracing::info!(action = %spec.name, instance = %id, "instance is gone");
}

async fn watch(
    driver: &Arc<Driver>,
    id: InstanceId,
    spec: &ActionSpec,
    process: &mut Process,
    stop: &CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        ended = process.ended() => {
            let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(action = %spec.name, instance = %id, status, "instance ended by itself");
            driver.tell_of(id, Scheduler::failed);
        }
    }
}

async fn make_ready(
    driver: &Driver,
    spec: &ActionSpec,
    process: &mut Process,
) -> Result<InstanceClient, StartFailure> {
    let address = process.address().await?;
    let client = InstanceClient::new(address, spec.concurrency, driver.config.max_response_bytes);
    let env = init_env(driver, spec);
    match client.init(&spec.entity().name, &env).await {
        Ok(200) => Ok(client),
        Ok(status) => Err(StartFailure::InitRefused(status)),
        Err(error) => Err(StartFailure::InitFailed(error.to_string())),
    }
}

/// The environment of OpenWhisk's `/init`.
fn init_env(driver: &Driver, spec: &ActionSpec) -> BTreeMap<String, String> {
    let deadline = SystemTime::now() + driver.config.start_timeout;
    let deadline_ms = deadline
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let activation = driver.next_activation();
    let entity = spec.entity();
    [
        ("__OW_ACTION_NAME", entity.path()),
        ("__OW_NAMESPACE", entity.namespace),
        ("__OW_ACTION_VERSION", entity.version),
        ("__OW_ACTIVATION_ID", activation.to_string()),
        ("__OW_TRANSACTION_ID", activation.to_string()),
        ("__OW_DEADLINE", deadline_ms.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn start_failed(driver: &Arc<Driver>, id: InstanceId, spec: &ActionSpec, cause: StartFailure) {
    tracing::warn!(action = %spec.name, instance = %id, %cause, "instance did not start");
    driver.tell_start_failed(id, cause);
}
