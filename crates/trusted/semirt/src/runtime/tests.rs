//! Requests through a whole runtime: real envelopes, real packages, the real engine; KeyService and store in memory.

mod batches;
mod endpoint;

use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt as _, PutPayload};
use sesemi_protocol::envelope::{Answer, Path, RequestContent, SealedRequest, seal_request};
use sesemi_protocol::id::ModelTarget;
use sesemi_protocol::package::{
    self, Dimension, FormContent, InstructionSet, Manifest, Memory, ModelFormat, TensorSpec,
};
use sesemi_protocol::receipt::StatePoint;
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{Digest, PrincipalId, RequestId, SecretKey, SystemEntropy};

use super::*;
use crate::engine::Engine;
use crate::engine::EngineError;
use crate::engine::rten::Rten;
use crate::slots::Turn;
use crate::testing::{LEASE, SERVICE, Service, model, request_key, stable, until};

const MODEL: &[u8] = include_bytes!("../../../../../models/breast-cancer/breast-cancer.onnx");

fn spec(name: &str, extent: u64) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    }
}

const FORM: FormContent<'_> = FormContent {
    format: ModelFormat::Onnx,
    instruction_set: InstructionSet::Any,
    parts: &[MODEL],
    memory: Memory { loaded: 0, run: 0 },
    prepack: false,
};

fn manifest() -> Manifest {
    let inputs = vec![spec("features", 30)];
    Manifest::describing(inputs, vec![spec("probabilities", 2)], &[FORM])
}

/// For requests whose traces do not matter here.
fn untraced() -> Span {
    Span::root("test", sesemi_traces::Kind::Server)
}

/// The package of a version.
fn package(version: u32) -> Vec<u8> {
    package_of(version, &manifest())
}

fn package_of(version: u32, manifest: &Manifest) -> Vec<u8> {
    let key = SecretKey::from_bytes([100 + version as u8; 32]);
    let entropy = SystemEntropy::new();
    package::seal(&key, &model(version), manifest, &[FORM], &entropy).unwrap()
}

struct World {
    service: Arc<Service>,
    store: Arc<InMemory>,
    runtime: Arc<Runtime>,
}

async fn world() -> World {
    world_with(64 << 20).await
}

async fn world_with(budget: u64) -> World {
    world_of(Arc::new(Rten::new(1)), budget).await
}

async fn world_of(engine: Arc<dyn Engine>, budget: u64) -> World {
    world_that_batches(engine, budget, &manifest(), Duration::ZERO).await
}

async fn world_that_batches(
    engine: Arc<dyn Engine>,
    budget: u64,
    manifest: &Manifest,
    batch_window: Duration,
) -> World {
    let service = Service::new(package::manifest_digest(manifest).unwrap());
    let (service, store) = (Arc::new(service), Arc::new(InMemory::new()));
    for version in [1, 2] {
        put(&store, version, package_of(version, manifest)).await;
    }
    let watchdog = Watchdog::new(Duration::from_secs(60));
    let models = Models::new(store.clone(), engine, budget, watchdog.clone());
    let capacity = Capacity {
        slots: 2,
        queue: 100,
        batch_window,
    };
    let entropy = Arc::new(SystemEntropy::new());
    let keys = Keys::new(service.clone(), entropy.clone());
    let metrics = Metrics::new();
    let runtime =
        Runtime::new(keys, Arc::new(models), capacity, watchdog, entropy, metrics).unwrap();
    World {
        service,
        store,
        runtime: Arc::new(runtime),
    }
}

impl World {
    /// Every slot, so that requests wait for one.
    async fn all_slots(&self) -> Vec<Turn> {
        let slots = &self.runtime.slots;
        let mut taken = Vec::new();
        while slots.taken() < slots.count() {
            let turn = slots.turn(PrincipalId([99; 32]), soon(), Duration::ZERO);
            taken.push(turn.await.unwrap());
        }
        taken
    }

    /// Renews and wipes leases in the background, as the binary does.
    fn tend(&self) {
        let runtime = self.runtime.clone();
        tokio::spawn(async move { runtime.keys().tend().await });
    }
}

async fn put(store: &InMemory, version: u32, package: Vec<u8>) {
    let path = object_store::path::Path::from(package::object_path(&model(version)));
    store.put(&path, PutPayload::from(package)).await.unwrap();
}

fn request(user: u8, key: &SecretKey, features: &[f32], seen: Point) -> SealedRequest {
    request_for(ModelTarget::from(model(1)), user, key, features, seen)
}

fn request_for(
    target: ModelTarget,
    user: u8,
    key: &SecretKey,
    features: &[f32],
    seen: Point,
) -> SealedRequest {
    let input = Tensor::fp32("features", &[1, features.len() as u64], features).unwrap();
    sealed_for(target, user, key, &input, seen)
}

fn sealed_for(
    target: ModelTarget,
    user: u8,
    key: &SecretKey,
    input: &Tensor,
    seen: Point,
) -> SealedRequest {
    let route = Route {
        user: PrincipalId([user; 32]),
        model: target,
        request: RequestId(sesemi_protocol::entropy::random(&SystemEntropy::new()).unwrap()),
        key: RequestKeyName::model(1),
    };
    let content = RequestContent {
        inputs: &[input.view()],
        outputs: &[],
        seen: StatePoint {
            service: SERVICE,
            point: seen,
        },
    };
    seal_request(key, route, &content, &SystemEntropy::new()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn send(runtime: &Runtime, sent: SealedRequest) -> Result<Answer, RefusalCode> {
    let answer = runtime
        .serve(sent.bytes, soon(), &mut untraced())
        .await
        .map_err(|refusal| refusal.code)?;
    Ok(sent.pending.open(answer).unwrap())
}

async fn ask(runtime: &Runtime, user: u8, features: &[f32]) -> Result<Answer, RefusalCode> {
    let sent = request(user, &request_key(user), features, Point::START);
    send(runtime, sent).await
}

/// Whether a request of a user is served, and if so by the alias' which version.
async fn ask_stable(runtime: &Runtime) -> Result<u32, RefusalCode> {
    let sent = request_for(stable(), 1, &request_key(1), &[1.0; 30], Point::START);
    let answer = send(runtime, sent).await?;
    answer.outcome.map_err(|refusal| refusal.code)?;
    Ok(answer.report.version.get())
}

async fn ask_seen(runtime: &Runtime, seen: Point) -> Result<Path, RefusalCode> {
    let sent = request(1, &request_key(1), &[1.0; 30], seen);
    let answer = send(runtime, sent).await.unwrap();
    answer.outcome.map_err(|refusal| refusal.code)?;
    Ok(answer.report.path)
}

#[tokio::test]
async fn first_cold_then_warm_for_another_user_then_hot() {
    let World {
        runtime, service, ..
    } = world().await;
    let mut paths = Vec::new();
    for user in [1, 2, 1, 2] {
        let answer = ask(&runtime, user, &[1.0; 30]).await.unwrap();
        assert_eq!(answer.outcome.unwrap()[0].shape, [1, 2]);
        paths.push(answer.report.path);
    }
    assert_eq!(paths, [Path::Cold, Path::Warm, Path::Hot, Path::Hot]);
    assert_eq!(service.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_of_many_users_each_get_their_own_answer() {
    let World {
        runtime, service, ..
    } = world().await;
    let alone = |row: Vec<f32>| {
        let engine = Rten::new(1);
        let loaded = {
            let manifest = manifest();
            let parts = vec![MODEL.to_vec()];
            Engine::load(&engine, &manifest, &manifest.forms[0], parts).unwrap()
        };
        let input = Tensor::fp32("features", &[1, 30], &row).unwrap();
        loaded
            .execution()
            .unwrap()
            .run(&[input.view()], &[])
            .unwrap()
    };
    let tasks: Vec<_> = (0..60u8)
        .map(|i| {
            let runtime = runtime.clone();
            let row: Vec<f32> = (0..30).map(|j| f32::from(i) + j as f32).collect();
            tokio::spawn(async move { (row.clone(), ask(&runtime, 1 + i % 9, &row).await) })
        })
        .collect();
    for task in tasks {
        let (row, answer) = task.await.unwrap();
        assert_eq!(answer.unwrap().outcome.unwrap(), alone(row));
    }
    assert_eq!(service.calls(), 9, "one release for each user");
}

#[tokio::test]
async fn who_has_no_grant_or_another_key_is_refused_and_nothing_is_loaded() {
    let World { runtime, .. } = world().await;
    assert_eq!(
        ask(&runtime, 77, &[1.0; 30]).await,
        Err(RefusalCode::NotGranted)
    );
    let forged = request(1, &request_key(2), &[1.0; 30], Point::START);
    let refused = runtime
        .serve(forged.bytes, soon(), &mut untraced())
        .await
        .unwrap_err();
    assert_eq!(refused, Refusal::from(RefusalCode::NotAuthentic));
    let garbage = runtime
        .serve(b"garbage".to_vec(), soon(), &mut untraced())
        .await
        .unwrap_err();
    assert_eq!(garbage.code, RefusalCode::Malformed);
    assert!(runtime.models.held(&model(1)).is_none());
}

#[tokio::test]
async fn inputs_that_do_not_fit_are_refused_inside_the_envelope() {
    let World { runtime, .. } = world().await;
    let refusal = ask(&runtime, 1, &[1.0; 29])
        .await
        .unwrap()
        .outcome
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidInput);
    assert!(refusal.detail.contains("features"), "{refusal}");
    assert!(ask(&runtime, 1, &[1.0; 30]).await.unwrap().outcome.is_ok());
}

#[tokio::test]
async fn a_failed_release_or_load_leaves_nothing_and_the_next_request_is_served() {
    let World {
        runtime,
        service,
        store,
    } = world().await;
    service.set().trouble = Some(RefusalCode::KeyServiceUnavailable);
    assert_eq!(
        ask(&runtime, 1, &[1.0; 30]).await,
        Err(RefusalCode::KeyServiceUnavailable)
    );
    service.set().trouble = None;

    let mut spoiled = package(1);
    let last = spoiled.len() - 1;
    spoiled[last] ^= 1;
    put(&store, 1, spoiled).await;
    let refusal = ask(&runtime, 1, &[1.0; 30])
        .await
        .unwrap()
        .outcome
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::ModelUnavailable);
    // Its memory is given back, on a thread that may be kept waiting.
    while runtime.models.used() > 0 {
        tokio::task::yield_now().await;
    }

    put(&store, 1, package(1)).await;
    assert!(ask(&runtime, 1, &[1.0; 30]).await.unwrap().outcome.is_ok());
}

#[tokio::test]
async fn a_model_above_the_memory_budget_is_refused_for_what_its_manifest_says() {
    let World { runtime, .. } = world_with(MODEL.len() as u64 - 1).await;
    let answer = ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    let refusal = answer.outcome.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::ModelUnavailable);
    assert!(refusal.detail.contains("budget"), "{refusal}");
    assert_eq!(runtime.models.used(), 0);
}

#[tokio::test]
async fn a_user_who_has_seen_a_newer_state_forces_a_new_lease_and_a_fork_is_refused() {
    let World {
        runtime, service, ..
    } = world().await;
    assert!(ask(&runtime, 1, &[1.0; 30]).await.is_ok());
    let seen = service.append();
    assert_eq!(ask_seen(&runtime, seen).await, Ok(Path::Warm));
    assert_eq!(ask_seen(&runtime, seen).await, Ok(Path::Hot), "known now");
    assert_eq!(service.calls(), 2);

    // The host goes back to an older copy of the state, which then goes another way, and further than the user has seen.
    service.fork_after(2);
    for _ in 0..10 {
        service.append();
    }
    assert_eq!(
        ask_seen(&runtime, seen).await,
        Ok(Path::Hot),
        "the lease is of the first log"
    );
    let elsewhere = Point {
        chain: Digest([9; 32]),
        ..seen
    };
    let refused = ask_seen(&runtime, elsewhere).await;
    assert_eq!(refused, Err(RefusalCode::StaleState));
    let refused = ask_seen(&runtime, seen).await;
    assert_eq!(refused, Err(RefusalCode::StaleState));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_used_after_its_end() {
    let World {
        runtime, service, ..
    } = world().await;
    ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    assert_eq!(service.calls(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    assert_eq!(service.calls(), 2);
    assert_eq!(answer.report.path, Path::Warm);
}

#[tokio::test]
async fn a_request_whose_deadline_has_passed_is_refused() {
    let World { runtime, .. } = world().await;
    let sent = request(1, &request_key(1), &[1.0; 30], Point::START);
    let refused = runtime
        .serve(sent.bytes, Instant::now(), &mut untraced())
        .await;
    assert_eq!(refused.unwrap_err().code, RefusalCode::DeadlineExceeded);
}

/// An answer of KeyService takes two seconds here: a request that waited for one would not be hot.
#[tokio::test(start_paused = true)]
async fn under_load_leases_are_renewed_before_they_end_and_no_request_waits_or_fails() {
    let world = world().await;
    world.service.set().delay = Duration::from_secs(2);
    ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
    world.tend();
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = Instant::now();
        let answer = ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
        assert!(answer.outcome.is_ok());
        assert_eq!(answer.report.path, Path::Hot);
        assert_eq!(Instant::now(), before, "it waited for nothing");
    }
    let calls = world.service.calls();
    assert!((500 / 45..500 / 30).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn after_a_revocation_nothing_is_served_from_the_end_of_the_lease_on() {
    let world = world().await;
    world.tend();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(
            ask(&world.runtime, 1, &[1.0; 30])
                .await
                .unwrap()
                .outcome
                .is_ok()
        );
    }
    world.service.set().revoked.insert(1);
    // However recent the last renewal is.
    tokio::time::sleep(Duration::from_secs(u64::from(LEASE))).await;
    for _ in 0..10_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let refused = ask(&world.runtime, 1, &[1.0; 30]).await;
        assert_eq!(refused, Err(RefusalCode::NotGranted));
    }
    assert!(
        ask(&world.runtime, 2, &[1.0; 30]).await.is_ok(),
        "others go on"
    );
}

/// A host that wants to put off a revocation keeps SeMIRT from KeyService.
#[tokio::test(start_paused = true)]
async fn a_host_that_cuts_keyservice_off_gains_the_rest_of_the_lease_and_no_more() {
    let world = world().await;
    world.tend();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
    }
    let released = world.service.set().calls.last().unwrap().0;
    let end = released + Duration::from_secs(u64::from(LEASE));
    {
        let mut service = world.service.set();
        service.revoked.insert(1);
        service.trouble = Some(RefusalCode::KeyServiceUnavailable);
    }
    let mut served = 0;
    while Instant::now() < end {
        let answer = ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
        assert!(answer.outcome.is_ok(), "the lease holds until its end");
        served += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(served > 10, "{served}");
    for _ in 0..10_000 {
        let refused = ask(&world.runtime, 1, &[1.0; 30]).await;
        assert_eq!(refused, Err(RefusalCode::KeyServiceUnavailable));
    }
}

#[tokio::test(start_paused = true)]
async fn when_an_alias_moves_requests_under_way_finish_with_the_version_that_they_began_with() {
    let world = world().await;
    assert_eq!(ask_stable(&world.runtime).await, Ok(1));
    world.tend();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let slots = world.all_slots().await;
    let under_way = {
        let runtime = world.runtime.clone();
        tokio::spawn(async move { ask_stable(&runtime).await })
    };
    world.service.set().stable = 2;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        world.service.calls(),
        2,
        "renewed while it waits for a slot"
    );
    drop(slots);
    assert_eq!(under_way.await.unwrap(), Ok(1));
    assert_eq!(ask_stable(&world.runtime).await, Ok(2));
    // By its number, a version stays what it is.
    let answer = ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
    assert_eq!(answer.report.version.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_lease_ended_while_it_waited_is_not_run_under_it() {
    let world = world().await;
    ask(&world.runtime, 1, &[1.0; 30]).await.unwrap();
    ask(&world.runtime, 2, &[1.0; 30]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let slots = world.all_slots().await;
    let waiting = [1, 2].map(|user| {
        let runtime = world.runtime.clone();
        tokio::spawn(async move { ask(&runtime, user, &[1.0; 30]).await.unwrap() })
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.service.set().revoked.insert(1);
    tokio::time::sleep(Duration::from_secs(6)).await;
    drop(slots);
    let [revoked, other] = waiting;
    let refused = revoked.await.unwrap().outcome.unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotGranted);
    let served = other.await.unwrap();
    assert!(served.outcome.is_ok());
    assert_eq!(served.report.path, Path::Warm);
    assert_eq!(world.service.calls(), 4, "each asked again");
}

mod isolation;
