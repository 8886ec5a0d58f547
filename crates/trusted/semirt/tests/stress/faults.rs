//! A store, a KeyService and an engine that fail in every way that they can, at random.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use sesemi_protocol::id::VersionSelector;
use sesemi_protocol::isolation::{Isolation, IsolationLevel};
use sesemi_protocol::package::{Form, Manifest};
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{Digest, ModelVersion, Refusal, RefusalCode, ServiceId};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine, EngineError, Execution, LoadedModel};
use sesemi_semirt::keys::KeySource;

use crate::models::{World, model, model_key, number_of, request_key};

pub(crate) const SERVICE: ServiceId = ServiceId([5; 32]);
/// How long leases last, in seconds: those of every other user end while this goes on, and again and again.
const LEASES: [u32; 2] = [2, 60];

/// Says whether a fault is due: the same ones in each run, if not at the same moments.
pub(crate) struct Chance {
    state: AtomicU64,
    failing: Arc<AtomicBool>,
}

impl Chance {
    pub(crate) fn new(seed: u64, failing: Arc<AtomicBool>) -> Self {
        Self {
            state: AtomicU64::new(seed),
            failing,
        }
    }

    /// True in `percent` of all cases.
    pub(crate) fn of(&self, percent: u64) -> bool {
        self.in_thousand(10 * percent)
    }

    /// True in so many of a thousand cases.
    fn in_thousand(&self, cases: u64) -> bool {
        self.failing.load(Ordering::SeqCst) && self.below(1000) < cases
    }

    /// A number below `bound` (SplitMix64; S. Vigna, 2015).
    pub(crate) fn below(&self, bound: u64) -> u64 {
        let mut z = self
            .state
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// KeyService: it is down at times, slow at times, and at times refuses a user for no reason.
pub(crate) struct FaultyKeyService {
    world: Arc<World>,
    chance: Arc<Chance>,
}

impl FaultyKeyService {
    pub(crate) fn new(world: Arc<World>, failing: Arc<AtomicBool>) -> Self {
        let chance = Arc::new(Chance::new(1, failing));
        Self { world, chance }
    }

    fn lease(&self, request: &ReleaseRequest) -> Lease {
        let VersionSelector::Exact(version) = request.model.version else {
            panic!("nobody asks for an alias");
        };
        let number = ModelVersion::get(version) as usize - 1;
        let user = number_of(&request.user);
        let level = match user {
            0..6 => IsolationLevel::Batched,
            18 => IsolationLevel::DedicatedUser,
            19 => IsolationLevel::Sequential,
            _ => IsolationLevel::Shared,
        };
        Lease {
            model: model(number),
            model_key: model_key(number),
            manifest: self.world.manifest(number),
            request_key: request_key(user),
            seconds: LEASES[user % 2],
            isolation: Isolation::new(level, 0).unwrap(),
            state: StatePoint {
                service: SERVICE,
                point: Point {
                    sequence: 1,
                    chain: Digest([1; 32]),
                },
            },
        }
    }
}

impl KeySource for FaultyKeyService {
    fn release(
        &self,
        requests: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
        let chance = self.chance.clone();
        let answer = if chance.of(5) {
            Err(RefusalCode::KeyServiceUnavailable.into())
        } else {
            let outcome = |request| {
                if chance.of(2) {
                    return ReleaseOutcome::Refused(RefusalCode::NotGranted.into());
                }
                ReleaseOutcome::Lease(Box::new(self.lease(request)))
            };
            Ok(requests.iter().map(outcome).collect())
        };
        let pause = Duration::from_millis(if chance.of(10) { 100 } else { 1 });
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            answer
        })
    }
}

/// A store that fails, answers late, cuts answers short and changes bytes.
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    chance: Chance,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, failing: Arc<AtomicBool>) -> Self {
        let chance = Chance::new(2, failing);
        Self { inner, chance }
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

/// The same bytes but for one bit.
fn changed(piece: &Bytes) -> Bytes {
    let mut changed = piece.to_vec();
    if let Some(byte) = changed.last_mut() {
        *byte ^= 1;
    }
    Bytes::from(changed)
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        if self.chance.in_thousand(4) {
            return Err(object_store::Error::Generic {
                store: "faulty",
                source: "it is down".into(),
            });
        }
        if self.chance.in_thousand(4) {
            tokio::time::sleep(Duration::from_millis(self.chance.below(300))).await;
        }
        let answer = self.inner.get_opts(location, options).await?;
        let (meta, range, attributes) = (
            answer.meta.clone(),
            answer.range.clone(),
            answer.attributes.clone(),
        );
        let extensions = answer.extensions.clone();
        let mut pieces = answer.into_stream();
        if self.chance.in_thousand(4) {
            let kept = self.chance.below(50) as usize;
            pieces = pieces.take(kept).boxed();
        } else if self.chance.in_thousand(4) {
            let place = self.chance.below(50) as usize;
            let changed = pieces.enumerate().map(move |(index, piece)| {
                let piece = piece?;
                Ok(if index == place {
                    changed(&piece)
                } else {
                    piece
                })
            });
            pieces = changed.boxed();
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(pieces),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An engine that refuses models, fails in runs, and panics in both.
pub(crate) struct FaultyEngine {
    inner: Rten,
    chance: Arc<Chance>,
}

impl FaultyEngine {
    pub(crate) fn new(failing: Arc<AtomicBool>) -> Self {
        Self {
            inner: Rten::new(1),
            chance: Arc::new(Chance::new(3, failing)),
        }
    }
}

impl Engine for FaultyEngine {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn wipes(&self) -> bool {
        true
    }

    fn takes(&self, form: &Form) -> bool {
        self.inner.takes(form)
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        if self.chance.of(3) {
            return Err(EngineError::Load("a fault".into()));
        }
        assert!(!self.chance.of(1), "a fault");
        let inner = self.inner.load(manifest, form, parts)?;
        let chance = self.chance.clone();
        Ok(Box::new(FaultyModel { inner, chance }))
    }
}

struct FaultyModel {
    inner: Box<dyn LoadedModel>,
    chance: Arc<Chance>,
}

impl LoadedModel for FaultyModel {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        if self.chance.of(2) {
            return Err(EngineError::Run("a fault".into()));
        }
        Ok(Box::new(FaultyExecution {
            inner: self.inner.execution()?,
            chance: self.chance.clone(),
        }))
    }
}

struct FaultyExecution {
    inner: Box<dyn Execution>,
    chance: Arc<Chance>,
}

impl Execution for FaultyExecution {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError> {
        if self.chance.of(2) {
            return Err(EngineError::Run("a fault".into()));
        }
        assert!(!self.chance.of(1), "a fault");
        self.inner.run(inputs, wanted)
    }
}
