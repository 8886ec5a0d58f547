//! How much memory a grant takes, as an allocator counts it: a service is to hold a million.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unsafe_code
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use sesemi_keyservice::state::{Authentic, Secret, State};
use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::command::{Action, Command, GrantedVersions, Subject};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelName, ModelVersion, PublicIdentity, SecretKey,
    ServiceId,
};

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every block comes from `System` and goes back to it with the layout that it was made with; the counter touches no
// block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block was made by `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Users, each with [`EACH`] grants.
const USERS: u32 = 20_000;
/// Models of the one owner, all of which a user is granted.
const EACH: u32 = 5;
/// What one grant may take, in bytes, its share of the users included.
const MOST: usize = 600;

fn identity(n: u32) -> PublicIdentity {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    PublicIdentity::from_key(key)
}

struct Service {
    state: State,
    entries: u64,
}

impl Service {
    fn new() -> Self {
        let entry = Entry {
            salt: [0; 16],
            at: 0,
            previous: 0,
            record: Record::Founded {
                public_key: [9; 32],
                code: CodeIdentityDigest([1; 32]),
                policy: Digest([1; 32]),
            },
        };
        Self {
            state: State::found(&entry, Point::START).unwrap(),
            entries: 1,
        }
    }

    fn run(&mut self, signer: &PublicIdentity, action: Action, secret: Secret) {
        self.entries += 1;
        let command = Command {
            service: self.state.service(),
            sequence: self.entries,
            seen: Point::START,
            action,
        };
        assert_ne!(command.service, ServiceId([0; 32]));
        let id = signer.principal_id();
        self.state.check(&id, &command, 1).unwrap();
        let authentic = Authentic {
            signer: id,
            identity: *signer,
            command,
            secret,
        };
        let point = Point {
            sequence: self.entries,
            chain: Digest([0; 32]),
        };
        self.state.apply_command(authentic, point, 1);
    }

    fn register(&mut self, n: u32) -> PublicIdentity {
        let identity = identity(n);
        let public_key = *identity.key();
        self.run(&identity, Action::Register { public_key }, Secret::None);
        identity
    }
}

fn model(n: u32) -> ModelName {
    ModelName::new(&format!("model-{n}")).unwrap()
}

#[test]
fn a_hundred_thousand_grants_take_less_than_600_bytes_each() {
    let mut service = Service::new();
    let owner = service.register(0);
    for n in 0..EACH {
        let key = [5; 32];
        let put = Action::PutModel {
            name: model(n),
            version: ModelVersion::new(1).unwrap(),
            key: Digest::of(&key),
            manifest: Digest([1; 32]),
            isolation: Isolation::default(),
        };
        service.run(&owner, put, Secret::Key(SecretKey::from_bytes(key)));
    }
    let before = IN_USE.load(Ordering::Relaxed);
    for user in 1..=USERS {
        let user = service.register(user).principal_id();
        for n in 0..EACH {
            let grant = Action::Grant {
                owner: owner.principal_id(),
                name: model(n),
                versions: GrantedVersions::All,
                subject: Subject::User(user),
                codes: vec![CodeIdentityDigest([3; 32]), CodeIdentityDigest([4; 32])],
                expires: Some(1_900_000_000),
                note: "ward 7, study 12".into(),
            };
            service.run(&owner, grant, Secret::None);
        }
    }
    let count = usize::try_from(USERS * EACH).unwrap();
    assert_eq!(service.state.grant_count(), count);
    let each = (IN_USE.load(Ordering::Relaxed) - before) / count;
    println!("{each} bytes a grant");
    assert!((50..MOST).contains(&each), "{each} bytes a grant");

    // And again after a start from a snapshot.
    let snapshot = service.state.to_snapshot();
    println!("{} bytes a grant in a snapshot", snapshot.len() / count);
    let point = service.state.point();
    let before = IN_USE.load(Ordering::Relaxed);
    let restored = State::from_snapshot(&snapshot, point).unwrap();
    let each = (IN_USE.load(Ordering::Relaxed) - before) / count;
    assert_eq!(restored.grant_count(), count);
    println!("{each} bytes a grant, from a snapshot");
    assert!((50..MOST).contains(&each), "{each} bytes a grant");
}
