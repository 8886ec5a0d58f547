//! The chain's digest at every 32nd entry, held in memory: what the log was when this service verified it.
//!
//! A single entry that unseals proves only that this service, or a fork of it, once wrote it: the host could put an entry of a
//! fork into the file, and a client of the fork would be told that its history is this one. So an entry that is read at random
//! is read together with its neighbours, from one milestone to the next, and counts only if the chain leads from the
//! one to the other. A milestone costs one byte of memory an entry, a verified read at most 32 entries.

use std::collections::VecDeque;

use sesemi_protocol::Digest;

use super::{LogError, Point};

/// Entries between two milestones.
pub(super) const STRIDE: u64 = 32;
/// Last entries of which the chain's digest is held, besides milestones: half a mebibyte.
const RECENT: usize = 16 * 1024;

/// The chain's digest at each of the last entries: what clients have seen lies among these, mostly, and need not be read.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// The last of them.
    last: u64,
    chains: VecDeque<Digest>,
}

impl Recent {
    /// Goes on to the next entry; after a gap it begins anew.
    pub(super) fn push(&mut self, point: Point) {
        if point.sequence != self.last.saturating_add(1) {
            self.chains.clear();
        }
        if self.chains.len() >= RECENT {
            self.chains.pop_front();
        }
        self.chains.push_back(point.chain);
        self.last = point.sequence;
    }

    /// The chain at `sequence`, if that is one of them.
    pub(super) fn chain_at(&self, sequence: u64) -> Option<Digest> {
        let back = usize::try_from(self.last.checked_sub(sequence)?).ok()?;
        let index = self.chains.len().checked_sub(back)?.checked_sub(1)?;
        self.chains.get(index).copied()
    }
}

/// How far a log goes, and what it was on the way: from where a log can be opened without reading what comes before.
#[derive(Clone, PartialEq, Eq)]
pub struct Start {
    point: Point,
    /// The chain's digest at entries 32, 64, ... up to the point.
    milestones: Vec<Digest>,
}

impl core::fmt::Debug for Start {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Start").field(&self.point).finish()
    }
}

impl Start {
    /// Before the first entry.
    pub const ORIGIN: Self = Self {
        point: Point::START,
        milestones: Vec::new(),
    };

    /// Puts together what was stored.
    pub(super) fn new(point: Point, milestones: Vec<Digest>) -> Result<Self, LogError> {
        let start = Self { point, milestones };
        let last = start.milestones.last();
        let fits = start.milestones.len() as u64 == point.sequence / STRIDE
            && (point.sequence != 0 || point == Point::START)
            && (!point.sequence.is_multiple_of(STRIDE)
                || last.is_none_or(|chain| *chain == point.chain));
        fits.then_some(start).ok_or(LogError::Start)
    }

    /// How far the log goes.
    #[must_use]
    pub fn point(&self) -> Point {
        self.point
    }

    pub(super) fn milestones(&self) -> &[Digest] {
        &self.milestones
    }

    /// Goes on to the next entry.
    pub(super) fn push(&mut self, point: Point) {
        self.point = point;
        if point.sequence.is_multiple_of(STRIDE) {
            self.milestones.push(point.chain);
        }
    }

    /// The chain at `sequence`, if that is a milestone or the end.
    pub(super) fn chain_at(&self, sequence: u64) -> Option<Digest> {
        if sequence == self.point.sequence {
            return Some(self.point.chain);
        }
        if sequence == 0 {
            return Some(Point::START.chain);
        }
        if !sequence.is_multiple_of(STRIDE) {
            return None;
        }
        let index = (sequence / STRIDE).checked_sub(1)?;
        self.milestones.get(usize::try_from(index).ok()?).copied()
    }

    /// The two known points around entry `sequence`: the last before it, and the first from it on.
    pub(super) fn around(&self, sequence: u64) -> Result<(Point, Point), LogError> {
        let last = self.point.sequence;
        let missing = LogError::NoEntry { sequence, last };
        let Some(index) = sequence.checked_sub(1).filter(|_| sequence <= last) else {
            return Err(missing);
        };
        let low = (index / STRIDE).saturating_mul(STRIDE);
        let high = low.saturating_add(STRIDE).min(last);
        let at = |sequence| {
            let chain = self.chain_at(sequence)?;
            Some(Point { sequence, chain })
        };
        at(low).zip(at(high)).ok_or(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(sequence: u64) -> Point {
        let chain = Digest::of(&sequence.to_be_bytes());
        Point { sequence, chain }
    }

    #[test]
    fn the_last_entries_are_recalled_and_no_others() {
        let mut recent = Recent::default();
        assert_eq!(recent.chain_at(0), None);
        let most = RECENT as u64;
        (100..100 + most + 50).for_each(|sequence| recent.push(point(sequence)));
        for sequence in [150, 151, 149 + most / 2, 149 + most] {
            assert_eq!(recent.chain_at(sequence), Some(point(sequence).chain));
        }
        for sequence in [0, 100, 149, 150 + most, u64::MAX] {
            assert_eq!(recent.chain_at(sequence), None, "{sequence}");
        }
        recent.push(point(1));
        assert_eq!(recent.chain_at(1), Some(point(1).chain));
        assert_eq!(recent.chain_at(150), None);
    }
}
