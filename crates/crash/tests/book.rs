//! What the comparison must find: each mistake that a service could make is made here by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use sesemi_crash::book::Book;
use sesemi_crash::client::Signed;
use sesemi_crash::findings::Findings;
use sesemi_protocol::audit::{self, AuditItem, Entry, Record};
use sesemi_protocol::command::{Action, Command, Delegation};
use sesemi_protocol::query::PersonView;
use sesemi_protocol::receipt::{Point, Receipt, StatePoint};
use sesemi_protocol::{
    Digest, PrincipalId, RefusalCode, SecretKey, ServiceId, SigningIdentity, cbor,
};

const SERVICE: ServiceId = ServiceId([1; 32]);

struct Scene {
    book: Book,
    client: SigningIdentity,
    log: Vec<AuditItem>,
    sequence: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            book: Book::new(Findings::default()),
            client: SigningIdentity::from_seed(SecretKey::from_bytes([2; 32])).unwrap(),
            log: Vec::new(),
            sequence: 0,
        }
    }

    fn id(&self) -> PrincipalId {
        self.client.public().principal_id()
    }

    fn sign(&mut self) -> (Signed, Action) {
        self.sequence += 1;
        let action = Action::Delegate {
            to: PrincipalId([3; 32]),
            delegation: Delegation::Auditor,
            expires: Some(self.sequence),
        };
        let command = Command {
            service: SERVICE,
            sequence: self.sequence,
            seen: Point::START,
            action: action.clone(),
        };
        let bytes = command.sign(&self.client).unwrap();
        (Signed { bytes, key: None }, action)
    }

    fn send(&mut self) -> Signed {
        let (signed, action) = self.sign();
        self.book.send(self.id(), &signed, action);
        signed
    }

    /// The service puts it into its log.
    fn record(&mut self, signed: &Signed) {
        let entry = Entry {
            salt: [4; 16],
            at: 5,
            previous: 0,
            record: Record::Command(signed.bytes.clone().into()),
        };
        let public = cbor::encode(&entry).unwrap().to_vec();
        self.log.push(AuditItem::Shown(public.into()));
    }

    fn head(&self) -> Point {
        audit::follow(&Point::START, &self.log)
    }

    /// The service says that it is its log's last entry.
    fn acknowledge(&mut self, signed: &Signed) {
        let state = StatePoint {
            service: SERVICE,
            point: self.head(),
        };
        let receipt = Receipt {
            state,
            principal: self.id(),
            command: signed.digest(),
        };
        let bytes = receipt.sign(&self.client).unwrap();
        self.book.acknowledge(signed, &receipt, bytes);
    }

    /// Lost, phantom, chain breaks.
    fn compare(&mut self) -> (u64, u64, u64) {
        let head = self.head();
        let views = [(Point::START, self.log.clone())];
        self.book.compare(head, &views).unwrap();
        self.counts()
    }

    fn counts(&self) -> (u64, u64, u64) {
        let found = &self.book.findings;
        (found.lost, found.phantom, found.chain_breaks)
    }

    fn acknowledged(&mut self) -> Signed {
        let signed = self.send();
        self.record(&signed);
        self.acknowledge(&signed);
        signed
    }
}

#[test]
fn a_log_with_what_was_acknowledged_and_perhaps_what_was_not_is_clean() {
    let mut scene = Scene::new();
    scene.acknowledged();
    let unanswered = scene.send();
    scene.record(&unanswered);
    scene.send();
    scene.acknowledged();
    assert_eq!(scene.compare(), (0, 0, 0));
    // Sent again, it gets the receipt for where it stands.
    let second = audit::follow(&Point::START, &scene.log[..2]);
    let receipt = Receipt {
        state: StatePoint {
            service: SERVICE,
            point: second,
        },
        principal: scene.id(),
        command: unanswered.digest(),
    };
    let bytes = receipt.sign(&scene.client).unwrap();
    scene.book.acknowledge(&unanswered, &receipt, bytes);
    assert_eq!(scene.counts(), (0, 0, 0));
}

#[test]
fn an_acknowledged_command_that_is_not_in_the_log_is_lost() {
    let mut scene = Scene::new();
    scene.acknowledged();
    scene.acknowledged();
    scene.log.pop();
    assert_eq!(scene.compare(), (1, 0, 0));
}

#[test]
fn another_command_in_its_place_is_lost_and_the_chain_with_it() {
    let mut scene = Scene::new();
    scene.acknowledged();
    scene.acknowledged();
    scene.log.remove(0);
    let (lost, ..) = scene.compare();
    assert_eq!(lost, 2);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    let mut scene = Scene::new();
    let (never_sent, _) = scene.sign();
    scene.record(&never_sent);
    assert_eq!(scene.compare(), (0, 1, 0));
}

#[test]
fn what_was_refused_is_a_phantom() {
    let mut scene = Scene::new();
    let refused = scene.send();
    scene.book.refuse(&refused, RefusalCode::NotFound);
    scene.record(&refused);
    assert_eq!(scene.compare(), (0, 1, 0));
}

#[test]
fn a_command_with_a_second_effect_is_a_phantom() {
    let mut scene = Scene::new();
    let signed = scene.acknowledged();
    scene.record(&signed);
    assert_eq!(scene.compare(), (0, 1, 0));

    // Also when the second receipt tells of it first.
    let mut scene = Scene::new();
    let signed = scene.acknowledged();
    assert_eq!(scene.compare(), (0, 0, 0));
    scene.record(&signed);
    scene.acknowledge(&signed);
    assert_eq!(scene.counts(), (0, 1, 0));
}

#[test]
fn a_kept_command_that_is_refused_when_it_comes_again_is_lost() {
    let mut scene = Scene::new();
    let signed = scene.send();
    scene.record(&signed);
    assert_eq!(scene.compare(), (0, 0, 0));
    scene.book.refuse(&signed, RefusalCode::AlreadyExists);
    assert_eq!(scene.counts(), (1, 0, 0));
}

#[test]
fn an_entry_that_concerns_nobody_is_a_phantom() {
    let mut scene = Scene::new();
    scene.log.push(AuditItem::Hidden(Digest([9; 32])));
    assert_eq!(scene.compare(), (0, 1, 0));
}

#[test]
fn a_log_that_does_not_go_on_where_it_was_breaks_the_chain() {
    let mut scene = Scene::new();
    scene.acknowledged();
    assert_eq!(scene.compare(), (0, 0, 0));
    let other = Point {
        sequence: 1,
        chain: Digest([8; 32]),
    };
    let head = scene.head();
    scene.book.compare(head, &[(other, Vec::new())]).unwrap();
    assert_eq!(scene.counts(), (0, 0, 1));
}

#[test]
fn lists_are_compared_both_ways_and_in_any_order() {
    let person = |n: u8| PersonView::Delegate {
        to: PrincipalId([n; 32]),
        delegation: Delegation::Auditor,
        expires: None,
    };
    let mut scene = Scene::new();
    let list = [person(1), person(2), person(2)];
    let reversed = [person(2), person(2), person(1)];
    scene.book.compare_list(&list, &reversed).unwrap();
    assert_eq!(scene.counts(), (0, 0, 0));
    scene.book.compare_list(&list, &reversed[..2]).unwrap();
    assert_eq!(scene.counts(), (1, 0, 0));
    scene.book.compare_list(&list[..2], &list).unwrap();
    assert_eq!(scene.counts(), (1, 1, 0));
}
