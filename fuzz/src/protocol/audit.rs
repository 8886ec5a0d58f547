//! The log as an audit shows it.

use sesemi_protocol::audit::{self, AuditItem, Concerned, Entry, Record};
use sesemi_protocol::command;
use sesemi_protocol::limits::{MAX_ENTRY, MAX_SIGNED};
use sesemi_protocol::query::QueryAnswer;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{Digest, PrincipalId, cbor};

use super::signed;
use super::wire::exact;
use crate::input::Input;
use crate::samples::{self, identity, point, tagged};

/// Reads the bytes as the public part of an entry, and as a command in one that somebody signed. Whoever signed, owns or is
/// granted something is concerned, and nobody else.
pub fn audit_entry(bytes: &[u8]) {
    if let Ok(entry) = audit::decode(bytes) {
        assert!(bytes.len() <= MAX_ENTRY);
        assert_eq!(cbor::encode(&entry).unwrap().as_slice(), bytes);
        concerned(&entry);
    }
    let Ok(signed) = signed::sign_command(bytes) else {
        return;
    };
    assert!(signed.len() <= MAX_SIGNED);
    let entry = Entry {
        salt: [7; 16],
        at: 5,
        previous: 0,
        record: Record::Command(signed.into()),
    };
    let public = cbor::encode(&entry).unwrap();
    assert_eq!(audit::decode(&public).as_ref(), Ok(&entry));
    if let Some((signer, command)) = concerned(&entry) {
        assert_eq!(signer, identity(1).public().principal_id());
        assert_eq!(cbor::encode(&command).unwrap().as_slice(), bytes);
    }
}

/// Checks whom an entry concerns, and gives back the command in it.
fn concerned(entry: &Entry) -> Option<(PrincipalId, command::Command)> {
    let command = entry.unverified_command();
    let concerned = entry.concerned();
    assert_eq!(
        command.is_err(),
        concerned.is_err(),
        "a command is malformed"
    );
    let (command, concerned) = (command.ok()?, concerned.ok()?);
    let stranger = PrincipalId(*b"nobody is called like this, ever");
    let of_service = matches!(
        &command,
        Some((_, command)) if matches!(
            command.action,
            command::Action::NameCustodians { .. } | command::Action::ApproveUpgrade { .. }
        )
    );
    let secret = match &entry.record {
        Record::Command(_) => !of_service,
        Record::Released(_) => true,
        _ => false,
    };
    assert_eq!(concerned != Concerned::Everybody, secret);
    assert!(!secret || !concerned.includes(&stranger));
    if let Some((signer, command)) = &command {
        assert!(concerned.includes(signer));
        assert!(
            command
                .action
                .owner()
                .is_none_or(|owner| concerned.includes(owner))
        );
    }
    if let Record::Released(released) = &entry.record {
        assert!(concerned.includes(&released.user));
        assert!(concerned.includes(&released.model.model.owner));
    }
    command
}

/// Reads the bytes as a part of a log, or makes one of pieces of them, and follows it. To hide an entry makes no difference;
/// to leave one out, to change one or to begin elsewhere does.
pub fn audit_chain(bytes: &[u8]) {
    let (from, items) = match exact::<QueryAnswer>(bytes) {
        Some(QueryAnswer::Audit { from, items }) => (from, items),
        _ => (point(), pieces(bytes)),
    };
    let end = audit::follow(&from, &items);
    let length = u64::try_from(items.len()).unwrap();
    assert_eq!(end.sequence, from.sequence.saturating_add(length));
    assert_eq!(items.is_empty(), end == from);
    let hidden = |item: &AuditItem| AuditItem::Hidden(item.digest());
    let all_hidden: Vec<AuditItem> = items.iter().map(hidden).collect();
    assert_eq!(audit::follow(&from, &all_hidden), end);
    // In two steps.
    let (front, back) = items.split_at(items.len() / 2);
    assert_eq!(audit::follow(&audit::follow(&from, front), back), end);
    let Some((first, rest)) = items.split_first() else {
        return;
    };
    assert_ne!(
        audit::follow(&from, rest).chain,
        end.chain,
        "the first is left out"
    );
    let mut other = items.clone();
    other[0] = AuditItem::Hidden(Digest::of(first.digest().as_bytes()));
    assert_ne!(
        audit::follow(&from, &other).chain,
        end.chain,
        "the first is another"
    );
    if from.sequence > u64::MAX - 2 {
        return; // A log of that length is not counted on.
    }
    let elsewhere = Point {
        sequence: from.sequence ^ 1,
        ..from
    };
    assert_ne!(
        audit::follow(&elsewhere, &items).chain,
        end.chain,
        "it begins elsewhere"
    );
}

fn pieces(bytes: &[u8]) -> Vec<AuditItem> {
    let mut input = Input::new(bytes);
    let count = input.byte() % 16;
    let piece = |_| {
        if input.byte().is_multiple_of(2) {
            AuditItem::Hidden(Digest(input.array()))
        } else {
            let length = usize::from(input.byte());
            AuditItem::Shown(input.bytes(length).to_vec().into())
        }
    };
    (0..count).map(piece).collect()
}

pub(crate) fn entry_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::AUDIT, &["public", "bytes"]);
    seeds.extend(samples::vectors(samples::SIGNED, &["payload"]));
    seeds
}

pub(crate) fn chain_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::AUDIT, &["bytes"]);
    seeds.extend(tagged(3, samples::vectors(samples::AUDIT, &["public"])));
    seeds
}
