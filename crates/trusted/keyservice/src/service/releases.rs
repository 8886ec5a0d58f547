//! Keys for enclaves, and the record of it.
//!
//! A release is recorded with the next write to the log, a fraction of a second later: waiting for the disk would make every cold
//! start wait. Renewals on the same connection are counted and recorded together. If releases cannot be recorded for long, there are
//! none.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Instant;

use sesemi_attest::Claims;
use sesemi_attest::channel::Peer;
use sesemi_protocol::audit::{Record, Released};
use sesemi_protocol::limits::MAX_RELEASES;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::wire::ReplyBody;
use sesemi_protocol::{Refusal, RefusalCode};

use super::pages::Lane;
use super::{KeyService, Witness, lock, read};
use crate::decision::{Ask, NoTrail, decide};
use crate::metrics::Outcome;

/// Releases that may wait to be recorded.
const MAX_PENDING: usize = 100_000;
/// Releases whose renewals are counted at once.
const MAX_COUNTED: usize = 100_000;

/// Points that the requests of one call have seen, and whether the log agrees: at most as many as there are requests.
type Agreed = Vec<(Point, Result<(), Refusal>)>;

impl KeyService {
    pub(super) async fn release(&self, peer: &Peer, requests: &[ReleaseRequest]) -> ReplyBody {
        let started = Instant::now();
        let Peer::Enclave(claims) = peer else {
            return ReplyBody::Refused(RefusalCode::NotAttested.into());
        };
        if requests.is_empty() || requests.len() > MAX_RELEASES {
            let detail = format!("ask for 1 to {MAX_RELEASES} releases in one call");
            return ReplyBody::Refused(Refusal::new(RefusalCode::Malformed, detail));
        }
        let agreed = self.agree_all(Lane::Enclave(claims.evidence), requests);
        let agreed = agreed.await;
        let outcomes = requests.iter().map(|request| {
            let released = self.release_one(claims, request, &agreed);
            let outcome = Outcome::of(released.as_ref().err().map(|refusal| refusal.code));
            self.metrics.releases.get_or_create(&outcome).inc();
            match released {
                Ok(lease) => ReleaseOutcome::Lease(Box::new(lease)),
                Err(refusal) => ReleaseOutcome::Refused(refusal),
            }
        });
        let outcomes: Vec<ReleaseOutcome> = outcomes.collect();
        self.metrics
            .release_seconds
            .observe(started.elapsed().as_secs_f64());
        ReplyBody::Released(outcomes)
    }

    /// Compares each point that these requests have seen with the log, once. Most have seen the same, which is known in memory.
    async fn agree_all(&self, lane: Lane, requests: &[ReleaseRequest]) -> Agreed {
        let mut agreed = Agreed::new();
        let mut unknown = Vec::new();
        for request in requests {
            let seen = request.seen;
            let known = agreed.iter().any(|(point, _)| *point == seen);
            if seen == Point::START || known || unknown.contains(&seen) {
                continue;
            }
            match self.reader.recalls(seen) {
                Some(agreement) => agreed.push((seen, self.judge(Witness::Known, seen, agreement))),
                None => unknown.push(seen),
            }
        }
        if unknown.is_empty() {
            return agreed;
        }
        match self.look_up(lane, unknown.clone()).await {
            Ok(found) => {
                let judged = unknown.into_iter().zip(found).map(|(seen, found)| {
                    let judged =
                        found.and_then(|agreement| self.judge(Witness::Known, seen, agreement));
                    (seen, judged)
                });
                agreed.extend(judged);
            }
            Err(refusal) => {
                let refused = unknown.into_iter();
                agreed.extend(refused.map(|seen| (seen, Err(refusal.clone()))));
            }
        }
        agreed
    }

    fn release_one(
        &self,
        claims: &Claims,
        request: &ReleaseRequest,
        agreed: &Agreed,
    ) -> Result<Lease, Refusal> {
        if !self.recorder.has_room() {
            return Err(RefusalCode::Unwritable.into());
        }
        if request.seen != Point::START {
            let mut agreed = agreed.iter();
            let found = agreed.find(|(point, _)| *point == request.seen);
            found.map_or(Err(RefusalCode::Internal.into()), |(_, found)| {
                found.clone()
            })?;
        }
        let state = read(&self.state);
        if self.recorder.is_closed() || state.governance().successor().is_some() {
            return Err(RefusalCode::HandedOver.into());
        }
        let now = state.time(self.clock.unix_seconds());
        let ask = Ask {
            user: &request.user,
            model: &request.model,
            code: &claims.code,
            key: Some(request.key),
            now,
        };
        let allowed = decide(&state, &ask, &mut NoTrail)?;
        self.recorder.note(Released {
            user: request.user,
            model: allowed.model.clone(),
            key: request.key,
            grant: allowed.grant,
            code: claims.code,
            evidence: claims.evidence,
            times: 1,
            state: state.point().sequence,
            last: now,
        });
        Ok(Lease {
            model_key: allowed.model_key.clone(),
            manifest: allowed.manifest,
            request_key: allowed.request_key.clone(),
            seconds: allowed.seconds(now, self.lease_seconds),
            isolation: allowed.isolation,
            state: StatePoint {
                service: self.id(),
                point: state.point(),
            },
            model: allowed.model,
        })
    }
}

/// Releases on their way to the log.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// To be recorded with the next write.
    records: VecDeque<Record>,
    /// Each release, without its times, and how it came again since its last record.
    renewals: HashMap<Released, Again>,
    /// The log is about to end: what is released now could not be recorded any more.
    closed: bool,
}

/// A release that came again.
#[derive(Debug, Clone, Copy, Default)]
struct Again {
    times: u32,
    /// Of the last time.
    state: u64,
    last: u64,
}

/// What is the same for all releases that are counted together.
fn kind(released: &Released) -> Released {
    Released {
        times: 0,
        state: 0,
        last: 0,
        ..released.clone()
    }
}

impl Recorder {
    fn has_room(&self) -> bool {
        lock(&self.0).records.len() < MAX_PENDING
    }

    fn is_closed(&self) -> bool {
        lock(&self.0).closed
    }

    /// Has no more keys released, or again.
    pub(super) fn close(&self, closed: bool) {
        lock(&self.0).closed = closed;
    }

    pub(super) fn has_pending(&self) -> bool {
        !lock(&self.0).records.is_empty()
    }

    /// Notes one release: the first on a connection is recorded soon, the others are counted.
    fn note(&self, released: Released) {
        let mut pending = lock(&self.0);
        let kind = kind(&released);
        if let Some(again) = pending.renewals.get_mut(&kind) {
            *again = Again {
                times: again.times.saturating_add(1),
                state: released.state,
                last: released.last,
            };
            return;
        }
        if pending.renewals.len() < MAX_COUNTED {
            pending.renewals.insert(kind, Again::default());
        }
        pending.records.push_back(Record::Released(released));
    }

    /// Has renewals recorded that were counted, and forgets connections without any.
    pub(super) fn count_renewals(&self) {
        let mut pending = lock(&self.0);
        pending.renewals.retain(|_, again| again.times > 0);
        let counted: Vec<Record> = pending
            .renewals
            .iter_mut()
            .map(|(kind, again)| {
                let Again { times, state, last } = core::mem::take(again);
                Record::Released(Released {
                    times,
                    state,
                    last,
                    ..kind.clone()
                })
            })
            .collect();
        pending.records.extend(counted);
    }

    /// Takes up to `most` records that wait.
    pub(super) fn take(&self, most: usize) -> Vec<Record> {
        let records = &mut lock(&self.0).records;
        let count = most.min(records.len());
        records.drain(..count).collect()
    }

    /// Takes records back that could not be written.
    pub(super) fn give_back(&self, unwritten: Vec<Record>) {
        let records = &mut lock(&self.0).records;
        for record in unwritten.into_iter().rev() {
            records.push_front(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use sesemi_protocol::release::RequestKeyName;
    use sesemi_protocol::{
        CodeIdentityDigest, Digest, ModelName, ModelRef, ModelVersion, PrincipalId,
    };

    use super::*;

    fn released(connection: u8) -> Released {
        Released {
            user: PrincipalId([1; 32]),
            model: ModelRef::new(
                PrincipalId([2; 32]),
                ModelName::new("m").unwrap(),
                ModelVersion::new(1).unwrap(),
            ),
            key: RequestKeyName::model(1),
            grant: 7,
            code: CodeIdentityDigest([3; 32]),
            evidence: Digest([connection; 32]),
            times: 1,
            state: 7,
            last: 1000,
        }
    }

    fn times(records: &[Record]) -> Vec<u32> {
        let times = records.iter().map(|record| match record {
            Record::Released(released) => released.times,
            other => panic!("{other:?}"),
        });
        times.collect()
    }

    #[test]
    fn the_first_release_is_recorded_at_once_and_renewals_are_counted() {
        let recorder = Recorder::default();
        for again in 0..5 {
            let mut released = released(1);
            released.state += again;
            released.last += 10 * again;
            recorder.note(released);
        }
        recorder.note(released(2));
        assert_eq!(times(&recorder.take(10)), [1, 1]);
        assert!(!recorder.has_pending());
        recorder.count_renewals();
        let counted = recorder.take(10);
        assert_eq!(times(&counted), [4]);
        // What was last is what counts: a right that ended later was still there.
        assert!(
            matches!(&counted[..], [Record::Released(last)] if (last.state, last.last) == (11, 1040))
        );
        recorder.count_renewals();
        assert!(recorder.take(10).is_empty());
        // Both connections were idle in between: what comes now is a first release again.
        recorder.note(released(1));
        assert_eq!(times(&recorder.take(10)), [1]);
    }

    #[test]
    fn what_could_not_be_written_keeps_its_place() {
        let recorder = Recorder::default();
        for connection in 0..4 {
            recorder.note(released(connection));
        }
        let taken = recorder.take(2);
        recorder.give_back(taken.clone());
        assert_eq!(recorder.take(4)[..2], taken);
    }
}
