//! Calls that no enclave and no registered principal sends: they count for the address that they come from.

use sesemi_keyservice::server::Bounds;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{RefusalCode, SigningIdentity};

use crate::running::{Running, call, has_status, question, registration, serve, somebody, status};

const NAMES_NOBODY: usize = 5;

/// The question with its signature, which comes last, changed.
fn forged(running: &Running, in_the_name_of: &SigningIdentity) -> CallBody {
    let CallBody::Query(mut signed) = question(running, in_the_name_of) else {
        panic!("a question")
    };
    *signed.last_mut().unwrap() ^= 1;
    CallBody::Query(signed)
}

fn refused(reply: Option<ReplyBody>) -> (RefusalCode, String) {
    match reply {
        Some(ReplyBody::Refused(refusal)) => (refusal.code, refusal.detail),
        other => panic!("{other:?}"),
    }
}

fn is_over(reply: Option<ReplyBody>) -> bool {
    let (code, detail) = refused(reply);
    code == RefusalCode::Busy && detail.contains("ask again in")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_registers_only_so_many_at_once_over_however_many_channels() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;
    let mut registered = 0;
    for seed in 1..=9 {
        let mut channel = running.principal().await;
        let reply = call(&mut channel, registration(&running, &somebody(seed))).await;
        match reply {
            Some(ReplyBody::Receipt(_)) => registered += 1,
            other => assert!(is_over(other)),
        }
    }
    assert_eq!(registered, NAMES_NOBODY);
    assert_eq!(running.service.reader().point().sequence, 1 + 5);
    assert!(running.counted("sesemi_keyservice_rate_limited_total 4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_name_nobody_or_a_stranger_are_refused_before_their_signature_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;
    let mut channel = running.principal().await;
    let stranger = somebody(1);
    // One of each kind takes one.
    assert!(has_status(&mut channel).await);
    let (code, _) = refused(call(&mut channel, question(&running, &stranger)).await);
    assert_eq!(code, RefusalCode::UnknownPrincipal);
    let garbage = || CallBody::Query(vec![0xff; 100].into());
    let (code, _) = refused(call(&mut channel, garbage()).await);
    assert_eq!(code, RefusalCode::Malformed);
    let mut changed = registration(&running, &stranger);
    if let CallBody::Submit { signed, .. } = &mut changed {
        *signed.last_mut().unwrap() ^= 1;
    }
    let (code, _) = refused(call(&mut channel, changed.clone()).await);
    assert_eq!(code, RefusalCode::NotAuthentic);
    let (code, _) = refused(call(&mut channel, CallBody::Release(Vec::new())).await);
    assert_eq!(code, RefusalCode::NotAttested);
    // Whatever comes now is refused for that, a wrong signature as well, and the channel stays.
    for over in [
        status(),
        question(&running, &stranger),
        garbage(),
        changed,
        registration(&running, &stranger),
    ] {
        assert!(is_over(call(&mut channel, over).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_refuses_no_registered_principal_and_no_enclave_behind_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;
    let known = somebody(1);
    let mut channel = running.principal().await;
    let reply = call(&mut channel, registration(&running, &known)).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))));
    for _ in 0..10 {
        let _ = call(&mut channel, status()).await;
    }
    assert!(is_over(call(&mut channel, status()).await));
    for _ in 0..10 {
        let reply = call(&mut channel, question(&running, &known)).await;
        assert!(matches!(reply, Some(ReplyBody::Answer(_))), "{reply:?}");
    }
    let mut enclave = running.enclave().await;
    for _ in 0..10 {
        assert!(has_status(&mut enclave).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_in_a_principals_name_cost_their_sender_the_channel_and_the_principal_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;
    let known = somebody(1);
    let mut own = running.principal().await;
    let reply = call(&mut own, registration(&running, &known)).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))));
    let mut other = running.principal().await;
    // The registration took one of five; the fifth forgery is the first for which there is none.
    for _ in 0..NAMES_NOBODY {
        let (code, _) = refused(call(&mut other, forged(&running, &known)).await);
        assert_eq!(code, RefusalCode::NotAuthentic);
    }
    assert_eq!(call(&mut other, forged(&running, &known)).await, None);
    // The principal has all that it had: its limit is not touched, nor its channel.
    for _ in 0..90 {
        let reply = call(&mut own, question(&running, &known)).await;
        assert!(matches!(reply, Some(ReplyBody::Answer(_))), "{reply:?}");
    }
}
