//! The local platform with real processes: what becomes of it when instances fail, and what it leaves behind.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod instance;
mod rig;

use std::collections::BTreeMap;
use std::time::Duration;

use instance::{Gate, process_exists, until, within};
use rig::{Rig, spec};
use rustix::process::{Pid, Signal, kill_process};
use sesemi_platform::{Container, Image, Platform, PlatformError, Program, Stage, StartFailure};

fn start_failure(outcome: &rig::Outcome) -> &StartFailure {
    match outcome {
        Err(PlatformError::StartFailed { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_container_is_refused_where_instances_are_programs() {
    let rig = Rig::new(|_| {});
    let mut container = spec("container", "good", 256, 1);
    container.image = Image::Container(Container {
        reference: "registry.example/semirt:1".to_owned(),
        args: Vec::new(),
        env: BTreeMap::new(),
    });
    let refused = rig.platform.deploy(container).await;
    assert!(
        matches!(&refused, Err(PlatformError::InvalidSpec { problem, .. }) if problem.contains("container")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_instance_killed_in_mid_request_fails_it_and_the_next_request_starts_afresh() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    let gate = Gate::new().await;
    let call = rig.spawn("a", gate.body("x"));
    let _held = gate.arrival().await;
    let pid = rig.instances().await[0].1.pid.unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let failed = call.await.unwrap();
    assert!(
        matches!(failed, Err(PlatformError::InstanceFailed { .. })),
        "{failed:?}"
    );
    assert!(rig.invoke("a", "echo").await.unwrap().init_time.is_some());
    assert!(!process_exists(pid), "a zombie is left");
}

#[tokio::test]
async fn an_instance_killed_while_idle_is_replaced() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    rig.invoke("a", "echo").await.unwrap();
    let pid = rig.instances().await[0].1.pid.unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    until("its death to be noticed", async || {
        rig.instances().await.is_empty()
    })
    .await;
    assert!(rig.invoke("a", "echo").await.unwrap().init_time.is_some());
}

#[tokio::test]
async fn a_process_that_exits_in_mid_request_fails_only_that_request() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    let failed = rig.invoke("a", "exit").await;
    assert!(
        matches!(failed, Err(PlatformError::InstanceFailed { .. })),
        "{failed:?}"
    );
    assert_eq!(rig.invoke("a", "echo").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_instance_that_is_never_ready_is_given_up_and_gives_its_memory_back() {
    let rig = Rig::new(|config| {
        config.user_memory_mib = 256;
        config.start_timeout = Duration::from_secs(2);
    });
    let rig = rig
        .with("mute", "mute", 256, 1)
        .await
        .with("good", "good", 256, 1)
        .await;
    let outcome = rig.invoke("mute", "echo").await;
    assert!(
        matches!(start_failure(&outcome), StartFailure::TooSlow(_)),
        "{outcome:?}"
    );
    assert_eq!(rig.invoke("good", "echo").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_caller_that_cannot_wait_for_a_start_leaves_and_the_start_goes_on() {
    let rig = Rig::new(|_| {}).with("mute", "mute", 256, 1).await;
    let outcome = rig
        .invoke_for("mute", "echo", Duration::from_millis(50))
        .await;
    assert!(
        matches!(
            outcome,
            Err(PlatformError::DeadlineExceeded {
                stage: Stage::Starting
            })
        ),
        "{outcome:?}"
    );
    assert_eq!(rig.instances().await.len(), 1);
}

#[tokio::test]
async fn every_way_to_fail_a_start_is_named() {
    let rig = Rig::new(|_| {}).with("crash", "crash", 256, 1).await;
    let rig = rig
        .with("refuse", "refuse", 256, 1)
        .await
        .with("foreign", "foreign", 256, 1)
        .await;
    let mut absent = spec("absent", "good", 256, 1);
    absent.image = Image::Program(Program {
        binary: "/nowhere/at/all".into(),
        args: Vec::new(),
        env: BTreeMap::new(),
    });
    rig.platform.deploy(absent).await.unwrap();
    assert!(matches!(
        start_failure(&rig.invoke("crash", "echo").await),
        StartFailure::Exited(_)
    ));
    assert!(matches!(
        start_failure(&rig.invoke("refuse", "echo").await),
        StartFailure::InitRefused(403)
    ));
    assert!(matches!(
        start_failure(&rig.invoke("foreign", "echo").await),
        StartFailure::ForeignAddress
    ));
    assert!(matches!(
        start_failure(&rig.invoke("absent", "echo").await),
        StartFailure::Spawn(_)
    ));
    until("all to be gone", async || rig.instances().await.is_empty()).await;
}

#[tokio::test]
async fn after_a_failed_start_the_next_request_is_served_as_if_it_had_not_happened() {
    let rig = Rig::new(|config| config.user_memory_mib = 256);
    let mode = format!(
        "crash-once {}",
        rig.directory.path().join("crashed").display()
    );
    let rig = rig.with("a", &mode, 256, 1).await;
    assert!(matches!(
        start_failure(&rig.invoke("a", "echo").await),
        StartFailure::Exited(_)
    ));
    assert_eq!(rig.invoke("a", "echo").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_instance_that_drains_is_left_and_another_one_takes_the_request() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    let first = rig.invoke("a", "echo").await.unwrap();
    let marker = rig.directory.path().join("drained");
    let moved = rig
        .invoke("a", &format!("drain {}", marker.display()))
        .await
        .unwrap();
    assert_eq!((moved.status, &moved.body[..]), (200, &b"drained"[..]));
    assert_ne!(moved.instance, first.instance);
    assert!(moved.init_time.is_some());
}

#[tokio::test]
async fn a_second_503_is_passed_on() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    let activation = rig.invoke("a", "status 503").await.unwrap();
    assert_eq!(activation.status, 503);
    until("both to be gone", async || rig.instances().await.is_empty()).await;
}

#[tokio::test]
async fn an_answer_larger_than_the_limit_is_refused_announced_or_not_and_the_instance_lives_on() {
    let rig = Rig::new(|config| config.max_response_bytes = 100_000)
        .with("a", "good", 256, 1)
        .await;
    assert_eq!(
        rig.invoke("a", "big 100000").await.unwrap().body.len(),
        100_000
    );
    for body in ["big 100001", "endless 200000"] {
        let refused = rig.invoke("a", body).await;
        assert!(
            matches!(
                refused,
                Err(PlatformError::ResponseTooLarge { limit: 100_000 })
            ),
            "{refused:?}"
        );
    }
    assert!(rig.invoke("a", "echo").await.unwrap().init_time.is_none());
}

#[tokio::test]
async fn an_instance_that_exceeds_the_actions_own_timeout_gets_nothing_new() {
    let rig = Rig::new(|_| {});
    let mut action = spec("a", "good", 256, 1);
    action.timeout = Duration::from_millis(500);
    rig.platform.deploy(action).await.unwrap();
    let gate = Gate::new().await;
    let hung = rig
        .invoke("a", std::str::from_utf8(&gate.body("x")).unwrap())
        .await;
    assert!(
        matches!(
            hung,
            Err(PlatformError::DeadlineExceeded {
                stage: Stage::Running
            })
        ),
        "{hung:?}"
    );
    assert!(rig.invoke("a", "echo").await.unwrap().init_time.is_some());
}

#[tokio::test]
async fn an_instance_that_answers_nobody_is_replaced_although_each_caller_left_early() {
    let rig = Rig::new(|_| {});
    let mut action = spec("a", "good", 256, 1);
    action.timeout = Duration::from_millis(300);
    rig.platform.deploy(action).await.unwrap();
    let warm = rig.invoke("a", "echo").await.unwrap();
    let gate = Gate::new().await;
    for _ in 0..2 {
        let hung = rig
            .spawn_for("a", gate.body("x"), Duration::from_millis(200))
            .await
            .unwrap();
        assert!(
            matches!(
                hung,
                Err(PlatformError::DeadlineExceeded {
                    stage: Stage::Running
                })
            ),
            "{hung:?}"
        );
    }
    assert_ne!(
        rig.invoke("a", "echo").await.unwrap().instance,
        warm.instance
    );
}

#[tokio::test]
async fn the_tap_keeps_what_the_host_sees_of_each_activation() {
    let taps = tempfile::tempdir().unwrap();
    let rig = Rig::new(|config| config.tap = Some(taps.path().to_owned()))
        .with("a", "good", 256, 1)
        .await;
    let activation = rig.invoke("a", "echo seen by the host").await.unwrap();
    let read = |part: &str| {
        std::fs::read_to_string(taps.path().join(format!("{}.{part}", activation.id))).unwrap()
    };
    let (request, response) = (read("request"), read("response"));
    assert!(request.starts_with("POST http://127.0.0.1:"), "{request}");
    assert!(
        request.contains("content-type: application/cose\r\n")
            && request.contains("sesemi-deadline-ms: ")
    );
    assert!(request.ends_with("\r\n\r\necho seen by the host"));
    assert!(
        response.starts_with("HTTP/1.1 200\r\n")
            && response.ends_with("\r\n\r\necho seen by the host")
    );
    for _ in 0..300 {
        rig.invoke("a", "echo").await.unwrap();
    }
    assert_eq!(std::fs::read_dir(taps.path()).unwrap().count(), 2 * 256);
}

#[tokio::test]
async fn without_a_tap_no_body_is_written_anywhere() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    rig.invoke("a", "echo body-of-a-request").await.unwrap();
    rig.platform.shutdown().await;
    for entry in std::fs::read_dir(rig.directory.path().join("logs")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("body-of-a-request"));
    }
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_refuses_what_comes_and_leaves_no_process() {
    let rig = Rig::new(|config| config.stop_grace = Duration::from_secs(30));
    let rig = rig
        .with("a", "good", 256, 1)
        .await
        .with("b", "good", 256, 1)
        .await
        .with("mute", "mute", 256, 1)
        .await;
    rig.invoke("b", "echo").await.unwrap();
    let starting = rig.spawn("mute", "echo".into());
    let gate = Gate::new().await;
    let running = rig.spawn("a", gate.body("x"));
    let held = gate.arrival().await;
    let pids: Vec<_> = rig
        .instances()
        .await
        .iter()
        .filter_map(|(_, instance)| instance.pid)
        .collect();
    assert_eq!(pids.len(), 2);
    let platform = rig.platform.clone();
    let shutdown = tokio::spawn(async move { platform.shutdown().await });
    assert!(matches!(
        starting.await.unwrap(),
        Err(PlatformError::ShuttingDown)
    ));
    assert!(matches!(
        rig.invoke("a", "echo").await,
        Err(PlatformError::ShuttingDown)
    ));
    held.release().await;
    assert_eq!(running.await.unwrap().unwrap().status, 200);
    within(shutdown, "the shutdown").await.unwrap();
    assert!(rig.instances().await.is_empty());
    assert!(!pids.iter().any(|pid| process_exists(*pid)));
}

#[tokio::test]
async fn a_shutdown_insists_when_an_instance_ignores_it_and_its_work_does_not_end() {
    let rig = Rig::new(|config| config.stop_grace = Duration::from_millis(200))
        .with("a", "stubborn", 256, 1)
        .await;
    let gate = Gate::new().await;
    let running = rig.spawn("a", gate.body("x"));
    let _held = gate.arrival().await;
    let pid = rig.instances().await[0].1.pid.unwrap();
    within(rig.platform.shutdown(), "the shutdown").await;
    assert!(!process_exists(pid));
    assert!(running.await.unwrap().is_err());
}

#[tokio::test]
async fn dropping_the_platform_kills_its_instances() {
    let rig = Rig::new(|_| {}).with("a", "stubborn", 256, 1).await;
    rig.invoke("a", "echo").await.unwrap();
    let pid = rig.instances().await[0].1.pid.unwrap();
    drop(rig);
    until("the process to be gone", async || !process_exists(pid)).await;
}

#[tokio::test]
async fn the_children_of_a_launcher_end_with_it() {
    // The shell stays and waits for its child, as a launcher that supervises does.
    let rig = Rig::new(|config| {
        config.launcher = ["sh", "-c", "\"$0\" \"$@\" & wait"].map(Into::into).into()
    });
    let rig = rig.with("a", "stubborn", 256, 1).await;
    let activation = rig.invoke("a", "echo").await.unwrap();
    let launcher = rig.pid_of(activation.instance).await.unwrap();
    let children =
        std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap();
    let child: u32 = children.split_whitespace().next().unwrap().parse().unwrap();
    drop(rig);
    // A child that its parent could not reap is init's to reap; it must not run any more.
    let runs = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
    };
    until("launcher and child to be gone", async || {
        !runs(launcher) && !runs(child)
    })
    .await;
}
