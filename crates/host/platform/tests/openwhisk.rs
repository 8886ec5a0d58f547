//! The back-end against the embedded platform's own REST interface, with real instances; and against controllers in trouble.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod instance;
mod whisk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use instance::{Gate, within};
use serde_json::json;
use sesemi_platform::{
    ActionName, ActionSpec, Activation, Container, Form, Image, Invocation, OpenWhisk,
    OpenWhiskConfig, Platform, PlatformError, RestConfig, Stage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use whisk::{USER, Whisk};

fn name(text: &str) -> ActionName {
    ActionName::new(text).unwrap()
}

fn spec(action: &str) -> ActionSpec {
    ActionSpec {
        name: name(action),
        image: Image::Container(Container {
            reference: "good".to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
        }),
        memory_mib: 256,
        concurrency: 2,
        timeout: Duration::from_secs(30),
        entity: None,
    }
}

fn openwhisk(address: &str, adjust: impl FnOnce(&mut OpenWhiskConfig)) -> Arc<OpenWhisk> {
    let mut config = OpenWhiskConfig::new(address, USER.parse().unwrap());
    adjust(&mut config);
    Arc::new(OpenWhisk::new(config).unwrap())
}

/// A server with the action `a`, and the back-end that deployed it.
async fn both(adjust: impl FnOnce(&mut RestConfig)) -> (Whisk, Arc<OpenWhisk>) {
    let whisk = Whisk::new(|_, rest| adjust(rest)).await;
    let platform = openwhisk(&whisk.url(), |_| {});
    platform.deploy(spec("a")).await.unwrap();
    (whisk, platform)
}

fn invocation(body: impl Into<Bytes>, form: Form, patience: Duration) -> Invocation {
    Invocation {
        body: body.into(),
        form,
        deadline: Instant::now() + patience,
        trace: None,
    }
}

async fn sealed(
    platform: &OpenWhisk,
    action: &str,
    body: impl Into<Bytes>,
) -> Result<Activation, PlatformError> {
    let invocation = invocation(body, Form::Sealed, Duration::from_secs(60));
    platform.invoke(&name(action), invocation).await
}

async fn command(
    platform: &OpenWhisk,
    command: &str,
    patience: Duration,
) -> Result<Activation, PlatformError> {
    let value = json!({"command": command}).to_string();
    let invocation = invocation(value, Form::Whisk, patience);
    platform.invoke(&name("a"), invocation).await
}

#[tokio::test]
async fn sealed_bytes_go_to_an_instance_and_come_back_as_they_are() {
    let (_whisk, platform) = both(|_| {}).await;
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n * 7) as u8).collect();
    let first = sealed(&platform, "a", body.clone()).await.unwrap();
    assert_eq!((first.status, &first.body[..]), (200, &body[..]));
    assert_eq!(first.content_type.as_deref(), Some("application/cose"));
    assert!(first.init_time.is_some() && first.instance.is_none());
    let second = sealed(&platform, "a", "").await.unwrap();
    assert!(second.body.is_empty() && second.init_time.is_none());
    assert_ne!(first.id, second.id);
}

#[tokio::test]
async fn the_largest_request_that_fits_goes_through_and_one_byte_more_is_not_sent() {
    let (_whisk, platform) = both(|_| {}).await;
    let most = platform.limits().max_request_bytes;
    let largest = sealed(&platform, "a", vec![1; most]).await.unwrap();
    assert_eq!(largest.body.len(), most);
    // An address where nobody is: nothing is asked there.
    let nowhere = openwhisk("http://127.0.0.1:1", |_| {});
    let refused = sealed(&nowhere, "a", vec![1; most + 1]).await.unwrap_err();
    assert_eq!(refused.code(), "request_too_large");
}

#[tokio::test]
async fn a_refusal_by_the_instance_comes_back_as_its_own() {
    let (_whisk, platform) = both(|_| {}).await;
    let refused = sealed(&platform, "a", "busy").await.unwrap();
    assert_eq!(refused.status, 429);
    let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body, json!({"error": "no place is left", "code": "busy"}));
}

#[tokio::test]
async fn actions_are_deployed_listed_and_deleted() {
    let (whisk, platform) = both(|_| {}).await;
    let taken = platform.deploy(spec("a")).await.unwrap_err();
    assert_eq!(taken.code(), "already_exists");
    let taking = openwhisk(&whisk.url(), |config| config.overwrite = true);
    taking.deploy(spec("a")).await.unwrap();
    platform.deploy(spec("b")).await.unwrap();
    whisk.put("Not%20one%20of%20ours", json!({})).await;
    let listed = platform.list().await.unwrap();
    let told: Vec<_> = listed
        .iter()
        .map(|it| (it.name.as_str(), it.memory_mib, it.concurrency))
        .collect();
    assert_eq!(told, [("a", 256, 2), ("b", 256, 2)]);
    let described = whisk.get("/_/actions/a").await.json();
    assert_eq!(described["limits"]["timeout"], 30_000);
    assert_eq!(described["limits"]["logs"], 0);

    platform.delete(&name("a")).await.unwrap();
    for gone in [
        platform.delete(&name("a")).await.unwrap_err(),
        sealed(&platform, "a", "x").await.unwrap_err(),
    ] {
        assert_eq!(gone.code(), "unknown_action");
    }
    let mut unfit = spec("c");
    unfit.memory_mib = 100_000;
    let unfit = platform.deploy(unfit).await.unwrap_err();
    assert!(
        unfit.code() == "invalid_spec" && unfit.to_string().contains("memory"),
        "{unfit}"
    );
}

#[tokio::test]
async fn more_actions_than_a_page_has_are_listed() {
    let (whisk, platform) = both(|_| {}).await;
    for number in 0..205 {
        whisk.put(&format!("n{number}"), json!({})).await;
    }
    assert_eq!(platform.list().await.unwrap().len(), 206);
}

#[tokio::test]
async fn an_activation_that_outlasts_the_wait_is_asked_for_until_its_record_is_there() {
    let (_whisk, platform) = both(|rest| rest.max_blocking = Duration::from_millis(20)).await;
    let gate = Gate::new().await;
    let text = String::from_utf8(gate.body("late").to_vec()).unwrap();
    let asking = platform.clone();
    let waiting =
        tokio::spawn(async move { command(&asking, &text, Duration::from_secs(60)).await });
    let held = gate.arrival().await;
    // Long enough for the server to have said 202 and to have been asked in vain.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    held.release().await;
    let ended = within(waiting, "the record").await.unwrap().unwrap();
    assert_eq!(&ended.body[..], b"{\"passed\":\"late\"}");
}

#[tokio::test]
async fn a_deadline_ends_waiting_for_the_answer_and_for_the_record() {
    for blocking in [Duration::from_secs(60), Duration::from_millis(1)] {
        let (_whisk, platform) = both(|rest| rest.max_blocking = blocking).await;
        let gate = Gate::new().await;
        let text = String::from_utf8(gate.body("x").to_vec()).unwrap();
        let late = command(&platform, &text, Duration::from_millis(200)).await;
        assert!(
            matches!(
                late,
                Err(PlatformError::DeadlineExceeded {
                    stage: Stage::Running
                })
            ),
            "{late:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_activation_says_what_the_instance_or_the_platform_said() {
    let (_whisk, platform) = both(|_| {}).await;
    for (text, status, said) in [
        ("status 500", "action developer error", "a status"),
        ("say nonsense", "action developer error", "nonsense"),
        ("exit", "action developer error", "failed"),
    ] {
        let failed = command(&platform, text, Duration::from_secs(60)).await;
        match failed {
            Err(PlatformError::ActivationFailed {
                status: is,
                said: told,
                ..
            }) => assert!(is == status && told.contains(said), "{is}: {told}"),
            other => panic!("{other:?}"),
        }
    }
    let erred = command(&platform, "say {\"error\":1}", Duration::from_secs(60)).await;
    assert_eq!(&erred.unwrap().body[..], b"{\"error\":1}");
    // What is no sealed response is none, although OpenWhisk calls it a success.
    let strange = sealed(&platform, "a", "x").await.unwrap();
    assert_eq!(strange.status, 200);
}

#[tokio::test]
async fn a_platform_that_is_full_or_knows_us_not_says_so() {
    let (whisk, platform) = both(|rest| rest.max_activations = 1).await;
    let gate = Gate::new().await;
    let text = String::from_utf8(gate.body("x").to_vec()).unwrap();
    let asking = platform.clone();
    let running =
        tokio::spawn(async move { command(&asking, &text, Duration::from_secs(60)).await });
    let held = gate.arrival().await;
    let full = sealed(&platform, "a", "x").await.unwrap_err();
    match &full {
        PlatformError::Throttled { retry_after, .. } => {
            assert_eq!(*retry_after, Some(Duration::from_secs(1)));
        }
        other => panic!("{other:?}"),
    }
    held.release().await;
    running.await.unwrap().unwrap();

    let stranger = openwhisk(&whisk.url(), |config| {
        config.credentials = "somebody:else".parse().unwrap();
    });
    let elsewhere = openwhisk(&whisk.url(), |config| config.namespace = "other".to_owned());
    for platform in [stranger, elsewhere] {
        let refused = platform.list().await.unwrap_err();
        assert_eq!(refused.code(), "platform_unauthorized");
        assert!(!format!("{refused} {refused:?}").contains("else:"));
    }
}

/// A controller that answers every request with these bytes, and then closes the connection.
async fn canned(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut begun = [0; 4096];
            let _ = stream.read(&mut begun).await;
            let _ = stream.write_all(answer).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_controller_in_trouble_is_an_error_that_says_what_it_is() {
    let cases: [(&[u8], &str, &str); 9] = [
        (b"", "platform_unreachable", "connection"),
        (b"garbage\r\n\r\n", "platform_unreachable", ""),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
            "platform_unreachable",
            "broke off",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{",
            "platform_unreachable",
            "larger",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "platform_failed",
            "200",
        ),
        (
            b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}",
            "platform_failed",
            "202",
        ),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            "platform_failed",
            "302",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 13\r\n\r\n<h1>proxy</h1",
            "platform_failed",
            "proxy",
        ),
        (
            b"HTTP/1.1 503 Unavailable\r\ncontent-length: 16\r\n\r\n{\"error\":\"full\"}",
            "platform_failed",
            "full",
        ),
    ];
    for (answer, code, said) in cases {
        let platform = openwhisk(&canned(answer).await, |_| {});
        let error = within(sealed(&platform, "a", "x"), "an error").await;
        let error = error.unwrap_err();
        let text = error.to_string();
        assert!(
            error.code() == code && text.contains(said),
            "{code} {said:?}: {text}"
        );
    }
}

#[tokio::test]
async fn a_controller_that_is_not_there_or_not_what_it_should_be_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let absent = openwhisk(&format!("http://{address}"), |_| {});
    let error = sealed(&absent, "a", "x").await.unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("refused"),
        "{error}"
    );

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let silent_one = openwhisk(&address, |config| {
        config.request_timeout = Duration::from_millis(100);
    });
    let error = silent_one.list().await.unwrap_err();
    assert_eq!(error.code(), "platform_unreachable");
}

#[tokio::test]
async fn https_is_spoken_or_refused_with_a_sentence_and_never_replaced_by_http() {
    let plain = canned(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await;
    let config = OpenWhiskConfig::new(plain.replace("http:", "https:"), USER.parse().unwrap());
    match OpenWhisk::new(config) {
        Ok(platform) => {
            let error = platform.list().await.unwrap_err();
            assert_eq!(error.code(), "platform_unreachable", "{error}");
        }
        // A machine without any authority.
        Err(error) => assert!(error.to_string().contains("authority"), "{error}"),
    }
}
