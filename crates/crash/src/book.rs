//! What all clients together know: every command that was sent and what became of it. The log is compared with it.

use std::collections::{BTreeMap, HashMap};

use minicbor::Encode;
use sesemi_protocol::audit::{self, AuditItem, Record};
use sesemi_protocol::command::Action;
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::{Digest, PrincipalId, RefusalCode, cbor};

use crate::client::Signed;
use crate::error::CrashError;
use crate::expected::Expected;
use crate::findings::Findings;

/// A command that was sent.
#[derive(Debug)]
struct Sent {
    signer: PrincipalId,
    action: Action,
    refused: Option<RefusalCode>,
    /// The receipt that came for it.
    receipt: Option<Vec<u8>>,
    /// Where the log has it.
    entry: Option<u64>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    sent: HashMap<Digest, Sent>,
    /// Acknowledged, and not yet compared with the log: by their place in it.
    acknowledged: BTreeMap<u64, (Digest, Point)>,
    /// Up to here the log was read and followed.
    pub verified: Point,
    /// The state up to there.
    pub expected: Expected,
    /// The state as it probably is by now: by it new commands are made up.
    pub guess: Expected,
    /// Releases that were made and that the log does not show yet. It may never show the last of them.
    pub released: u64,
    /// What is wrong.
    pub findings: Findings,
}

impl Book {
    /// The book of a service that is about to be founded.
    #[must_use]
    pub fn new(findings: Findings) -> Self {
        Self {
            sent: HashMap::new(),
            acknowledged: BTreeMap::new(),
            verified: Point::START,
            expected: Expected::default(),
            guess: Expected::default(),
            released: 0,
            findings,
        }
    }

    /// Notes a command before it is sent.
    pub fn send(&mut self, signer: PrincipalId, signed: &Signed, action: Action) {
        self.findings.sent += 1;
        let sent = Sent {
            signer,
            action,
            refused: None,
            receipt: None,
            entry: None,
        };
        self.sent.insert(signed.digest(), sent);
    }

    /// Notes a receipt. One that comes again must be the same, and for the same place in the log.
    pub fn acknowledge(&mut self, signed: &Signed, receipt: &Receipt, bytes: Vec<u8>) {
        let digest = signed.digest();
        let Some(sent) = self.sent.get_mut(&digest) else {
            return;
        };
        let point = receipt.state.point;
        match (&sent.receipt, sent.entry) {
            (Some(known), _) if *known != bytes => {
                let text = format!(
                    "a second receipt for a command, at entry {}",
                    point.sequence
                );
                return self.findings.phantom(text);
            }
            (Some(_), _) => return,
            (None, Some(entry)) if entry != point.sequence => {
                let text = format!(
                    "a command of entry {entry} was acknowledged again at entry {}",
                    point.sequence
                );
                return self.findings.phantom(text);
            }
            (None, _) => {}
        }
        self.findings.acknowledged += 1;
        if sent.entry.is_none() {
            let action = sent.action.clone();
            self.guess.apply(sent.signer, action, point.sequence, 0);
            self.acknowledged.insert(point.sequence, (digest, point));
        }
        sent.receipt = Some(bytes);
    }

    /// Whether a command was refused.
    #[must_use]
    pub fn was_refused(&self, signed: &Signed) -> bool {
        let sent = self.sent.get(&signed.digest());
        sent.is_some_and(|sent| sent.refused.is_some())
    }

    /// Notes a refusal.
    pub fn refuse(&mut self, signed: &Signed, code: RefusalCode) {
        let Some(sent) = self.sent.get_mut(&signed.digest()) else {
            return;
        };
        sent.refused = Some(code);
        self.findings.refused += 1;
        if let Some(entry) = sent.entry {
            let text = format!("the command of entry {entry}, sent again, was refused: {code:?}");
            self.findings.lost(text);
        }
    }

    /// Compares the log from [`Book::verified`] to `head` with what was sent: each view is what one client was shown of it.
    ///
    /// # Errors
    /// [`CrashError`] if an entry cannot be read.
    pub fn compare(
        &mut self,
        head: Point,
        views: &[(Point, Vec<AuditItem>)],
    ) -> Result<(), CrashError> {
        for (from, items) in views {
            if *from != self.verified || audit::follow(from, items) != head {
                let text = format!(
                    "from entry {} to the head at entry {}",
                    self.verified.sequence, head.sequence
                );
                self.findings.chain_break(text);
            }
        }
        let Some((_, first)) = views.first() else {
            return Ok(());
        };
        let mut point = self.verified;
        for (place, item) in first.iter().enumerate() {
            point = audit::extend(&point, &item.digest());
            let shown = views.iter().find_map(|(_, items)| match items.get(place) {
                Some(AuditItem::Shown(public)) => Some(public.as_slice()),
                _ => None,
            });
            match shown {
                Some(public) => self.entry(point, public)?,
                None => {
                    let text = format!("entry {} concerns nobody", point.sequence);
                    self.findings.phantom(text);
                }
            }
        }
        // What is left in the list was acknowledged, and the log does not go that far or has something else there.
        for (sequence, _) in core::mem::take(&mut self.acknowledged) {
            self.findings.lost(format!("entry {sequence}"));
        }
        self.findings.entries += head.sequence.saturating_sub(self.verified.sequence);
        self.verified = head;
        self.guess = self.expected.clone();
        Ok(())
    }

    fn entry(&mut self, point: Point, public: &[u8]) -> Result<(), CrashError> {
        let sequence = point.sequence;
        let entry = audit::decode(public)?;
        let signed = match &entry.record {
            Record::Command(signed) => signed,
            Record::Founded { .. } if sequence == 1 => return Ok(()),
            // Newer endorsements, and recoveries, which are counted where they are made.
            Record::Floor(_) | Record::Recovered { .. } => return Ok(()),
            Record::Released(released) if u64::from(released.times) <= self.released => {
                self.released -= u64::from(released.times);
                return Ok(());
            }
            other => {
                let text = format!("entry {sequence} is {other:?}");
                self.findings.phantom(text);
                return Ok(());
            }
        };
        let digest = Digest::of(signed);
        if let Some((known, at)) = self.acknowledged.remove(&sequence)
            && (known != digest || at != point)
        {
            let text = format!("entry {sequence} is not what was acknowledged");
            self.findings.lost(text);
        }
        let Some(sent) = self.sent.get_mut(&digest) else {
            let text = format!("entry {sequence} was never sent");
            self.findings.phantom(text);
            return Ok(());
        };
        if let Some(earlier) = sent.entry {
            let text = format!("entry {sequence} is the command of entry {earlier}");
            self.findings.phantom(text);
        }
        if let Some(code) = sent.refused {
            let text = format!("entry {sequence} was refused: {code:?}");
            self.findings.phantom(text);
        }
        sent.entry = Some(sequence);
        let (signer, action) = (sent.signer, sent.action.clone());
        self.expected.apply(signer, action, sequence, entry.at);
        Ok(())
    }

    /// Compares a list of the service with the expected one; the order is not compared.
    ///
    /// # Errors
    /// [`CrashError::Cbor`].
    pub fn compare_list<T: Encode<()> + core::fmt::Debug>(
        &mut self,
        expected: &[T],
        found: &[T],
    ) -> Result<(), CrashError> {
        self.findings.compared += 1;
        let expected = by_encoding(expected)?;
        let found = by_encoding(found)?;
        for (bytes, (item, count)) in &expected {
            if found.get(bytes).is_none_or(|(_, found)| found < count) {
                self.findings.lost(format!("{item:?}"));
            }
        }
        for (bytes, (item, count)) in &found {
            if expected
                .get(bytes)
                .is_none_or(|(_, expected)| expected < count)
            {
                self.findings.phantom(format!("{item:?}"));
            }
        }
        Ok(())
    }
}

type Counted<'a, T> = BTreeMap<Vec<u8>, (&'a T, u32)>;

fn by_encoding<T: Encode<()>>(items: &[T]) -> Result<Counted<'_, T>, CrashError> {
    let mut counted = Counted::new();
    for item in items {
        let bytes = cbor::encode(item)?.to_vec();
        counted.entry(bytes).or_insert((item, 0)).1 += 1;
    }
    Ok(counted)
}
