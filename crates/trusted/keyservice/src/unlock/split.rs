//! Splitting a key and putting it together again: Shamir's secret sharing over GF(2^8), byte by byte (A. Shamir, *How to
//! share a secret*, CACM 22, 1979), by the crate `blahaj`.
//!
//! Fewer shares than the threshold say nothing about the key, however much one computes. That holds only if every coefficient is drawn
//! from all 256 values (RUSTSEC-2024-0398 is about a crate that left out zero), and only from good randomness: ours.
//!
//! The arithmetic is by tables that are indexed with secret bytes, so its memory accesses depend on the key. It runs once
//! when a service is founded and once at a recovery, never at a caller's wish.

use core::convert::Infallible;

use blahaj::Sharks;
use rand_core::{TryCryptoRng, TryRng};
use sesemi_protocol::share::{MIN_THRESHOLD, Scheme, Share, ShareError};
use sesemi_protocol::{Entropy, EntropyError, SecretKey, ServiceId};
use zeroize::Zeroizing;

/// Splits `key` into the shares of `service`, numbered from 1; any `scheme.threshold()` of them make it again.
///
/// # Errors
/// [`ShareError::Entropy`] without randomness; no share is then handed out. [`ShareError::Library`] never in practice.
pub fn split(
    key: &SecretKey,
    service: ServiceId,
    scheme: Scheme,
    entropy: &dyn Entropy,
) -> Result<Vec<Share>, ShareError> {
    let mut source = Source {
        entropy,
        outcome: Ok(()),
    };
    let shares: Vec<blahaj::Share> = Sharks(scheme.threshold())
        .dealer_rng(key.expose(), &mut source)
        .take(usize::from(scheme.count()))
        .collect();
    source.outcome?;
    if shares.len() != usize::from(scheme.count()) {
        return Err(ShareError::Library("it made another number of shares"));
    }
    shares
        .iter()
        .map(|share| {
            let bytes = Zeroizing::new(Vec::from(share));
            let (index, value) = bytes
                .split_first()
                .ok_or(ShareError::Library("it made an empty share"))?;
            let value = SecretKey::from_slice(value)
                .ok_or(ShareError::Library("it made a share of another length"))?;
            Share::new(service, scheme, *index, value)
        })
        .collect()
}

/// Puts the recovery key of `service` together. Of more shares than are needed the first are taken.
///
/// Shares that are wrong give a wrong key: that shows when the key does not open what it should.
///
/// # Errors
/// [`ShareError::OtherService`], [`ShareError::OtherScheme`], [`ShareError::Duplicate`], [`ShareError::TooFew`];
/// [`ShareError::Library`] never in practice.
pub fn combine(service: ServiceId, shares: &[Share]) -> Result<SecretKey, ShareError> {
    let need = check(service, shares)?;
    let points: Result<Vec<blahaj::Share>, _> = shares
        .iter()
        .take(usize::from(need))
        .map(|share| {
            let mut point = Zeroizing::new([0; 33]);
            let (index, value) = point.split_at_mut(1);
            index.fill(share.index());
            value.copy_from_slice(share.value().expose());
            blahaj::Share::try_from(point.as_slice())
        })
        .collect();
    let points = points.map_err(ShareError::Library)?;
    let key = Sharks(need)
        .recover(&points)
        .map(Zeroizing::new)
        .map_err(|_| ShareError::Library("it takes these for too few shares"))?;
    SecretKey::from_slice(&key).ok_or(ShareError::Library("it made a key of another length"))
}

/// Whether these are enough shares that belong together; how many are needed.
fn check(service: ServiceId, shares: &[Share]) -> Result<u8, ShareError> {
    let Some(first) = shares.first() else {
        return Err(ShareError::TooFew {
            have: 0,
            need: MIN_THRESHOLD,
        });
    };
    let (expected, mut seen) = (first.scheme(), Vec::with_capacity(shares.len()));
    for share in shares {
        let index = share.index();
        if share.service() != service {
            return Err(ShareError::OtherService {
                index,
                found: share.service(),
                expected: service,
            });
        }
        if share.scheme() != expected {
            return Err(ShareError::OtherScheme {
                index,
                found: share.scheme(),
                expected,
            });
        }
        if seen.contains(&index) {
            return Err(ShareError::Duplicate(index));
        }
        seen.push(index);
    }
    let need = expected.threshold();
    match seen.len() {
        have if have < usize::from(need) => Err(ShareError::TooFew { have, need }),
        _ => Ok(need),
    }
}

/// Our source of randomness in the form that the library takes, which has no way to say that there is none. So a failure is
/// kept, zeros are given instead, and whatever was made of them is thrown away.
struct Source<'a> {
    entropy: &'a dyn Entropy,
    outcome: Result<(), EntropyError>,
}

impl Source<'_> {
    fn draw<const N: usize>(&mut self) -> Zeroizing<[u8; N]> {
        let mut bytes = Zeroizing::new([0; N]);
        self.fill(&mut *bytes);
        bytes
    }

    fn fill(&mut self, dest: &mut [u8]) {
        if self.outcome.is_ok() {
            self.outcome = self.entropy.fill(dest);
        }
        if self.outcome.is_err() {
            dest.fill(0);
        }
    }
}

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(*self.draw()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(*self.draw()))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        self.fill(dest);
        Ok(())
    }
}

impl TryCryptoRng for Source<'_> {}
