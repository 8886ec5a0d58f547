//! Records of the activations that ended last: a ring, bounded by number and by memory, so that neither many small results nor few
//! large ones fill the host.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::Record;
use crate::ActivationId;

/// The ring.
pub(super) struct Ledger {
    max_records: usize,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// In the order in which they ended.
    order: VecDeque<Arc<Record>>,
    by_id: HashMap<ActivationId, Arc<Record>>,
    bytes: usize,
}

/// Which records are wanted. Times are milliseconds since 1970, and both ends belong to the span.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) name: Option<String>,
    pub(super) since: Option<u64>,
    pub(super) upto: Option<u64>,
}

impl Wanted {
    fn wants(&self, record: &Record) -> bool {
        self.name.as_ref().is_none_or(|name| *name == record.name)
            && self.since.is_none_or(|since| since <= record.start)
            && self.upto.is_none_or(|upto| record.start <= upto)
    }
}

impl Ledger {
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        Self {
            max_records,
            max_bytes,
            kept: Mutex::default(),
        }
    }

    /// Keeps a record; the oldest make room. The newest stays, however large it is.
    pub(super) fn keep(&self, record: Arc<Record>) {
        let mut gone = Vec::new();
        {
            let mut kept = self.lock();
            kept.bytes += record.weight();
            kept.by_id.insert(record.id, record.clone());
            kept.order.push_back(record);
            while kept.order.len() > 1
                && (kept.order.len() > self.max_records || kept.bytes > self.max_bytes)
            {
                let Some(oldest) = kept.order.pop_front() else {
                    break;
                };
                kept.bytes -= oldest.weight();
                kept.by_id.remove(&oldest.id);
                gone.push(oldest);
            }
        }
        // Memory is given back without the lock.
        drop(gone);
    }

    pub(super) fn get(&self, id: ActivationId) -> Option<Arc<Record>> {
        self.lock().by_id.get(&id).cloned()
    }

    /// What is wanted, newest start first.
    pub(super) fn list(&self, wanted: &Wanted) -> Vec<Arc<Record>> {
        let mut records: Vec<_> = {
            let kept = self.lock();
            let newest = kept.order.iter().rev();
            newest
                .filter(|record| wanted.wants(record))
                .cloned()
                .collect()
        };
        records.sort_by_key(|record| std::cmp::Reverse(record.start));
        records
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics between two changes that belong together.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::conclude::conclude;
    use super::super::config::RestConfig;
    use super::super::entity::{EntityName, Put};
    use super::*;
    use crate::{ActionName, Activation, Program};

    fn record(id: u128, name: &str, start: u64, result: usize) -> Arc<Record> {
        let program = Program {
            binary: "program".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let images = [("i".to_owned(), program)].into();
        let config = RestConfig::new("user:key".parse().unwrap(), images);
        let put = Put::parse(br#"{"exec":{"kind":"blackbox","image":"i"}}"#).unwrap();
        let name = EntityName::new(name).unwrap();
        let deployed = ActionName::new("x").unwrap();
        let action = put.onto(&name, None, deployed, &config).unwrap();
        let id = ActivationId::from_u128(id);
        let activation = Activation {
            id,
            status: 200,
            content_type: None,
            body: Bytes::from(format!("[\"{}\"]", "x".repeat(result))),
            wait_time: Duration::ZERO,
            init_time: None,
            instance: None,
        };
        let conclusion = conclude(Ok(activation), Duration::ZERO, 1 << 20);
        let times = [start, start + 1];
        Arc::new(Record::new(id, &action, "guest", times, conclusion))
    }

    fn ids(ledger: &Ledger, wanted: &Wanted) -> Vec<ActivationId> {
        ledger.list(wanted).iter().map(|record| record.id).collect()
    }

    #[test]
    fn the_oldest_records_make_room_by_number_and_by_memory() {
        let all = Wanted::default();
        let few = Ledger::new(3, usize::MAX);
        let small = Ledger::new(100, 10_000);
        for id in 0..50 {
            few.keep(record(id, "a", id as u64, 0));
            small.keep(record(id, "a", id as u64, 4000));
        }
        let number = |id: u128| ActivationId::from_u128(id);
        assert_eq!(ids(&few, &all), [49, 48, 47].map(number));
        assert_eq!(ids(&small, &all), [49, 48].map(number));
        assert!(few.get(number(46)).is_none() && few.get(number(47)).is_some());
        small.keep(record(99, "a", 99, 100_000));
        assert_eq!(ids(&small, &all), [number(99)]);
        assert!(small.lock().by_id.len() == 1);
    }

    #[test]
    fn a_list_is_by_name_and_time_newest_first() {
        let ledger = Ledger::new(10, usize::MAX);
        for (id, name, start) in [(1, "a", 10), (2, "b", 30), (3, "a", 20), (4, "a", 40)] {
            ledger.keep(record(id, name, start, 0));
        }
        let number = |id: u128| ActivationId::from_u128(id);
        let wanted = Wanted {
            name: Some("a".to_owned()),
            since: Some(20),
            upto: None,
        };
        assert_eq!(ids(&ledger, &wanted), [4, 3].map(number));
        let wanted = Wanted {
            upto: Some(20),
            ..Wanted::default()
        };
        assert_eq!(ids(&ledger, &wanted), [3, 1].map(number));
    }
}
