//! Requests through a whole runtime: real envelopes, real packages, the real engine; KeyService and store in memory.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt as _, PutPayload};
use sesemi_protocol::envelope::{Answer, RequestContent, SealedRequest, seal_request};
use sesemi_protocol::package::{self, Dimension, Manifest, ModelFormat, TensorSpec};
use sesemi_protocol::receipt::StatePoint;
use sesemi_protocol::release::ReleaseRequest;
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{
    ModelName, ModelRef, ModelVersion, PrincipalId, RequestId, SecretKey, ServiceId, SystemEntropy,
};

use super::*;
use crate::engine::rten::Rten;
use crate::keys::KeySource;

const MODEL: &[u8] = include_bytes!("../../../../../models/breast-cancer/breast-cancer.onnx");
const SERVICE: ServiceId = ServiceId([5; 32]);

fn model() -> ModelRef {
    ModelRef::new(
        PrincipalId([2; 32]),
        ModelName::new("breast-cancer").unwrap(),
        ModelVersion::new(1).unwrap(),
    )
}

fn spec(name: &str, extent: u64) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    }
}

fn manifest() -> Manifest {
    Manifest {
        format: ModelFormat::Onnx,
        inputs: vec![spec("features", 30)],
        outputs: vec![spec("probabilities", 2)],
    }
}

fn model_key() -> SecretKey {
    SecretKey::from_bytes([8; 32])
}

fn request_key(user: u8) -> SecretKey {
    SecretKey::from_bytes([user; 32])
}

/// KeyService in memory: users 1 to 9 may use the model; anybody else was not granted it.
#[derive(Default)]
struct Source {
    releases: AtomicU32,
    sequence: Mutex<u64>,
    down: AtomicBool,
}

impl KeySource for Source {
    fn release(&self, request: ReleaseRequest) -> BoxFuture<'static, Result<Lease, Refusal>> {
        self.releases.fetch_add(1, Ordering::SeqCst);
        let sequence = *self.sequence.lock().unwrap();
        let user = request.user.0[0];
        let result = if self.down.load(Ordering::SeqCst) {
            Err(RefusalCode::KeyServiceUnavailable.into())
        } else if request.at_least > sequence {
            Err(RefusalCode::StaleState.into())
        } else if !(1..10).contains(&user) {
            Err(RefusalCode::NotGranted.into())
        } else {
            Ok(Lease {
                model_key: model_key(),
                manifest: package::manifest_digest(&manifest()).unwrap(),
                request_key: request_key(user),
                seconds: 60,
                state: StatePoint {
                    service: SERVICE,
                    sequence,
                },
            })
        };
        Box::pin(async move { result })
    }
}

struct World {
    source: Arc<Source>,
    store: Arc<InMemory>,
    runtime: Arc<Runtime>,
}

async fn world() -> World {
    let (source, store) = (Arc::new(Source::default()), Arc::new(InMemory::new()));
    *source.sequence.lock().unwrap() = 5;
    let package = package::seal(
        &model_key(),
        &model(),
        &manifest(),
        MODEL,
        &SystemEntropy::new(),
    )
    .unwrap();
    put(&store, package).await;
    let models = Models::new(store.clone(), Arc::new(Rten::new(1)), 1 << 20);
    let capacity = Capacity {
        slots: 2,
        queue: 100,
    };
    let runtime = Runtime::new(
        Keys::new(source.clone()),
        models,
        capacity,
        Arc::new(SystemEntropy::new()),
        Metrics::new(),
    );
    World {
        source,
        store,
        runtime: Arc::new(runtime),
    }
}

async fn put(store: &InMemory, package: Vec<u8>) {
    let path = object_store::path::Path::from(package::object_path(&model()));
    store.put(&path, PutPayload::from(package)).await.unwrap();
}

fn request(user: u8, key: &SecretKey, features: &[f32], seen: u64) -> SealedRequest {
    let route = Route {
        user: PrincipalId([user; 32]),
        model: model(),
        request: RequestId(sesemi_protocol::entropy::random(&SystemEntropy::new()).unwrap()),
        epoch: 1,
    };
    let input = Tensor::fp32("features", &[1, features.len() as u64], features).unwrap();
    let content = RequestContent {
        inputs: &[input.view()],
        outputs: &[],
        seen: StatePoint {
            service: SERVICE,
            sequence: seen,
        },
    };
    seal_request(key, route, &content, &SystemEntropy::new()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn ask(runtime: &Runtime, user: u8, features: &[f32]) -> Result<Answer, RefusalCode> {
    let sent = request(user, &request_key(user), features, 5);
    let answer = runtime
        .serve(sent.bytes, soon())
        .await
        .map_err(|refusal| refusal.code)?;
    Ok(sent.pending.open(answer).unwrap())
}

#[tokio::test]
async fn first_cold_then_warm_for_another_user_then_hot() {
    let World {
        runtime, source, ..
    } = world().await;
    let mut paths = Vec::new();
    for user in [1, 2, 1, 2] {
        let answer = ask(&runtime, user, &[1.0; 30]).await.unwrap();
        assert_eq!(answer.outcome.unwrap()[0].shape, [1, 2]);
        paths.push(answer.report.path);
    }
    assert_eq!(paths, [Path::Cold, Path::Warm, Path::Hot, Path::Hot]);
    assert_eq!(source.releases.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_of_many_users_each_get_their_own_answer() {
    let World {
        runtime, source, ..
    } = world().await;
    let alone = |row: Vec<f32>| {
        let engine = Rten::new(1);
        let loaded = crate::engine::Engine::load(&engine, &manifest(), MODEL.to_vec()).unwrap();
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
    assert_eq!(
        source.releases.load(Ordering::SeqCst),
        9,
        "one release for each user"
    );
}

#[tokio::test]
async fn who_has_no_grant_or_another_key_is_refused_and_nothing_is_loaded() {
    let World { runtime, .. } = world().await;
    assert_eq!(
        ask(&runtime, 77, &[1.0; 30]).await,
        Err(RefusalCode::NotGranted)
    );
    let forged = request(1, &request_key(2), &[1.0; 30], 5);
    let refused = runtime.serve(forged.bytes, soon()).await.unwrap_err();
    assert_eq!(refused, Refusal::from(RefusalCode::NotAuthentic));
    let garbage = runtime
        .serve(b"garbage".to_vec(), soon())
        .await
        .unwrap_err();
    assert_eq!(garbage.code, RefusalCode::Malformed);
    assert!(runtime.models.held(&model()).is_none());
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
        source,
        store,
    } = world().await;
    source.down.store(true, Ordering::SeqCst);
    assert_eq!(
        ask(&runtime, 1, &[1.0; 30]).await,
        Err(RefusalCode::KeyServiceUnavailable)
    );
    source.down.store(false, Ordering::SeqCst);

    let mut spoiled = package::seal(
        &model_key(),
        &model(),
        &manifest(),
        MODEL,
        &SystemEntropy::new(),
    )
    .unwrap();
    let last = spoiled.len() - 1;
    spoiled[last] ^= 1;
    let good = store
        .get(&object_store::path::Path::from(package::object_path(
            &model(),
        )))
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    put(&store, spoiled).await;
    let refusal = ask(&runtime, 1, &[1.0; 30])
        .await
        .unwrap()
        .outcome
        .unwrap_err();
    assert_eq!(refusal.code, RefusalCode::ModelUnavailable);
    assert_eq!(runtime.models.used(), 0, "its memory is given back");

    put(&store, good.to_vec()).await;
    assert!(ask(&runtime, 1, &[1.0; 30]).await.unwrap().outcome.is_ok());
}

#[tokio::test]
async fn a_user_who_has_seen_a_newer_state_forces_a_new_lease_and_a_rolled_back_service_is_refused()
{
    let World {
        runtime, source, ..
    } = world().await;
    assert!(ask(&runtime, 1, &[1.0; 30]).await.is_ok());
    let newer = |seen| request(1, &request_key(1), &[1.0; 30], seen);

    *source.sequence.lock().unwrap() = 8;
    let sent = newer(8);
    let answer = sent
        .pending
        .open(runtime.serve(sent.bytes, soon()).await.unwrap())
        .unwrap();
    assert!(answer.outcome.is_ok());
    assert_eq!(source.releases.load(Ordering::SeqCst), 2);

    *source.sequence.lock().unwrap() = 6;
    let sent = newer(9);
    let answer = sent
        .pending
        .open(runtime.serve(sent.bytes, soon()).await.unwrap())
        .unwrap();
    assert_eq!(answer.outcome.unwrap_err().code, RefusalCode::StaleState);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_used_after_its_end() {
    let World {
        runtime, source, ..
    } = world().await;
    ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    tokio::time::advance(Duration::from_secs(59)).await;
    ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    assert_eq!(source.releases.load(Ordering::SeqCst), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    let answer = ask(&runtime, 1, &[1.0; 30]).await.unwrap();
    assert_eq!(source.releases.load(Ordering::SeqCst), 2);
    assert_eq!(answer.report.path, Path::Warm);
}

/// KeyService that never answers.
struct Silent;

impl KeySource for Silent {
    fn release(&self, _: ReleaseRequest) -> BoxFuture<'static, Result<Lease, Refusal>> {
        Box::pin(futures::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_users_does_not_pile_up_behind_a_silent_keyservice() {
    let keys = Keys::new(Arc::new(Silent));
    let mut refused = 0;
    for user in 0..1000u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&user.to_be_bytes());
        let route = Route {
            user: PrincipalId(id),
            model: model(),
            request: RequestId([0; 16]),
            epoch: 1,
        };
        // Each sender leaves at once; what it started goes on without it.
        let left = tokio::time::timeout(Duration::from_millis(1), keys.fetch(&route, 0)).await;
        refused += u32::from(matches!(left, Ok(Err(refusal)) if refusal.code == RefusalCode::Busy));
    }
    assert_eq!(refused, 1000 - 256);
}

#[tokio::test]
async fn a_request_whose_deadline_has_passed_is_refused() {
    let World { runtime, .. } = world().await;
    let sent = request(1, &request_key(1), &[1.0; 30], 5);
    let refused = runtime.serve(sent.bytes, Instant::now()).await;
    assert_eq!(refused.unwrap_err().code, RefusalCode::DeadlineExceeded);
}
