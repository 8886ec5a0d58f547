//! Where a package's ciphertext comes from: a file, of a local store or of the cache, whose bytes are read to where they are
//! needed; or a store that is asked for ranges, several at once.
//!
//! Nothing of what comes is believed. A store may send too little, too much or nothing at all: no more is taken than was asked
//! for.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};
use sesemi_protocol::ModelRef;
use sesemi_protocol::package::stream::Layout;
use sesemi_protocol::package::{HEAD, PackageError, object_path, parse_header};

use super::fetch::FetchError;

/// A package that can be read.
#[derive(Clone)]
pub(super) enum Source {
    /// It is a file.
    File(Arc<File>),
    /// It is asked for by ranges.
    Ranges(Arc<dyn ObjectStore>, ObjectPath),
}

/// The first bytes of a package, and its length, as the store says it: a lie makes the last segment another one, which then does
/// not open.
pub(super) struct Head {
    pub(super) bytes: Bytes,
    pub(super) length: u64,
}

/// Where the segments of a package lie, as header and length say; no key is needed for that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    header: u64,
    pub(super) layout: Layout,
}

impl Cut {
    pub(super) fn of(head: &Head) -> Result<Self, FetchError> {
        let (_, header) = parse_header(&head.bytes)?.ok_or(PackageError::Header("cut short"))?;
        let header = header as u64;
        let layout = Layout::of_length(head.length.saturating_sub(header));
        let layout = layout.map_err(PackageError::from)?;
        Ok(Self { header, layout })
    }

    /// Where a segment lies in the package.
    pub(super) fn sealed(&self, segment: u32) -> Range<u64> {
        let Range { start, end } = self.layout.sealed(segment);
        self.header.saturating_add(start)..self.header.saturating_add(end)
    }
}

impl Source {
    /// Opens a package in a store.
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        model: &ModelRef,
    ) -> Result<(Self, Head), FetchError> {
        let path = ObjectPath::from(object_path(model));
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..HEAD as u64)),
            ..GetOptions::default()
        };
        let answer = store.get_opts(&path, options).await?;
        let length = answer.meta.size;
        match answer.payload {
            GetResultPayload::File(file, _) => Self::of_file(file).await,
            GetResultPayload::Stream(pieces) => {
                let (bytes, _) = collect(pieces, HEAD).await?;
                Ok((Self::Ranges(store, path), Head { bytes, length }))
            }
        }
    }

    /// A package in a file.
    pub(super) async fn of_file(file: File) -> Result<(Self, Head), FetchError> {
        let reading = tokio::task::spawn_blocking(move || {
            let length = file.metadata()?.len();
            let head = usize::try_from(length).unwrap_or(HEAD).min(HEAD);
            let mut bytes = vec![0; head];
            file.read_exact_at(&mut bytes, 0)?;
            let bytes = Bytes::from(bytes);
            Ok((Self::File(Arc::new(file)), Head { bytes, length }))
        });
        reading.await.map_err(|_| FetchError::Ended)?
    }
}

/// A range of a package from a store.
pub(super) async fn range(
    store: &dyn ObjectStore,
    path: &ObjectPath,
    range: Range<u64>,
) -> Result<Bytes, FetchError> {
    let expected = range.end.saturating_sub(range.start);
    let options = GetOptions {
        range: Some(GetRange::Bounded(range.clone())),
        ..GetOptions::default()
    };
    let answer = store.get_opts(path, options).await?;
    let wrong = |found| FetchError::Length { found, expected };
    if answer.range != range {
        return Err(wrong(answer.range.end.saturating_sub(answer.range.start)));
    }
    let most = usize::try_from(expected).map_err(|_| wrong(0))?;
    let (bytes, surplus) = collect(answer.into_stream(), most).await?;
    if bytes.len() != most || surplus {
        return Err(wrong(bytes.len() as u64));
    }
    Ok(bytes)
}

/// The first `most` bytes of a stream, and whether more came.
async fn collect(
    mut pieces: BoxStream<'static, object_store::Result<Bytes>>,
    most: usize,
) -> Result<(Bytes, bool), FetchError> {
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let mut piece = piece?;
        let room = most.saturating_sub(all.len());
        let surplus = piece.len() > room;
        piece.truncate(room);
        if all.is_empty() && piece.len() == most {
            // All at once: as it is, without a copy.
            return Ok((piece, surplus));
        }
        if all.is_empty() {
            all.reserve(most);
        }
        all.extend_from_slice(&piece);
        if all.len() == most {
            return Ok((all.freeze(), surplus));
        }
    }
    Ok((all.freeze(), false))
}
