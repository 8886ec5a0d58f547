//! An exported log is believed only if its chain leads to what the service signed, through all that its reader has seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)]

use sesemi::audit::{AuditError, AuditWriter, Entry, Expected, Verified, View, describe, verify};
use sesemi::{
    CodeIdentityDigest, Digest, GrantedVersions, Point, PrincipalId, ServiceId, SignedHead,
    SignedReceipt, StatePoint, Subject,
};
use sesemi_protocol::audit::{self as log, AuditItem, Record, extend};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::receipt::{Head, Receipt};
use sesemi_protocol::{ModelName, SecretKey, SigningIdentity, cbor};

fn identity(seed: u8) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
}

/// A log as its service has it, and what an owner sees of it.
struct Log {
    service: SigningIdentity,
    owner: SigningIdentity,
    entries: Vec<Entry>,
    commands: Vec<Vec<u8>>,
}

impl Log {
    /// Founding, the owner's registration, something of others, and a grant with this note.
    fn new(note: &str) -> Self {
        let (service, owner) = (identity(1), identity(2));
        let mut log = Self {
            service,
            owner,
            entries: Vec::new(),
            commands: Vec::new(),
        };
        log.push(Record::Founded {
            public_key: *log.service.public().key(),
            code: CodeIdentityDigest([3; 32]),
            policy: Digest([4; 32]),
        });
        let public_key = *log.owner.public().key();
        log.command(Action::Register { public_key });
        log.hide();
        log.command(Action::Grant {
            owner: log.owner.public().principal_id(),
            name: ModelName::new("m").unwrap(),
            versions: GrantedVersions::All,
            subject: Subject::User(PrincipalId([9; 32])),
            codes: vec![CodeIdentityDigest([5; 32])],
            expires: None,
            note: note.to_owned(),
        });
        log
    }

    fn end(&self) -> Point {
        self.entries.last().map_or(Point::START, |last| last.point)
    }

    fn add(&mut self, item: AuditItem) {
        let point = extend(&self.end(), &item.digest());
        self.entries.push(Entry { point, item });
    }

    fn push(&mut self, record: Record) {
        let entry = log::Entry {
            salt: [7; 16],
            at: 1_800_000_000,
            previous: 0,
            record,
        };
        let public = cbor::encode(&entry).unwrap().to_vec();
        self.add(AuditItem::Shown(public.into()));
    }

    fn hide(&mut self) {
        self.add(AuditItem::Hidden(Digest([8; 32])));
    }

    fn command(&mut self, action: Action) {
        let command = Command {
            service: self.service.public().service_id(),
            sequence: self.end().sequence,
            seen: self.end(),
            action,
        };
        let signed = command.sign(&self.owner).unwrap();
        self.commands.push(signed.clone());
        self.push(Record::Command(signed.into()));
    }

    fn state(&self, point: Point) -> StatePoint {
        StatePoint {
            service: self.service.public().service_id(),
            point,
        }
    }

    /// The receipt for the last command.
    fn receipt(&self) -> SignedReceipt {
        let command = self.commands.last().unwrap().clone();
        let receipt = Receipt {
            state: self.state(self.end()),
            principal: self.owner.public().principal_id(),
            command: Digest::of(&command),
        };
        SignedReceipt {
            receipt: receipt.sign(&self.service).unwrap(),
            command,
        }
    }

    fn export(&self) -> String {
        let view = View {
            service_key: *self.service.public().key(),
            of: self.owner.public().principal_id(),
            from: Point::START,
        };
        let mut writer = AuditWriter::new(Vec::new(), &view).unwrap();
        for entry in &self.entries {
            writer.entry(entry).unwrap();
        }
        let head = Head {
            state: self.state(self.end()),
            at: 1_800_000_001,
        };
        let end = SignedHead {
            bytes: head.sign(&self.service).unwrap(),
            head,
        };
        String::from_utf8(writer.finish(&end).unwrap()).unwrap()
    }
}

fn check(file: &str, expected: &Expected) -> Result<Verified, AuditError> {
    verify(file.as_bytes(), expected)
}

fn seen(point: Point) -> Expected {
    Expected {
        seen: vec![("the owner".into(), point)],
        ..Expected::default()
    }
}

#[test]
fn an_export_verifies_with_everything_that_was_seen_of_it() {
    let log = Log::new("trial");
    let expected = Expected {
        service: Some(log.service.public().service_id()),
        seen: log
            .entries
            .iter()
            .map(|entry| ("somebody".to_owned(), entry.point))
            .collect(),
        receipts: vec![("granted.json".into(), log.receipt())],
    };
    let verified = check(&log.export(), &expected).unwrap();
    assert_eq!(verified.head.state.point, log.end());
    assert_eq!((verified.shown, verified.hidden), (3, 1));
    assert_eq!((verified.signatures, verified.unknown_signers), (2, 0));
    assert_eq!((verified.points, verified.before), (5, 0));
}

#[test]
fn a_grant_is_described_from_what_the_chain_covers() {
    let log = Log::new("trial");
    let described = describe(&log.entries[3].item).unwrap();
    assert_eq!(described.kind, "grant");
    assert_eq!(described.by, Some(log.owner.public().principal_id()));
    assert!(described.facts.contains(&("note", "trial".into())));
    assert!(describe(&log.entries[2].item).is_none(), "hidden");
}

#[test]
fn what_a_line_says_for_people_is_what_the_chain_covers_or_left_out() {
    let file = Log::new("trial").export();
    let end = file.lines().count() as u64;
    let reworded = |from: &str, to: &str| {
        let changed = file.replacen(from, to, 1);
        assert_ne!(changed, file, "{from}");
        match check(&changed, &Expected::default()) {
            Err(AuditError::Reworded { line }) => line,
            other => panic!("{from}: {other:?}"),
        }
    };
    assert_eq!(reworded("\"trial\"", "\"other\""), 5);
    assert_eq!(reworded("\"kind\":\"founded\"", "\"kind\":\"grant\""), 2);
    assert_eq!(reworded("\"at\":1", "\"at\":2"), 2);
    assert_eq!(
        reworded(",\"entry\":4,\"chain\"", ",\"entry\":5,\"chain\""),
        end
    );
    let without: Vec<String> = file
        .lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            fields.retain(|name, _| !["at", "what"].contains(&name.as_str()));
            line.to_string() + "\n"
        })
        .collect();
    check(&without.concat(), &Expected::default()).unwrap();
}

#[test]
fn every_changed_missing_or_moved_line_is_noticed() {
    let file = Log::new("trial").export();
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 6);
    let joined = |lines: &[&str]| format!("{}\n", lines.join("\n"));
    check(&joined(&lines), &Expected::default()).unwrap();
    for at in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(at);
        assert!(
            check(&joined(&without), &Expected::default()).is_err(),
            "without {at}"
        );
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        assert!(
            check(&joined(&twice), &Expected::default()).is_err(),
            "twice {at}"
        );
    }
    for at in 0..lines.len() - 1 {
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        assert!(
            check(&joined(&swapped), &Expected::default()).is_err(),
            "swapped {at}"
        );
    }
}

#[test]
fn every_changed_digit_of_what_counts_is_noticed() {
    let file = Log::new("trial").export();
    for field in [
        "shown",
        "hidden",
        "signed_head",
        "service_public_key",
        "after_chain",
    ] {
        let mut from = 0;
        let start = format!("\"{field}\":\"");
        while let Some(at) = file[from..].find(&start) {
            let digits = from + at + start.len();
            let end = digits + file[digits..].find('"').unwrap();
            for place in [digits, (digits + end) / 2, end - 1] {
                let mut changed = file.clone().into_bytes();
                changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(
                    check(&changed, &Expected::default()).is_err(),
                    "{field} {place}"
                );
            }
            from = end;
        }
        assert!(from > 0, "{field}");
    }
}

#[test]
fn a_file_that_is_cut_short_anywhere_proves_nothing() {
    let file = Log::new("trial").export();
    for length in (0..file.len()).step_by(7) {
        assert!(
            check(&file[..length], &Expected::default()).is_err(),
            "{length}"
        );
    }
}

#[test]
fn a_fork_a_rollback_and_another_service_are_told_apart() {
    let (log, fork) = (Log::new("one"), Log::new("two"));
    assert_eq!(log.end().sequence, fork.end().sequence);
    let refused = check(&log.export(), &seen(fork.end()));
    assert!(
        matches!(refused, Err(AuditError::Forked { sequence: 4, .. })),
        "{refused:?}"
    );
    let refused = check(
        &log.export(),
        &Expected {
            receipts: vec![("two.json".into(), fork.receipt())],
            ..Expected::default()
        },
    );
    assert!(
        matches!(refused, Err(AuditError::Forked { .. })),
        "{refused:?}"
    );

    let mut longer = Log::new("one");
    longer.hide();
    let refused = check(&log.export(), &seen(longer.end()));
    let behind = matches!(
        refused,
        Err(AuditError::Behind {
            sequence: 5,
            end: 4,
            ..
        })
    );
    assert!(behind, "{refused:?}");
    check(&longer.export(), &seen(log.end())).unwrap();

    let expected = Expected {
        service: Some(ServiceId([6; 32])),
        ..Expected::default()
    };
    let refused = check(&log.export(), &expected);
    assert!(
        matches!(refused, Err(AuditError::OtherService { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_end_that_another_service_signed_is_refused() {
    let log = Log::new("trial");
    let file = log.export();
    let head = Head {
        state: log.state(log.end()),
        at: 5,
    };
    let forged = head.sign(&identity(9)).unwrap();
    let genuine = Head {
        at: 1_800_000_001,
        ..head
    }
    .sign(&log.service)
    .unwrap();
    assert!(file.contains(&hex::encode(&genuine)));
    let changed = file.replace(&hex::encode(&genuine), &hex::encode(&forged));
    let refused = check(&changed, &Expected::default());
    assert!(
        matches!(refused, Err(AuditError::Signed { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_command_that_its_signer_did_not_sign_is_refused_although_the_service_put_it_into_the_chain() {
    let mut log = Log::new("trial");
    // A grant in the owner's name, with the signature of another one.
    let mut signed = log.commands.last().unwrap().clone();
    *signed.last_mut().unwrap() ^= 1;
    log.push(Record::Command(signed.into()));
    let refused = check(&log.export(), &Expected::default());
    assert!(
        matches!(refused, Err(AuditError::Signed { .. })),
        "{refused:?}"
    );
}
