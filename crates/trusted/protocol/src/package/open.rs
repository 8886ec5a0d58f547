//! Reading a package: its head first, which says what there is, then the segments of the form that is wanted, in any order
//! and on any thread. Nothing is fetched here: the caller is told which bytes are needed.

use core::ops::Range;

use zeroize::Zeroizing;

use super::manifest::Places;
use super::stream::{self, Layout, Opener};
use super::{
    FIXED_HEADER, FORMAT_VERSION, MAGIC, Manifest, PackageError, associated_data, parts_start,
};
use crate::cbor;
use crate::id::{Digest, ModelRef};
use crate::limits::{MAX_MANIFEST, MAX_PACKAGE_HEADER};
use crate::secret::SecretKey;

/// Bytes from the start of a package that [`OpenPackage::new`] wants, or all there are: the longest header, and the segment
/// that the manifest lies in.
pub const HEAD: usize = FIXED_HEADER + MAX_PACKAGE_HEADER + stream::SEGMENT;

/// A package whose manifest was read, and which opens segment by segment.
pub struct OpenPackage {
    manifest: Manifest,
    forms: Places,
    /// Length of the plain header, which is where the stream starts.
    header: u64,
    /// Where the first part starts in the plaintext.
    starts: u64,
    opener: Opener,
    /// The plaintext of segment 0, which had to be opened for the manifest.
    first: Zeroizing<Vec<u8>>,
}

/// Where one form lies in the plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPlace {
    /// From its first part's start, which is a multiple of a page, to its last one's end.
    pub plaintext: Range<u64>,
    /// Each part, counted from the start of the first.
    pub parts: Vec<Range<usize>>,
}

impl OpenPackage {
    /// Reads the head of a package of `length` bytes: the first [`HEAD`] of them, or all if there are no more. The model,
    /// the manifest's digest and the key are those of the lease.
    ///
    /// # Errors
    /// [`PackageError`] if it is another model's, not authentic, malformed, or not the registered one.
    pub fn new(
        key: &SecretKey,
        model: &ModelRef,
        manifest: &Digest,
        length: u64,
        head: &[u8],
    ) -> Result<Self, PackageError> {
        let (found, header) = parse_header(head)?.ok_or(PackageError::Header("cut short"))?;
        if found != *model {
            return Err(PackageError::OtherModel {
                expected: Box::new(model.clone()),
                found: Box::new(found),
            });
        }
        let stream_length = length.saturating_sub(header as u64);
        let (stream_header, rest) = head
            .get(header..)
            .and_then(|stream| stream.split_first_chunk::<{ stream::HEADER }>())
            .ok_or(stream::StreamError::CutShort)?;
        let layout = Layout::of_length(stream_length)?;
        let opener = Opener::new(key, &associated_data(model)?, stream_header, layout)?;
        let first = layout.sealed(0);
        let first = usize::try_from(first.end.saturating_sub(first.start)).ok();
        let first = first
            .and_then(|length| rest.get(..length))
            .ok_or(stream::StreamError::CutShort)?;
        let mut first = Zeroizing::new(first.to_vec());
        let plaintext = opener.open(0, &mut first)?;
        let (manifest, encoded) = read_manifest(plaintext, manifest)?;
        manifest.check_tensors()?;
        let starts = parts_start(encoded).ok_or(PackageError::Content("manifest too long"))?;
        let gap = usize::try_from(starts)
            .unwrap_or(usize::MAX)
            .min(plaintext.len());
        let gap = plaintext.get(encoded.saturating_add(4)..gap);
        require_zeros(gap.unwrap_or_default())?;
        let (forms, end) = manifest.places()?;
        if starts.checked_add(end) != Some(layout.plaintext()) {
            return Err(PackageError::Content(
                "its length is not what its parts add up to",
            ));
        }
        let length = plaintext.len();
        first.truncate(length);
        Ok(Self {
            manifest,
            forms,
            header: header as u64,
            starts,
            opener,
            first,
        })
    }

    /// What the owner says about the model.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The plaintext of segment 0, so that it need not be opened again. There is nothing left of it here afterwards.
    #[must_use]
    pub fn take_first(&mut self) -> Zeroizing<Vec<u8>> {
        core::mem::take(&mut self.first)
    }

    /// Where form number `form` of the manifest lies; `None` if there is none, or it is longer than this machine addresses.
    #[must_use]
    pub fn place(&self, form: usize) -> Option<FormPlace> {
        let parts = self.forms.get(form)?;
        let start = parts.first()?.start;
        let end = parts.last()?.end;
        let within = |part: &Range<u64>| {
            let start_of = usize::try_from(part.start.checked_sub(start)?).ok()?;
            Some(start_of..usize::try_from(part.end.checked_sub(start)?).ok()?)
        };
        Some(FormPlace {
            plaintext: self.starts.checked_add(start)?..self.starts.checked_add(end)?,
            parts: parts.iter().map(within).collect::<Option<_>>()?,
        })
    }

    /// The segments that hold a range of the plaintext.
    #[must_use]
    pub fn segments(&self, plaintext: &Range<u64>) -> Range<u32> {
        self.opener.layout().holding(plaintext)
    }

    /// Where a segment lies in the package.
    #[must_use]
    pub fn sealed(&self, segment: u32) -> Range<u64> {
        let Range { start, end } = self.opener.layout().sealed(segment);
        self.header.saturating_add(start)..self.header.saturating_add(end)
    }

    /// What of the plaintext a segment holds.
    #[must_use]
    pub fn opened(&self, segment: u32) -> Range<u64> {
        self.opener.layout().opened(segment)
    }

    /// Opens a segment where it lies; its plaintext is the part of `sealed` that is returned.
    ///
    /// # Errors
    /// [`PackageError::Stream`] if it is not authentic.
    pub fn open<'s>(
        &self,
        segment: u32,
        sealed: &'s mut [u8],
    ) -> Result<&'s mut [u8], PackageError> {
        Ok(self.opener.open(segment, sealed)?)
    }

    /// Opens a segment whose tag lies elsewhere, so that its plaintext is where the ciphertext was, with nothing behind it.
    ///
    /// # Errors
    /// [`PackageError::Stream`] if it is not authentic. What is left in `body` is then of no use.
    pub fn open_separate(
        &self,
        segment: u32,
        body: &mut [u8],
        tag: &[u8; stream::TAG],
    ) -> Result<(), PackageError> {
        Ok(self.opener.open_separate(segment, body, tag)?)
    }
}

impl FormPlace {
    /// Checks, once a form is decrypted, that there is nothing between its parts.
    ///
    /// # Errors
    /// [`PackageError::Content`] if anything but zeros is there, or `form` is not all of it.
    pub fn check_gaps(&self, form: &[u8]) -> Result<(), PackageError> {
        let following = self.parts.iter().skip(1);
        for (before, after) in self.parts.iter().zip(following) {
            let gap = form.get(before.end..after.start);
            require_zeros(gap.ok_or(PackageError::Content("a form cut short"))?)?;
        }
        Ok(())
    }
}

/// A whole package, opened: all forms with all parts. For tools; SeMIRT opens the form that it uses.
pub struct Package {
    /// What the owner says about the model.
    pub manifest: Manifest,
    /// The parts of each form, in the manifest's order.
    pub forms: Vec<Vec<Zeroizing<Vec<u8>>>>,
}

impl Package {
    /// Opens a package that lies in memory as a whole, and checks all gaps and the manifest's digest of the content.
    ///
    /// # Errors
    /// As [`OpenPackage::new`]; [`PackageError::Content`] if the content is not what the manifest says.
    pub fn open(
        key: &SecretKey,
        model: &ModelRef,
        manifest: &Digest,
        package: &[u8],
    ) -> Result<Self, PackageError> {
        let head = package.get(..HEAD).unwrap_or(package);
        let opened = OpenPackage::new(key, model, manifest, package.len() as u64, head)?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(package.len()));
        for segment in 0..opened.opener.layout().segments() {
            let Range { start, end } = opened.sealed(segment);
            let (start, end) = (usize::try_from(start), usize::try_from(end));
            let sealed = start.ok().zip(end.ok()).map(|(start, end)| start..end);
            let sealed = sealed.and_then(|range| package.get(range));
            let mut sealed = Zeroizing::new(sealed.unwrap_or_default().to_vec());
            plaintext.extend_from_slice(opened.open(segment, &mut sealed)?);
        }
        let starts = usize::try_from(opened.starts).unwrap_or(usize::MAX);
        let content = plaintext.get(starts..).unwrap_or_default();
        if Digest::of(content) != opened.manifest.content {
            return Err(PackageError::Content("not what the manifest's digest says"));
        }
        let slice = |range: Range<u64>| {
            let start = usize::try_from(range.start).ok();
            let range = start.zip(usize::try_from(range.end).ok());
            range
                .and_then(|(start, end)| content.get(start..end))
                .ok_or(PackageError::Content("parts too long"))
        };
        let mut end = 0;
        let mut forms = Vec::with_capacity(opened.forms.len());
        for places in &opened.forms {
            let mut parts = Vec::with_capacity(places.len());
            for place in places {
                require_zeros(slice(end..place.start)?)?;
                parts.push(Zeroizing::new(slice(place.clone())?.to_vec()));
                end = place.end;
            }
            forms.push(parts);
        }
        Ok(Self {
            manifest: opened.manifest,
            forms,
        })
    }
}

impl core::fmt::Debug for OpenPackage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpenPackage").finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Package {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Package").finish_non_exhaustive()
    }
}

/// The manifest at the start of the plaintext, and its encoded length.
fn read_manifest(plaintext: &[u8], expected: &Digest) -> Result<(Manifest, usize), PackageError> {
    let (field, rest) = plaintext
        .split_first_chunk::<4>()
        .ok_or(PackageError::Content("no manifest"))?;
    let length = usize::try_from(u32::from_le_bytes(*field))
        .ok()
        .filter(|length| *length <= MAX_MANIFEST)
        .ok_or(PackageError::Content("manifest too long"))?;
    let encoded = rest
        .get(..length)
        .ok_or(PackageError::Content("manifest cut short"))?;
    if Digest::of(encoded) != *expected {
        return Err(PackageError::OtherManifest);
    }
    Ok((cbor::decode(encoded, MAX_MANIFEST)?, length))
}

fn require_zeros(gap: &[u8]) -> Result<(), PackageError> {
    if gap.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(PackageError::Content("padding is not zero"))
    }
}

/// The model that a package's plain header names, and the header's length; `None` while bytes are missing.
///
/// # Errors
/// [`PackageError::Header`] if this is no package.
pub fn parse_header(bytes: &[u8]) -> Result<Option<(ModelRef, usize)>, PackageError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_HEADER>() else {
        return Ok(None);
    };
    let [m @ .., v1, v0, l1, l0] = fixed;
    if m != MAGIC {
        return Err(PackageError::Header("the first bytes are not SESEMIPK"));
    }
    if u16::from_be_bytes([*v1, *v0]) != FORMAT_VERSION {
        return Err(PackageError::Header("unknown format version"));
    }
    let length = usize::from(u16::from_be_bytes([*l1, *l0]));
    if length > MAX_PACKAGE_HEADER {
        return Err(PackageError::Header("header too long"));
    }
    let Some(encoded) = rest.get(..length) else {
        return Ok(None);
    };
    let model = cbor::decode(encoded, MAX_PACKAGE_HEADER)
        .map_err(|_| PackageError::Header("model reference"))?;
    Ok(Some((model, FIXED_HEADER.saturating_add(length))))
}
