//! The local platform with real processes: what it promises while all goes well.

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

use std::time::Duration;

use instance::{Gate, process_exists, until, within};
use rig::{Rig, name};
use sesemi_platform::{InstancePhase, Platform, PlatformError, Stage};

#[tokio::test]
async fn the_first_invocation_is_cold_and_the_next_is_warm() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    let first = rig.invoke("a", "echo one").await.unwrap();
    let second = rig.invoke("a", "echo two").await.unwrap();
    assert_eq!((first.status, &first.body[..]), (200, &b"echo one"[..]));
    assert_eq!(first.content_type.as_deref(), Some("application/test"));
    assert!(first.init_time.is_some() && second.init_time.is_none());
    assert_eq!(first.instance, second.instance);
    assert_ne!(first.id, second.id);
    assert_eq!(&second.body[..], b"echo two");
}

#[tokio::test]
async fn an_instance_is_initialised_as_openwhisk_does_and_told_the_time_left() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    let init = rig.invoke("a", "init").await.unwrap().body;
    let value = &serde_json::from_slice::<serde_json::Value>(&init).unwrap()["value"];
    assert_eq!(value["env"]["__OW_ACTION_NAME"], "/guest/a");
    assert_eq!(value["env"]["__OW_NAMESPACE"], "guest");
    assert_eq!(
        (&value["main"], &value["binary"], &value["code"]),
        (&"main".into(), &true.into(), &"".into())
    );
    let left = rig.invoke("a", "deadline").await.unwrap().body;
    let left: u64 = std::str::from_utf8(&left).unwrap().parse().unwrap();
    assert!(left <= 60_000, "{left}");
}

#[tokio::test]
async fn an_instance_sees_nothing_of_the_hosts_environment_but_the_path() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    for (name, _) in std::env::vars().filter(|(name, _)| name != "PATH") {
        let seen = rig.invoke("a", &format!("env {name}")).await.unwrap().body;
        assert_eq!(&seen[..], b"unset", "{name}");
    }
    let own = rig
        .invoke("a", "env TEST_INSTANCE_MODE")
        .await
        .unwrap()
        .body;
    assert_eq!(&own[..], b"good");
}

#[tokio::test]
async fn a_launcher_is_put_before_the_binary() {
    let rig = Rig::new(|config| config.launcher = ["env", "ADDED=yes"].map(Into::into).into());
    let rig = rig.with("a", "good", 256, 1).await;
    assert_eq!(
        &rig.invoke("a", "env ADDED").await.unwrap().body[..],
        b"yes"
    );
}

#[tokio::test]
async fn any_status_of_an_instance_is_the_activations_status() {
    let rig = Rig::new(|_| {}).with("a", "good", 256, 1).await;
    for status in [200, 204, 400, 404, 429, 500] {
        assert_eq!(
            rig.invoke("a", &format!("status {status}"))
                .await
                .unwrap()
                .status,
            status
        );
    }
    assert_eq!(rig.instances().await.len(), 1);
}

#[tokio::test]
async fn the_least_recently_used_instance_makes_room() {
    let rig = Rig::new(|config| config.user_memory_mib = 512);
    let rig = rig
        .with("a", "good", 256, 1)
        .await
        .with("b", "good", 256, 1)
        .await
        .with("c", "good", 256, 1)
        .await;
    for action in ["a", "b", "a", "c"] {
        rig.invoke(action, "echo").await.unwrap();
    }
    let live = rig.instances().await;
    let actions: Vec<_> = live.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(actions, ["a", "c"]);
    assert!(
        rig.invoke("a", "echo").await.unwrap().init_time.is_none(),
        "a stayed warm"
    );
}

#[tokio::test]
async fn memory_is_never_overdrawn_and_waiting_is_first_in_first_out() {
    let rig = Rig::new(|config| config.user_memory_mib = 512)
        .with("a", "good", 256, 1)
        .await;
    let gate = Gate::new().await;
    let mut running = Vec::new();
    let mut calls = Vec::new();
    for number in 0..6_usize {
        calls.push(rig.spawn("a", gate.body(&number.to_string())));
        if number < 2 {
            running.push(gate.arrival().await);
        } else {
            until("the invocation to be queued", async || {
                rig.waiting().await == number - 1
            })
            .await;
        }
    }
    assert_eq!(rig.instances().await.len(), 2);
    for number in 2..6 {
        running.pop().unwrap().release().await;
        let next = gate.arrival().await;
        assert_eq!(next.name, number.to_string());
        assert_eq!(rig.instances().await.len(), 2);
        running.push(next);
    }
    for held in running {
        held.release().await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_instance_serves_as_many_at_once_as_its_action_allows() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 3)
        .await;
    let gate = Gate::new().await;
    let calls: Vec<_> = (0..4).map(|_| rig.spawn("a", gate.body("x"))).collect();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(gate.arrival().await);
    }
    until("the fourth to be queued", async || rig.waiting().await == 1).await;
    let instances = rig.instances().await;
    assert_eq!(instances.len(), 1);
    assert_eq!(
        (instances[0].1.phase, instances[0].1.in_flight),
        (InstancePhase::Ready, 3)
    );
    assert!(gate.is_empty().await);
    for held in held {
        held.release().await;
    }
    gate.arrival().await.release().await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let rig = Rig::new(|config| {
        config.user_memory_mib = 256;
        config.queue_capacity = 1;
    });
    let rig = rig.with("a", "good", 256, 1).await;
    let gate = Gate::new().await;
    let first = rig.spawn("a", gate.body("x"));
    let held = gate.arrival().await;
    let second = rig.spawn("a", "echo".into());
    until("the second to be queued", async || rig.waiting().await == 1).await;
    let refused = rig.invoke("a", "echo").await;
    assert!(
        matches!(refused, Err(PlatformError::QueueFull { capacity: 1 })),
        "{refused:?}"
    );
    held.release().await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deadline_ends_waiting_and_running_and_leaves_the_slot_free() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    rig.invoke("a", "echo").await.unwrap();
    let gate = Gate::new().await;
    let short = Duration::from_secs(1);
    let running = rig.spawn_for("a", gate.body("x"), short);
    let held = gate.arrival().await;
    let waiting = rig.invoke_for("a", "echo", Duration::from_millis(20)).await;
    assert!(
        matches!(
            waiting,
            Err(PlatformError::DeadlineExceeded {
                stage: Stage::Waiting
            })
        ),
        "{waiting:?}"
    );
    let running = running.await.unwrap();
    assert!(
        matches!(
            running,
            Err(PlatformError::DeadlineExceeded {
                stage: Stage::Running
            })
        ),
        "{running:?}"
    );
    assert!(
        rig.invoke("a", "echo").await.unwrap().init_time.is_none(),
        "the caller's haste ended the instance"
    );
    drop(held);
}

#[tokio::test]
async fn an_idle_instance_ends_and_the_next_invocation_is_cold() {
    let rig = Rig::new(|config| config.idle_timeout = Duration::from_millis(50))
        .with("a", "good", 256, 1)
        .await;
    let first = rig.invoke("a", "echo").await.unwrap();
    let pid = rig.pid_of(first.instance).await;
    until("the idle instance to end", async || {
        rig.instances().await.is_empty()
    })
    .await;
    assert!(pid.is_none_or(|pid| !process_exists(pid)));
    let second = rig.invoke("a", "echo").await.unwrap();
    assert!(second.init_time.is_some() && second.instance != first.instance);
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_slot_back() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    let gate = Gate::new().await;
    for _ in 0..3 {
        let call = rig.spawn("a", gate.body("x"));
        let _held = gate.arrival().await;
        call.abort();
    }
    let call = rig.spawn("a", gate.body("x"));
    let held = gate.arrival().await;
    let queued = rig.spawn("a", "echo".into());
    until("it to be queued", async || rig.waiting().await == 1).await;
    queued.abort();
    until("its place to be free", async || rig.waiting().await == 0).await;
    held.release().await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deleted_action_refuses_what_comes_and_finishes_what_runs() {
    let rig = Rig::new(|config| config.user_memory_mib = 256)
        .with("a", "good", 256, 1)
        .await;
    let gate = Gate::new().await;
    let running = rig.spawn("a", gate.body("x"));
    let held = gate.arrival().await;
    let waiting = rig.spawn("a", "echo".into());
    until("it to be queued", async || rig.waiting().await == 1).await;
    rig.platform.delete(&name("a")).await.unwrap();
    for refused in [waiting.await.unwrap(), rig.invoke("a", "echo").await] {
        assert!(
            matches!(refused, Err(PlatformError::UnknownAction { .. })),
            "{refused:?}"
        );
    }
    held.release().await;
    assert_eq!(running.await.unwrap().unwrap().status, 200);
    let rig = rig.with("a", "good", 256, 1).await;
    assert!(rig.invoke("a", "echo").await.unwrap().init_time.is_some());
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_with_a_reason() {
    let rig = Rig::new(|config| config.user_memory_mib = 512)
        .with("a", "good", 256, 1)
        .await;
    let deploy = async |action: &str, memory, slots| {
        rig.platform
            .deploy(rig::spec(action, "good", memory, slots))
            .await
            .map_err(|error| error.code())
    };
    assert_eq!(deploy("a", 256, 1).await, Err("already_exists"));
    assert_eq!(deploy("b", 513, 1).await, Err("not_enough_memory"));
    assert_eq!(deploy("b", 0, 1).await, Err("invalid_spec"));
    assert_eq!(deploy("b", 256, 0).await, Err("invalid_spec"));
    assert_eq!(
        rig.platform
            .delete(&name("b"))
            .await
            .map_err(|error| error.code()),
        Err("unknown_action")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_invocations_over_three_actions_and_two_slots_are_all_served() {
    let rig = Rig::new(|config| config.user_memory_mib = 512);
    let rig = rig
        .with("a", "good", 256, 2)
        .await
        .with("b", "good", 256, 2)
        .await
        .with("c", "good", 512, 4)
        .await;
    let bursts = (0..100).map(|n| {
        rig.spawn(
            if n % 25 == 24 {
                "c"
            } else if n % 2 == 0 {
                "a"
            } else {
                "b"
            },
            format!("echo {n}").into(),
        )
    });
    for (number, call) in bursts.collect::<Vec<_>>().into_iter().enumerate() {
        let activation = within(call, "every answer").await.unwrap().unwrap();
        assert_eq!(activation.body, format!("echo {number}"));
    }
    let memory: u32 = rig
        .instances()
        .await
        .iter()
        .map(|(action, _)| if action.as_str() == "c" { 512 } else { 256 })
        .sum();
    assert!(memory <= 512);
}
