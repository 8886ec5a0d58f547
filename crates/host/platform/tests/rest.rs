//! OpenWhisk's REST interface with real instances behind it: what it promises to those who keep to it.

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

use hyper::Method;
use instance::{Gate, until};
use serde_json::{Value, json};
use whisk::Whisk;

fn annotation<'a>(record: &'a Value, key: &str) -> &'a Value {
    let annotations = record["annotations"].as_array().unwrap();
    let found = annotations.iter().find(|it| it["key"] == key);
    found.map_or(&Value::Null, |it| &it["value"])
}

/// What a gate's body is for the test instance, as a command.
fn gate_command(gate: &Gate, name: &str) -> String {
    String::from_utf8(gate.body(name).to_vec()).unwrap()
}

#[tokio::test]
async fn an_action_is_made_read_listed_replaced_and_deleted() {
    let whisk = Whisk::new(|_, _| {}).await;
    let create = json!({"exec": {"kind": "blackbox", "image": "good"}, "limits": {"memory": 512}});
    let put = |query: &str| {
        let path = format!("/_/actions/Hello%20there{query}");
        whisk.spawn(Method::PUT, &path, create.to_string())
    };
    let made = put("").await.unwrap();
    assert_eq!(made.status, 200);
    let told = made.json();
    assert_eq!(
        (&told["namespace"], &told["name"], &told["version"]),
        (&json!("guest"), &json!("Hello there"), &json!("0.0.1"))
    );
    assert_eq!(told["limits"]["memory"], 512);
    assert_eq!(put("").await.unwrap().refusal(), 409);
    let replaced = put("?overwrite=true").await.unwrap().json();
    assert_eq!(replaced["version"], "0.0.2");

    let path = "/guest/actions/Hello%20there";
    assert_eq!(whisk.get(path).await.json(), replaced);
    assert_eq!(
        whisk.get(&format!("{path}?code=false")).await.json(),
        replaced
    );
    whisk.put("other", json!({})).await;
    let listed = whisk.get("/_/actions").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed[0]["parameters"].is_null());
    let part = whisk.get("/_/actions?limit=1&skip=1").await.json();
    assert_eq!(part, json!([listed[1]]));

    assert_eq!(whisk.deployed().await, 2);
    assert_eq!(whisk.ask(Method::DELETE, path, "").await.json(), replaced);
    for method in [Method::DELETE, Method::GET, Method::POST] {
        assert_eq!(whisk.ask(method, path, "{}").await.refusal(), 404);
    }
    assert_eq!(
        whisk.deployed().await,
        1,
        "what was replaced is still there"
    );
}

#[tokio::test]
async fn who_waits_gets_the_record_or_the_result_alone() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let value = json!({"x": [1, "é"]});
    let record = whisk.begin("a", "blocking=true", value.clone());
    let record = record.await.unwrap();
    assert_eq!(record.status, 200);
    let told = record.json();
    assert_eq!(told["activationId"], record.activation());
    assert_eq!(
        (&told["name"], &told["namespace"], &told["version"]),
        (&json!("a"), &json!("guest"), &json!("0.0.1"))
    );
    let response = &told["response"];
    assert_eq!(
        (&response["status"], &response["success"]),
        (&json!("success"), &json!(true))
    );
    assert_eq!(response["result"]["run"]["value"], value);
    assert_eq!(annotation(&told, "path"), "guest/a");
    assert_eq!(annotation(&told, "kind"), "blackbox");
    assert_eq!(annotation(&told, "timeout"), false);
    assert!(annotation(&told, "initTime").is_u64() && annotation(&told, "waitTime").is_u64());
    assert_eq!(annotation(&told, "limits")["memory"], 256);
    let [start, end, duration] =
        ["start", "end", "duration"].map(|key| told[key].as_u64().unwrap());
    assert_eq!(end - start, duration);

    let bare = whisk.begin("a", "blocking=true&result=true", json!([7]));
    let bare = bare.await.unwrap();
    assert_eq!(
        (bare.status, &bare.json()["run"]["value"]),
        (200, &json!([7]))
    );
    let second = whisk.record(&bare.activation()).await;
    assert!(annotation(&second, "initTime").is_null(), "it was warm");
    let failed = whisk.begin(
        "a",
        "blocking=true&result=true",
        json!({"request": instance::BUSY}),
    );
    let failed = failed.await.unwrap();
    assert_eq!(
        (failed.status, &failed.json()["error"]["code"]),
        (502, &json!("busy"))
    );
}

#[tokio::test]
async fn who_does_not_wait_gets_the_id_and_finds_the_record_when_it_is_there() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let gate = Gate::new().await;
    let value = json!({"command": gate_command(&gate, "x")});
    let accepted = whisk.begin("a", "", value.clone()).await.unwrap();
    assert_eq!(accepted.status, 202);
    let id = accepted.activation();
    assert_eq!(accepted.json(), json!({"activationId": id}));
    let held = gate.arrival().await;
    let path = format!("/_/activations/{id}");
    for part in ["", "/result", "/logs"] {
        assert_eq!(whisk.get(&format!("{path}{part}")).await.refusal(), 404);
    }
    held.release().await;
    let record = whisk.record(&id).await;
    assert_eq!(record["response"]["result"], json!({"passed": "x"}));
    assert_eq!(record["logs"], json!([]));
    assert_eq!(
        whisk.get(&format!("{path}/result")).await.json(),
        record["response"]
    );
    assert_eq!(
        whisk.get(&format!("{path}/logs")).await.json(),
        json!({"logs": []})
    );

    let impatient = whisk
        .begin("a", "blocking=true&timeout=20", value)
        .await
        .unwrap();
    assert_eq!(impatient.status, 202);
    gate.arrival().await.release().await;
    let record = whisk.record(&impatient.activation()).await;
    assert_eq!(record["response"]["success"], true);
}

#[tokio::test]
async fn what_an_instance_answers_becomes_what_openwhisk_makes_of_it() {
    let whisk = Whisk::new(|_, rest| rest.max_payload_bytes = 64 << 10)
        .await
        .with("a")
        .await;
    for (command, status, outcome, said) in [
        ("say {\"fine\":1}", 200, "success", ""),
        ("say {\"error\":\"mine\"}", 502, "application error", "mine"),
        ("say not json", 502, "action developer error", "not json"),
        ("say 5", 502, "action developer error", "5"),
        ("chunked", 502, "action developer error", "content-length"),
        (
            "status 204",
            502,
            "action developer error",
            "content-length",
        ),
        ("status 500", 502, "action developer error", "a status"),
        ("exit", 502, "action developer error", "failed"),
        ("big 100000", 502, "application error", "65536"),
    ] {
        // "say" is answered with all of the command after its first word and the space.
        let reply = whisk.command("a", command).await;
        let response = &reply.json()["response"];
        assert_eq!(
            (reply.status, &response["status"]),
            (status, &json!(outcome)),
            "{command}"
        );
        assert_eq!(response["success"], status == 200);
        let error = response["result"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(said), "{command}: {error}");
        assert_eq!(whisk.record(&reply.activation()).await, reply.json());
    }
}

#[tokio::test]
async fn an_instance_lives_on_after_an_applications_error_and_not_after_a_developers() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let pid = async || whisk.command("a", "pid").await.json()["response"]["result"]["pid"].clone();
    let first = pid().await;
    assert_eq!(whisk.command("a", "say {\"error\":1}").await.status, 502);
    assert_eq!(pid().await, first);
    assert_eq!(whisk.command("a", "status 500").await.status, 502);
    assert_ne!(pid().await, first);
}

#[tokio::test]
async fn an_instance_that_drains_passes_the_activation_on() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let marker = whisk.directory.path().join("drained");
    let reply = whisk
        .command("a", &format!("drain {}", marker.display()))
        .await;
    assert_eq!(
        (reply.status, &reply.json()["response"]["result"]),
        (200, &json!({"drained": true}))
    );
}

#[tokio::test]
async fn an_instance_is_told_what_openwhisk_tells_it() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await.with("a").await;
    let reply = whisk.begin("a", "blocking=true&result=true", json!({"k": 1}));
    let reply = reply.await.unwrap();
    let run = &reply.json()["run"];
    assert_eq!(run["value"], json!({"k": 1}));
    assert_eq!(run["namespace"], "guest");
    assert_eq!(run["action_name"], "/guest/a");
    assert_eq!(run["action_version"], "0.0.2");
    assert_eq!(run["activation_id"], reply.activation());
    assert!(run["transaction_id"].is_string() && run["api_key"].is_null());
    let deadline: u128 = run["deadline"].as_str().unwrap().parse().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!(
        deadline > now - 60_000 && deadline <= now + 60_000,
        "{deadline}"
    );

    let init = whisk.command("a", "init").await.json();
    let value = &init["response"]["result"]["value"];
    assert_eq!((&value["name"], &value["code"]), (&json!("a"), &json!("")));
    let env = value["env"].as_object().unwrap();
    assert_eq!(env["__OW_ACTION_NAME"], "/guest/a");
    assert_eq!(env["__OW_ACTION_VERSION"], "0.0.2");
    assert!(!env.contains_key("__OW_API_KEY"));
    assert!(env.values().all(Value::is_string));
}

#[tokio::test]
async fn parameters_of_the_action_are_below_those_of_the_call() {
    let whisk = Whisk::new(|_, _| {}).await;
    let parameters = json!([{"key": "a", "value": 1}, {"key": "b", "value": {"c": 2}}]);
    whisk.put("a", json!({"parameters": parameters})).await;
    let value = async |given: Value| {
        let reply = whisk.begin("a", "blocking=true&result=true", given).await;
        reply.unwrap().json()["run"]["value"].clone()
    };
    assert_eq!(value(json!({})).await, json!({"a": 1, "b": {"c": 2}}));
    assert_eq!(value(json!({"b": 3})).await, json!({"a": 1, "b": 3}));
    let empty = whisk
        .ask(Method::POST, "/_/actions/a?blocking=true", "")
        .await;
    assert_eq!(empty.status, 200);
}

#[tokio::test]
async fn an_action_whose_instances_do_not_start_is_its_developers_error() {
    let whisk = Whisk::new(|_, _| {}).await;
    for (mode, said) in [("refuse", "403"), ("crash", "ended early")] {
        let exec = json!({"exec": {"kind": "blackbox", "image": mode}});
        whisk.put(mode, exec).await;
        let reply = whisk.command(mode, "pid").await;
        let response = &reply.json()["response"];
        assert_eq!(
            (reply.status, &response["status"]),
            (502, &json!("action developer error"))
        );
        let error = response["result"]["error"].as_str().unwrap();
        assert!(error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn an_action_that_exceeds_its_limit_is_ended_and_its_record_says_so() {
    let whisk = Whisk::new(|_, _| {}).await;
    whisk.put("a", json!({"limits": {"timeout": 200}})).await;
    let gate = Gate::new().await;
    let reply = whisk.command("a", &gate_command(&gate, "x")).await;
    let told = reply.json();
    assert_eq!(
        (reply.status, &told["response"]["status"]),
        (502, &json!("action developer error"))
    );
    assert_eq!(annotation(&told, "timeout"), true);
    assert!(
        told["response"]["result"]["error"]
            .as_str()
            .unwrap()
            .contains("200 milliseconds")
    );
}

#[tokio::test]
async fn activations_are_listed_by_name_and_time_in_parts() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await.with("b").await;
    let mut ids = Vec::new();
    for name in ["a", "b", "a"] {
        ids.push(whisk.command(name, "pid").await.activation());
    }
    let list = async |query: &str| {
        let listed = whisk.get(&format!("/_/activations?{query}")).await.json();
        let listed = listed.as_array().unwrap().clone();
        let mut ids: Vec<_> = listed
            .iter()
            .map(|it| it["activationId"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        (listed, ids)
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let (all, all_ids) = list("").await;
    assert_eq!(all_ids, sorted(ids.clone()));
    assert!(all[0]["response"].is_null() && all[0]["statusCode"] == 0);
    let of_a = vec![ids[0].clone(), ids[2].clone()];
    assert_eq!(list("name=a").await.1, sorted(of_a));
    assert_eq!(list("limit=2").await.0.len(), 2);
    assert_eq!(list("limit=2&skip=2").await.0.len(), 1);
    let whole = list("docs=true&name=b").await.0;
    assert_eq!(whole[0], whisk.record(&ids[1]).await);
    let last = all
        .iter()
        .map(|it| it["start"].as_u64().unwrap())
        .max()
        .unwrap();
    assert_eq!(list(&format!("since={}", last + 1)).await.0.len(), 0);
    assert_eq!(list(&format!("upto={last}")).await.0.len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_empty_and_what_may_be_done_is_told() {
    let whisk = Whisk::new(|_, _| {}).await;
    assert_eq!(whisk.get("").await.json(), json!(["guest"]));
    assert_eq!(whisk.get("/").await.json(), json!(["guest"]));
    for none in ["packages", "triggers", "rules", "actions", "activations"] {
        assert_eq!(whisk.get(&format!("/_/{none}")).await.json(), json!([]));
    }
    let limits = whisk.get("/_/limits").await.json();
    assert_eq!(limits["concurrentInvocations"], 128);
    assert_eq!(limits["allowedKinds"], json!(["blackbox"]));
}

#[tokio::test]
async fn what_runs_ends_with_the_action_that_was_replaced_and_what_waits_goes_to_its_successor() {
    let whisk = Whisk::new(|local, _| local.user_memory_mib = 256)
        .await
        .with("a")
        .await;
    let gate = Gate::new().await;
    let running = json!({"command": gate_command(&gate, "old")});
    let running = whisk.begin("a", "blocking=true", running);
    let held = gate.arrival().await;
    let waiting = whisk.begin("a", "blocking=true", json!({}));
    until("it to be queued", async || whisk.waiting().await == 1).await;
    assert_eq!(whisk.put("a", json!({})).await.json()["version"], "0.0.2");
    held.release().await;
    let (running, waiting) = (running.await.unwrap(), waiting.await.unwrap());
    assert_eq!(
        (running.status, &running.json()["version"]),
        (200, &json!("0.0.1"))
    );
    assert_eq!(
        (waiting.status, &waiting.json()["version"]),
        (200, &json!("0.0.2"))
    );
    assert_eq!(
        waiting.json()["response"]["result"]["run"]["action_version"],
        "0.0.2"
    );
}

#[tokio::test]
async fn what_runs_ends_although_its_action_is_deleted_and_what_waits_is_told() {
    let whisk = Whisk::new(|local, _| local.user_memory_mib = 256)
        .await
        .with("a")
        .await;
    let gate = Gate::new().await;
    let running = json!({"command": gate_command(&gate, "x")});
    let running = whisk.begin("a", "blocking=true", running);
    let held = gate.arrival().await;
    let waiting = whisk.begin("a", "blocking=true", json!({}));
    until("it to be queued", async || whisk.waiting().await == 1).await;
    let deleted = whisk.ask(Method::DELETE, "/_/actions/a", "").await;
    assert_eq!(deleted.status, 200);
    let waiting = waiting.await.unwrap();
    let response = &waiting.json()["response"];
    assert_eq!(
        (waiting.status, &response["status"]),
        (500, &json!("whisk internal error"))
    );
    assert!(
        response["result"]["error"]
            .as_str()
            .unwrap()
            .contains("deleted")
    );
    held.release().await;
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(whisk.deployed().await, 0);
}

#[tokio::test]
async fn a_server_that_ends_finishes_what_runs_and_leaves_no_action() {
    let mut whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let gate = Gate::new().await;
    let value = json!({"command": gate_command(&gate, "x")});
    let running = whisk.begin("a", "blocking=true", value);
    let held = gate.arrival().await;
    whisk.ask_to_stop();
    held.release().await;
    assert_eq!(running.await.unwrap().status, 200);
    let platform = whisk.platform.clone();
    whisk.stopped().await;
    assert!(
        sesemi_platform::Platform::list(&*platform)
            .await
            .unwrap()
            .is_empty()
    );
    platform.shutdown().await;
}
