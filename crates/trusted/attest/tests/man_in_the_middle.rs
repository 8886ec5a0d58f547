//! Attackers on the wire, with real sockets: each gets as far as the step that is there to stop it, and no further. No message
//! ever flows on a channel that was not accepted by both sides, so no key does.
//!
//! The attackers are strong: they run the real protocol, hold TLS keys that a genuine enclave once vouched for, and choose
//! freely which evidence they show when.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;
mod wire;

use std::sync::{Arc, Mutex};

use sesemi_attest::channel::{ChannelError, ExpectedService, Peer};
use sesemi_attest::{
    AppraisalError, AppraisalPolicy, Attester, AttesterError, Evidence, VerifyError,
};
use sesemi_protocol::RefusalCode;
use support::sentence;
use wire::{KEYSERVICE, Lab, SEMIRT, Script};

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_an_honest_channel_accept_each_other() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    for semirt in [lab.enclave(SEMIRT), lab.trust_domain(SEMIRT)] {
        let tee = semirt.tee();
        let connected = lab
            .semirt_connector(semirt)
            .connect(server.address, ExpectedService::Pinned(server.service))
            .await
            .unwrap();
        assert!(connected.claims.simulated);
        match server.last().await {
            Ok(Peer::Enclave(claims)) => assert_eq!(claims.identity.tee, tee),
            other => panic!("{other:?}"),
        }
    }
}

/// The man in the middle ends the client's connection and, for each client, opens one of his own to KeyService. What
/// KeyService shows him, he shows the client.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_relayed_from_another_connection_is_refused() {
    let lab = Lab::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let genuine = lab
        .keyservice(Script::recording(lab.enclave(KEYSERVICE), seen.clone()))
        .await;
    let (relay_to, connector) = (genuine.address, lab.principal_connector());
    let relaying = Script::new(lab.enclave(KEYSERVICE), move |_, _| {
        let runtime = tokio::runtime::Handle::current();
        let connector = &connector;
        tokio::task::block_in_place(|| {
            let expected = ExpectedService::FirstContact;
            runtime
                .block_on(connector.connect(relay_to, expected))
                .unwrap();
        });
        seen.lock().unwrap().last().cloned()
    });
    let middle = lab.keyservice(relaying).await;

    // At the first contact nothing but the binding stands between the client and the man in the middle.
    let connector = lab.principal_connector();
    let refused = connector
        .connect(middle.address, ExpectedService::FirstContact)
        .await;
    assert!(
        matches!(refused, Err(ChannelError::Verify(VerifyError::NotBound))),
        "{refused:?}"
    );
    // Who has pinned the service does not even look at his evidence.
    let refused = connector
        .connect(middle.address, ExpectedService::Pinned(genuine.service))
        .await;
    assert!(
        matches!(refused, Err(ChannelError::OtherService { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_is_reflected_to_its_maker_is_refused() {
    let lab = Lab::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = lab
        .keyservice(Script::recording(lab.enclave(KEYSERVICE), seen.clone()))
        .await;
    // The client shows KeyService what KeyService has just shown it, on this very connection.
    let reflecting = Script::new(lab.enclave(KEYSERVICE), move |_, _| {
        seen.lock().unwrap().last().cloned()
    });
    let refused = lab
        .semirt_connector(reflecting)
        .connect(server.address, ExpectedService::Pinned(server.service))
        .await;
    assert_not_attested(refused);
    assert_not_bound(server.last().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_an_older_connection_is_refused_from_either_side() {
    let lab = Lab::new();
    let first = |kept: Arc<Mutex<Option<Evidence>>>| {
        move |fresh: &Evidence, _: &[u8; 64]| {
            let mut kept = kept.lock().unwrap();
            Some(kept.get_or_insert_with(|| fresh.clone()).clone())
        }
    };

    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let replaying = Script::new(lab.enclave(SEMIRT), first(Arc::default()));
    let client = lab.semirt_connector(replaying);
    let expected = ExpectedService::Pinned(server.service);
    client.connect(server.address, expected).await.unwrap();
    assert!(server.last().await.is_ok());
    assert_not_attested(client.connect(server.address, expected).await);
    assert_not_bound(server.last().await);

    let replaying = Script::new(lab.enclave(KEYSERVICE), first(Arc::default()));
    let server = lab.keyservice(replaying).await;
    let expected = ExpectedService::Pinned(server.service);
    let client = lab.principal_connector();
    client.connect(server.address, expected).await.unwrap();
    let refused = client.connect(server.address, expected).await;
    assert!(
        matches!(refused, Err(ChannelError::Verify(VerifyError::NotBound))),
        "{refused:?}"
    );
}

/// The certificate speaks for one program, the fresh evidence for another; both are genuine.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_one_program_and_evidence_of_another_are_refused() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let accomplice = lab.enclave(b"another program");
    let swapping = Script::new(lab.enclave(SEMIRT), move |_, report_data| {
        Some(accomplice.evidence(report_data).unwrap())
    });
    let refused = lab
        .semirt_connector(swapping)
        .connect(server.address, ExpectedService::Pinned(server.service))
        .await;
    assert_not_attested(refused);
    let judged = server.last().await;
    assert!(
        matches!(judged, Err(ChannelError::TwoIdentities)),
        "{judged:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_certificate_without_its_key_is_refused_by_either_side() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let stolen = wire::certificate_of(server.address).await;
    let _ = server.last().await;

    let refused = wire::tls_client(server.address, Some(stolen.clone()), true).await;
    assert!(
        refused.is_err(),
        "the server took a signature by another key"
    );
    let judged = server.last().await.unwrap_err();
    assert!(sentence(&judged).contains("BadSignature"), "{judged}");

    let thief = wire::tls_server(stolen).await;
    let refused = lab
        .principal_connector()
        .connect(thief, ExpectedService::FirstContact)
        .await
        .unwrap_err();
    assert!(sentence(&refused).contains("BadSignature"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_evidence_or_with_that_of_another_key_is_refused() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let genuine = wire::certificate_of(server.address).await;
    let _ = server.last().await;
    for (certificate, reason) in [
        (wire::plain_certificate(), "carries no evidence"),
        (
            wire::certificate_with_evidence_of(&genuine),
            "another public key",
        ),
    ] {
        let (certificate, key) = certificate;
        assert!(
            wire::tls_client_with(server.address, certificate.clone(), key.clone())
                .await
                .is_err()
        );
        let judged = server.last().await.unwrap_err();
        assert!(sentence(&judged).contains(reason), "{judged}");

        let impostor = wire::tls_server_with(certificate, key).await;
        let refused = lab
            .principal_connector()
            .connect(impostor, ExpectedService::FirstContact)
            .await
            .unwrap_err();
        assert!(sentence(&refused).contains(reason), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_to_tls_1_2_is_refused_by_either_side() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    assert_eq!(
        wire::answer_to_tls12_hello(server.address).await,
        wire::ALERT_PROTOCOL_VERSION
    );
    assert!(server.last().await.is_err());

    let old = wire::tls12_server().await;
    let refused = lab
        .principal_connector()
        .connect(old, ExpectedService::FirstContact)
        .await
        .unwrap_err();
    assert!(
        sentence(&refused).contains("peer is incompatible"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_never_resumed_and_no_ticket_is_given() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let (kinds, tickets) = wire::two_handshakes_of_a_client_that_would_resume(server.address).await;
    assert_eq!(kinds, [rustls::HandshakeKind::Full; 2]);
    assert_eq!(tickets, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_name_the_protocol_is_refused() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let _ = wire::tls_client(server.address, None, false).await;
    let judged = server.last().await;
    assert!(
        matches!(judged, Err(ChannelError::OtherProtocol)),
        "{judged:?}"
    );
}

/// The same code on the same platform, started a second time with an empty state: it has the measurement, not the identity.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_keyservice_with_the_same_measurement_is_refused() {
    let lab = Lab::new();
    let genuine = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let clone = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    for connector in [
        lab.principal_connector(),
        lab.semirt_connector(lab.enclave(SEMIRT)),
    ] {
        let refused = connector
            .connect(clone.address, ExpectedService::Pinned(genuine.service))
            .await;
        assert!(
            matches!(refused, Err(ChannelError::OtherService { .. })),
            "{refused:?}"
        );
        connector
            .connect(genuine.address, ExpectedService::Pinned(genuine.service))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyservice_with_another_appraisal_policy_than_agreed_is_refused() {
    let lab = Lab::new();
    let lenient = AppraisalPolicy::from_toml(
        "code = \"per-release\"\nplatforms = \"any\"\n[dcap]\ntcb-status = [\"OutOfDate\"]",
    );
    let server = lab
        .keyservice_with(lab.enclave(KEYSERVICE), lenient.unwrap())
        .await;
    let refused = lab
        .principal_connector()
        .connect(server.address, ExpectedService::FirstContact)
        .await;
    assert!(
        matches!(refused, Err(ChannelError::OtherPolicy { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_not_keyservice_is_refused_in_its_place() {
    let lab = Lab::new();
    let server = lab.keyservice(lab.enclave(b"another program")).await;
    let refused = lab
        .principal_connector()
        .connect(server.address, ExpectedService::FirstContact)
        .await
        .unwrap_err();
    assert!(
        sentence(&refused).contains("not among the approved"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tee_that_fails_ends_the_handshake_and_harms_nobody_else() {
    let lab = Lab::new();
    let failing = Script::new(lab.enclave(SEMIRT), |_, _| None);
    let server = lab.keyservice(lab.enclave(KEYSERVICE)).await;
    let expected = ExpectedService::Pinned(server.service);
    let failed = lab
        .semirt_connector(failing)
        .connect(server.address, expected)
        .await;
    assert!(
        matches!(
            &failed,
            Err(ChannelError::Attester(AttesterError::Refused(_)))
        ),
        "{failed:?}"
    );
    assert!(server.last().await.is_err());
    let connector = lab.semirt_connector(lab.enclave(SEMIRT));
    connector.connect(server.address, expected).await.unwrap();
}

fn assert_not_attested<T: std::fmt::Debug>(result: Result<T, ChannelError>) {
    match result {
        Err(ChannelError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::NotAttested),
        other => panic!("{other:?}"),
    }
}

fn assert_not_bound<T: std::fmt::Debug>(result: Result<T, ChannelError>) {
    assert!(
        matches!(result, Err(ChannelError::Verify(VerifyError::NotBound))),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_must_name_the_code_that_it_takes_for_keyservice() {
    let lab = Lab::new();
    let refused = lab.connector_with(AppraisalPolicy::per_release());
    assert!(
        matches!(
            refused,
            Err(ChannelError::Appraisal(AppraisalError::NoReferenceValues))
        ),
        "{refused:?}"
    );
}
