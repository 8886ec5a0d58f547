//! Signed commands that somebody else got hold of, as the user of a grant gets the owner's: handing them in again and again takes
//! nothing from who signed them. And principals that go on beyond their limit.

use sesemi_keyservice::server::Bounds;
use sesemi_protocol::command::{Action, Command, GrantedVersions, Subject};
use sesemi_protocol::query::{Query, Question};
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelName, ModelVersion, RefusalCode, SecretKey,
    ServiceId, SigningIdentity,
};

use crate::running::{PRINCIPALS_BURST, Running, call, serve};

const OWNER: u8 = 1;
const USER: u8 = 2;

fn somebody(seed: u8) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
}

fn sign(service: ServiceId, sequence: u64, action: Action) -> Vec<u8> {
    let command = Command {
        service,
        sequence,
        seen: Point::START,
        action,
    };
    command.sign(&somebody(OWNER)).unwrap()
}

fn submit(signed: &[u8]) -> CallBody {
    CallBody::Submit {
        signed: signed.to_vec().into(),
        key: None,
    }
}

async fn register(running: &Running, seed: u8) {
    let identity = somebody(seed);
    let command = Command {
        service: running.service.id(),
        sequence: 1,
        seen: Point::START,
        action: Action::Register {
            public_key: *identity.public().key(),
        },
    };
    let signed = command.sign(&identity).unwrap();
    let reply = call(&mut running.principal().await, submit(&signed)).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
}

/// An owner that has granted a user its model: the grant as signed, and its id.
async fn granted(running: &Running) -> (Vec<u8>, u64) {
    register(running, OWNER).await;
    register(running, USER).await;
    let id = running.service.id();
    let mut channel = running.principal().await;
    let (name, key) = (ModelName::new("m").unwrap(), SecretKey::from_bytes([7; 32]));
    let put = Action::PutModel {
        name: name.clone(),
        version: ModelVersion::new(1).unwrap(),
        key: key.digest(),
        manifest: Digest([2; 32]),
        isolation: Isolation::default(),
    };
    let put = CallBody::Submit {
        signed: sign(id, 2, put).into(),
        key: Some(key),
    };
    let reply = call(&mut channel, put).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
    let grant = Action::Grant {
        owner: somebody(OWNER).public().principal_id(),
        name,
        versions: GrantedVersions::All,
        subject: Subject::User(somebody(USER).public().principal_id()),
        codes: vec![CodeIdentityDigest([1; 32])],
        expires: None,
        note: String::new(),
    };
    let grant = sign(id, 3, grant);
    let Some(ReplyBody::Receipt(receipt)) = call(&mut channel, submit(&grant)).await else {
        panic!("no receipt")
    };
    let receipt = Receipt::verify(&receipt, running.service.identity().public(), &grant);
    (grant, receipt.unwrap().state.point.sequence)
}

fn revoke(running: &Running, sequence: u64, grant: u64) -> Vec<u8> {
    let revoke = Action::Revoke {
        owner: somebody(OWNER).public().principal_id(),
        grants: vec![grant],
    };
    sign(running.service.id(), sequence, revoke)
}

/// Sends this until the channel ends; how many were answered, all of them as `expected`.
async fn until_it_ends(
    running: &Running,
    body: &CallBody,
    expected: impl Fn(&ReplyBody) -> bool,
) -> u32 {
    let mut channel = running.principal().await;
    let mut answered = 0;
    while let Some(reply) = call(&mut channel, body.clone()).await {
        assert!(expected(&reply), "{reply:?}");
        answered += 1;
        assert!(answered < 1000, "it never ends");
    }
    answered
}

fn is_refused(reply: &ReplyBody, code: RefusalCode) -> bool {
    matches!(reply, ReplyBody::Refused(refusal) if refusal.code == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_revokes_after_its_old_grant_was_replayed_more_often_than_it_may_command() {
    let folder = tempfile::tempdir().unwrap();
    let strangers = PRINCIPALS_BURST + 20;
    let running = serve(folder.path(), Bounds::default(), 100, strangers).await;
    let (grant, id) = granted(&running).await;
    let is_receipt = |reply: &ReplyBody| matches!(reply, ReplyBody::Receipt(_));
    let replayed = until_it_ends(&running, &submit(&grant), is_receipt).await;
    // Two registrations came from this address too, and the last replay is the first for which there is nothing left.
    assert_eq!(replayed, strangers - 2 + 1);
    assert!(replayed > PRINCIPALS_BURST);
    let mut own = running.principal().await;
    let reply = call(&mut own, submit(&revoke(&running, 4, id))).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_signed_for_another_service_takes_nothing_from_it_here() {
    let folder = tempfile::tempdir().unwrap();
    let strangers = PRINCIPALS_BURST + 20;
    let running = serve(folder.path(), Bounds::default(), 100, strangers).await;
    let (_, id) = granted(&running).await;
    let elsewhere = ServiceId([9; 32]);
    let owner = somebody(OWNER).public().principal_id();
    let grants = vec![id];
    let command = sign(elsewhere, 1_000, Action::Revoke { owner, grants });
    let wrong = |reply: &ReplyBody| is_refused(reply, RefusalCode::WrongService);
    assert!(until_it_ends(&running, &submit(&command), wrong).await > PRINCIPALS_BURST);
    // Its channel is gone and its address has nothing left, so one question is all that a channel is good for.
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let query = Query {
        service: elsewhere,
        at: at.unwrap().as_secs(),
        seen: Point::START,
        question: Question::GrantsToMe { after: 0 },
    };
    let query = CallBody::Query(query.sign(&somebody(OWNER)).unwrap().into());
    assert_eq!(until_it_ends(&running, &query, wrong).await, 1);
    let mut own = running.principal().await;
    let reply = call(&mut own, submit(&revoke(&running, 4, id))).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lost_an_answer_repeats_its_command_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;
    let (grant, id) = granted(&running).await;
    let mut own = running.principal().await;
    let first = call(&mut own, submit(&grant)).await;
    assert!(matches!(first, Some(ReplyBody::Receipt(_))), "{first:?}");
    assert_eq!(call(&mut own, submit(&grant)).await, first);
    let reply = call(&mut own, submit(&revoke(&running, 4, id))).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_that_goes_on_beyond_its_limit_loses_its_channel() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 8).await;
    let (_, id) = granted(&running).await;
    let mut own = running.principal().await;
    // Refused for what it says, and new each time: nobody else can have sent it.
    let beyond = |sequence| submit(&revoke(&running, sequence, id + 1_000));
    let (mut refused, mut busy) = (0, 0);
    for sequence in 4.. {
        match call(&mut own, beyond(sequence)).await {
            Some(reply) if is_refused(&reply, RefusalCode::NotFound) => refused += 1,
            Some(reply) => {
                assert!(is_refused(&reply, RefusalCode::Busy), "{reply:?}");
                busy += 1;
            }
            None => break,
        }
    }
    // It registered, put and granted before; its address registered two, and the last is the first for which there is nothing left.
    assert_eq!(refused, PRINCIPALS_BURST - 3);
    assert_eq!(busy, 8 - 2 + 1);
}
