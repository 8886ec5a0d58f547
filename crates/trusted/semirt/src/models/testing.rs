//! Packages, and a store that does not always do its work, for tests.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use sesemi_protocol::package::{self, FormContent, Manifest, ModelFormat, object_path};
use sesemi_protocol::{ModelName, ModelRef, ModelVersion, PrincipalId, SecretKey, SystemEntropy};

use super::fetch::Wanted;
use crate::sync::lock;

pub(super) fn model(version: u32) -> ModelRef {
    ModelRef::new(
        PrincipalId([1; 32]),
        ModelName::new("m").unwrap(),
        ModelVersion::new(version).unwrap(),
    )
}

pub(super) fn key() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

pub(super) fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + seed) % 251) as u8).collect()
}

/// The package of a version with these forms, and what a lease for it says.
pub(super) fn sealed_forms(version: u32, forms: &[FormContent<'_>]) -> (Vec<u8>, Wanted) {
    let manifest = Manifest::describing(vec![], vec![], forms);
    let wanted = Wanted {
        model: model(version),
        key: key(),
        manifest: package::manifest_digest(&manifest).unwrap(),
    };
    let entropy = SystemEntropy::new();
    let package = package::seal(&key(), &model(version), &manifest, forms, &entropy).unwrap();
    (package, wanted)
}

/// A package with one form of one part.
pub(super) fn sealed_one(version: u32, part: &[u8]) -> (Vec<u8>, Wanted) {
    let parts = [part];
    sealed_forms(version, &[FormContent::portable(ModelFormat::Onnx, &parts)])
}

pub(super) async fn put(store: &dyn ObjectStore, version: u32, package: Vec<u8>) {
    let path = Path::from(object_path(&model(version)));
    store.put(&path, PutPayload::from(package)).await.unwrap();
}

/// What the store does with a request that begins at a place in the package.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    None,
    /// Never answers requests from this position on.
    Stalls(u64),
    /// Sends a byte less from this position on.
    Short(u64),
    /// Sends a byte more from this position on.
    Long(u64),
    /// Sends what is a byte before what was asked for from this position on.
    Elsewhere(u64),
}

/// A store in memory that answers in small pieces from threads of the runtime's blocking pool, and counts.
#[derive(Debug)]
pub(super) struct Remote {
    inner: InMemory,
    trouble: Mutex<Trouble>,
    asked: Mutex<Vec<Range<u64>>>,
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trouble")
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("remote")
    }
}

impl Remote {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            trouble: Mutex::new(Trouble::None),
            asked: Mutex::default(),
        })
    }

    pub(super) fn set(&self, trouble: Trouble) {
        *lock(&self.trouble) = trouble;
    }

    /// How far into a package somebody has asked.
    pub(super) fn asked_until(&self) -> u64 {
        lock(&self.asked)
            .iter()
            .map(|range| range.end)
            .max()
            .unwrap_or(0)
    }

    /// What was asked for since the last call.
    pub(super) fn asked(&self) -> Vec<Range<u64>> {
        core::mem::take(&mut *lock(&self.asked))
    }
}

#[async_trait]
impl ObjectStore for Remote {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        let Some(GetRange::Bounded(range)) = options.range.clone() else {
            panic!("all of a package is asked for");
        };
        lock(&self.asked).push(range.clone());
        let trouble = *lock(&self.trouble);
        let lie = match trouble {
            Trouble::Stalls(from) if range.start >= from => std::future::pending().await,
            Trouble::Short(from) if range.start >= from => range.start..range.end - 1,
            Trouble::Long(from) if range.start >= from => range.start..range.end + 1,
            Trouble::Elsewhere(from) if range.start >= from => range.start - 1..range.end - 1,
            _ => range.clone(),
        };
        options.range = Some(GetRange::Bounded(lie));
        let mut result = self.inner.get_opts(path, options).await?;
        let said = result.range.clone();
        let bytes = {
            let GetResultPayload::Stream(mut stream) = result.payload else {
                panic!("not in memory");
            };
            let mut all = Vec::new();
            while let Some(piece) = stream.next().await {
                all.extend_from_slice(&piece?);
            }
            Bytes::from(all)
        };
        // As stores do that read files or look up names: on a thread of the pool.
        let pieces = tokio::task::spawn_blocking(move || {
            let pieces = bytes.chunks(100_000);
            pieces
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect::<Vec<_>>()
        });
        let pieces = pieces.await.unwrap();
        result.payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        // It says that it does what it was asked for.
        result.range = if trouble == Trouble::None {
            said
        } else {
            range
        };
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
