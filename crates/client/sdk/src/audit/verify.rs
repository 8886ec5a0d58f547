//! Verifying an audit file with nothing but the file and what its reader remembers.

use std::collections::HashMap;
use std::io::{BufRead, Read as _};

use serde::de::DeserializeOwned;
use sesemi_protocol::audit::{self, AuditItem, Record, extend};
use sesemi_protocol::command::{self, Action, Command};
use sesemi_protocol::receipt::{Head, Point, Receipt, SignedError};
use sesemi_protocol::{PrincipalId, PublicIdentity, ServiceId};

use super::file::{EndLine, EntryLine, HeaderLine};
use super::{AuditError, MAX_LINE, View};
use crate::client::SignedReceipt;

/// What the reader of an audit file knows from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Which service's log it must be.
    pub service: Option<ServiceId>,
    /// Points that somebody has seen, and who: each must be on the chain.
    pub seen: Vec<(String, Point)>,
    /// Commands with their receipts: each must be on the chain.
    pub receipts: Vec<(String, SignedReceipt)>,
}

/// What is proven about an audit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which service.
    pub service: ServiceId,
    /// Whose view.
    pub of: PrincipalId,
    /// The point that the chain was followed from. Nothing before it is proven.
    pub from: Point,
    /// The signed end.
    pub head: Head,
    /// Entries that could be read.
    pub shown: u64,
    /// Entries that concern others.
    pub hidden: u64,
    /// Shown commands whose signature was verified, because the file has the signer's registration.
    pub signatures: u64,
    /// Shown commands of signers whose registration is not in the file.
    pub unknown_signers: u64,
    /// Points and receipts that were found on the chain.
    pub points: usize,
    /// Points that the file says nothing of, because it begins after them.
    pub before: usize,
}

/// A walk along a file.
struct Walk<'e> {
    view: View,
    service: PublicIdentity,
    at: Point,
    expected: &'e [(String, Point)],
    met: usize,
    signers: HashMap<PrincipalId, PublicIdentity>,
    verified: Verified,
}

/// Verifies an audit file: the chain is computed anew, leads to an end that the service signed, and passes through every point
/// that somebody has seen.
///
/// # Errors
/// [`AuditError`], with the line or entry at fault.
pub fn verify(file: impl BufRead, expected: &Expected) -> Result<Verified, AuditError> {
    let mut lines = Lines {
        file,
        number: 0,
        line: Vec::new(),
    };
    let first = lines.next()?.ok_or(AuditError::NoHead)?;
    let header: HeaderLine = parse(first, 1)?;
    let view = header.view()?;
    let service = PublicIdentity::from_key(view.service_key);
    let found = service.service_id();
    if let Some(expected) = expected.service.filter(|expected| *expected != found) {
        return Err(AuditError::OtherService { expected, found });
    }
    let points = points(expected, &service)?;
    let mut walk = Walk::new(view, service, &points);
    loop {
        let number = lines.number.saturating_add(1);
        let line = lines.next()?.ok_or(AuditError::NoHead)?;
        // The end has a field that no entry has, and the other way round.
        if let Ok(end) = serde_json::from_slice::<EndLine>(line) {
            if lines.next()?.is_some() {
                return Err(AuditError::Line {
                    line: number.saturating_add(1),
                    why: "nothing comes after the signed end".into(),
                });
            }
            return walk.finish(&end, number);
        }
        let line: EntryLine = parse(line, number)?;
        walk.step(&line, number)?;
    }
}

/// All points that must be on the chain, in order.
fn points(
    expected: &Expected,
    service: &PublicIdentity,
) -> Result<Vec<(String, Point)>, AuditError> {
    let mut points = expected.seen.clone();
    for (who, kept) in &expected.receipts {
        let receipt = Receipt::verify(&kept.receipt, service, &kept.command).map_err(|source| {
            AuditError::Signed {
                what: who.clone(),
                source,
            }
        })?;
        points.push((who.clone(), receipt.state.point));
    }
    points.sort_by_key(|(_, point)| point.sequence);
    Ok(points)
}

impl<'e> Walk<'e> {
    fn new(view: View, service: PublicIdentity, expected: &'e [(String, Point)]) -> Self {
        let before = expected
            .iter()
            .take_while(|(_, point)| point.sequence < view.from.sequence)
            .count();
        Self {
            view,
            service,
            at: view.from,
            expected,
            met: before,
            signers: HashMap::new(),
            verified: Verified {
                service: service.service_id(),
                of: view.of,
                from: view.from,
                head: Head {
                    state: sesemi_protocol::receipt::StatePoint {
                        service: service.service_id(),
                        point: view.from,
                    },
                    at: 0,
                },
                shown: 0,
                hidden: 0,
                signatures: 0,
                unknown_signers: 0,
                points: 0,
                before,
            },
        }
    }

    fn step(&mut self, line: &EntryLine, number: u64) -> Result<(), AuditError> {
        self.meet()?;
        let expected = self.at.sequence.saturating_add(1);
        if line.entry != expected {
            return Err(AuditError::Order {
                line: number,
                expected,
                found: line.entry,
            });
        }
        let item = line.item(number)?;
        match &item {
            AuditItem::Shown(public) => {
                self.verified.shown = self.verified.shown.saturating_add(1);
                self.look(public, expected)?;
            }
            AuditItem::Hidden(_) => self.verified.hidden = self.verified.hidden.saturating_add(1),
        }
        if !line.is_worded_as(&item) {
            return Err(AuditError::Reworded { line: number });
        }
        self.at = extend(&self.at, &item.digest());
        Ok(())
    }

    /// Compares the chain with what was seen of it at this entry.
    fn meet(&mut self) -> Result<(), AuditError> {
        while let Some((who, point)) = self.expected.get(self.met) {
            if point.sequence != self.at.sequence {
                break;
            }
            if *point != self.at {
                return Err(AuditError::Forked {
                    who: who.clone(),
                    sequence: point.sequence,
                });
            }
            self.met = self.met.saturating_add(1);
            self.verified.points = self.verified.points.saturating_add(1);
        }
        Ok(())
    }

    /// What a shown entry says must fit.
    fn look(&mut self, public: &[u8], sequence: u64) -> Result<(), AuditError> {
        let wrong = |why| AuditError::Entry { sequence, why };
        let entry = audit::decode(public).map_err(|_| wrong("it cannot be read"))?;
        match &entry.record {
            Record::Founded { public_key, .. } => {
                let own = *public_key == self.view.service_key && sequence == 1;
                if own {
                    Ok(())
                } else {
                    Err(wrong("the founding is of another service"))
                }
            }
            _ if sequence == 1 => Err(wrong("a log begins with the founding of its service")),
            Record::Command(signed) => self.command(signed, sequence),
            _ => Ok(()),
        }
    }

    /// Verifies a command's signature if its signer's key is known by now.
    fn command(&mut self, signed: &[u8], sequence: u64) -> Result<(), AuditError> {
        let not_authentic = |source: SignedError| AuditError::Signed {
            what: format!("the command in entry {sequence}"),
            source,
        };
        let parsed = command::parse(signed).map_err(not_authentic)?;
        let signer = parsed.claimed_principal();
        let command: Command = match self.signers.get(&signer) {
            Some(key) => parsed.verify(key).map_err(not_authentic)?,
            None => match parsed.verify_registration() {
                Ok((key, command)) => {
                    self.signers.insert(key.principal_id(), key);
                    command
                }
                Err(SignedError::UnknownSigner) => {
                    self.verified.unknown_signers = self.verified.unknown_signers.saturating_add(1);
                    return Ok(());
                }
                Err(source) => return Err(not_authentic(source)),
            },
        };
        let wrong = |why| AuditError::Entry { sequence, why };
        if command.service != self.service.service_id() {
            return Err(wrong("its command is for another service"));
        }
        if matches!(command.action, Action::Register { public_key }
            if PublicIdentity::from_key(public_key).principal_id() != signer)
        {
            return Err(wrong("it registers another key than its signer's"));
        }
        self.verified.signatures = self.verified.signatures.saturating_add(1);
        Ok(())
    }

    fn finish(mut self, end: &EndLine, number: u64) -> Result<Verified, AuditError> {
        self.meet()?;
        let bytes = hex::decode(&end.signed_head).map_err(|_| AuditError::Line {
            line: number,
            why: "signed_head must be hexadecimal digits".into(),
        })?;
        let head = Head::verify(&bytes, &self.service).map_err(|source| AuditError::Signed {
            what: "the end of the log".into(),
            source,
        })?;
        let signed = head.state.point;
        if signed != self.at {
            return Err(AuditError::Chain {
                sequence: signed.sequence,
                found: format!("{} (entry {})", self.at.chain.short(), self.at.sequence),
                signed: signed.chain.short(),
            });
        }
        if (end.entry, &end.chain) != (signed.sequence, &signed.chain.to_string()) {
            return Err(AuditError::Reworded { line: number });
        }
        if let Some((who, point)) = self.expected.get(self.met) {
            return Err(AuditError::Behind {
                who: who.clone(),
                sequence: point.sequence,
                end: signed.sequence,
            });
        }
        self.verified.head = head;
        Ok(self.verified)
    }
}

/// The lines of a file, none longer than it may be.
struct Lines<R> {
    file: R,
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<&[u8]>, AuditError> {
        self.line.clear();
        let read = (&mut self.file)
            .take(MAX_LINE)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        match self.line.strip_suffix(b"\n") {
            Some(line) => Ok(Some(line)),
            None => Err(AuditError::Line {
                line: self.number,
                why: "it is cut short or far too long".into(),
            }),
        }
    }
}

fn parse<T: DeserializeOwned>(line: &[u8], number: u64) -> Result<T, AuditError> {
    serde_json::from_slice(line).map_err(|e| AuditError::Line {
        line: number,
        why: e.to_string(),
    })
}
