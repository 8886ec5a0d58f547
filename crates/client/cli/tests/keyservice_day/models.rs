//! Owners, users and delegates: grants, a second version, a new request key, and the end of a grant.

use std::time::{Duration, Instant};

use crate::site::Site;
use crate::{NOT_GRANTED, ONLY_THE_OWNER, OTHER_CODE_ONLY, People, ROWS, infer, infer_line};

pub(crate) async fn serve_a_first_version(site: &Site, people: &People) {
    let People {
        model,
        user,
        colleague,
        ..
    } = people;
    let pushed = site
        .ok("model push breast-cancer.onnx --name breast-cancer --model-version 1 --identity owner.identity")
        .await;
    assert!(pushed.contains("probabilities FP32 [?, 2]"), "{pushed}");
    site.ok(&format!(
        "model lease {model} --seconds 2 --identity owner.identity"
    ))
    .await;

    let explain = format!("access explain {model}@1 --identity user.identity");
    let no = site.ok(&explain).await;
    assert!(no.starts_with("refused"), "{no}");
    site.ok(&format!("key deposit {model} --identity user.identity"))
        .await;
    let refused = site
        .refused(&infer_line(&format!("{model}@1"), "user"))
        .await;
    assert!(refused.contains(NOT_GRANTED), "{refused}");
    site.ok(&format!(
        "access grant {model}@1 {user} --identity owner.identity"
    ))
    .await;
    site.ok(&format!(
        "group add clinic {colleague} --identity owner.identity"
    ))
    .await;
    let to_group = format!(
        "access grant {model}@1 --group clinic --expires 30d --note trial --identity owner.identity"
    );
    assert!(site.ok(&to_group).await.contains(" until "));
    site.ok("key deposit --all-models --identity colleague.identity")
        .await;

    assert_eq!(infer(site, &format!("{model}@1"), "user").await, [1; ROWS]);
    assert_eq!(
        infer(site, &format!("{model}@1"), "colleague").await,
        [1; ROWS]
    );
    let yes = site.ok(&explain).await;
    assert!(
        yes.starts_with("allowed") && yes.contains("for 2 s at a time, isolation: shared"),
        "{yes}"
    );
    let list = site
        .ok(&format!(
            "access list --model {model} --identity owner.identity"
        ))
        .await;
    assert!(list.contains("clinic") && list.contains("trial"), "{list}");
    assert_eq!(list.lines().count(), 3, "{list}");
}

pub(crate) async fn move_to_a_second_version(site: &Site, people: &People) {
    let People { model, user, .. } = people;
    site.ok(&format!(
        "model alias {model}@1 stable --identity owner.identity"
    ))
    .await;
    site.ok(&format!(
        "access grant {model}@stable {user} --identity owner.identity"
    ))
    .await;
    let stable = format!("{model}@stable");
    assert_eq!(infer(site, &stable, "user").await, [1; ROWS]);
    site.ok("model push breast-cancer.onnx --name breast-cancer --model-version 2 --identity owner.identity")
        .await;
    let moved = site
        .ok(&format!(
            "model alias {model}@2 stable --identity owner.identity"
        ))
        .await;
    assert!(moved.contains("now means version 2"), "{moved}");
    // Leases of the version before end within two seconds; then every request is served by the new one.
    within_ten_seconds(async || infer(site, &stable, "user").await == [2; ROWS]).await;
    let shown = site.ok(&infer_line(&stable, "user")).await;
    assert!(
        shown.contains("version 2"),
        "people see which version an alias meant: {shown}"
    );
    // The grant of the alias is for requests that name the alias; that of version 1 stays what it was.
    let refused = site
        .refused(&infer_line(&format!("{model}@2"), "user"))
        .await;
    assert!(refused.contains(NOT_GRANTED), "{refused}");
    assert_eq!(infer(site, &format!("{model}@1"), "user").await, [1; ROWS]);
}

async fn within_ten_seconds(mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Gives the grant that the delegate made.
pub(crate) async fn rotate_and_delegate(site: &Site, people: &People) -> u64 {
    let People {
        model,
        grantor,
        auditor,
        owner,
        user,
        ..
    } = people;
    let rotated = site
        .ok(&format!(
            "key rotate {model} --until 1h --response-quantum-ms 1 --identity user.identity"
        ))
        .await;
    assert!(rotated.contains("2"), "{rotated}");
    infer(site, &format!("{model}@stable"), "user").await;
    let keys = site.ok("key list --identity user.identity").await;
    assert_eq!(keys.lines().count(), 3, "{keys}");
    assert!(keys.contains("shared, every 1 ms"), "{keys}");

    let grant =
        format!("access grant {model} {user} --note by-the-ward --identity grantor.identity");
    assert!(site.refused(&grant).await.contains(ONLY_THE_OWNER));
    site.ok(&format!(
        "delegate add {grantor} --role grantor --expires 7d --identity owner.identity"
    ))
    .await;
    site.ok(&format!(
        "delegate add {auditor} --role auditor --identity owner.identity"
    ))
    .await;
    // The owner approved SeMIRT's code for it, and no other.
    let other = site
        .refused(&format!("{grant} --code {}", "ab".repeat(32)))
        .await;
    assert!(other.contains(OTHER_CODE_ONLY), "{other}");
    let granted = site.ok(&grant).await;
    let (_, code) = granted.split_once("in code ").expect(&granted);
    let code = code.split_whitespace().next().unwrap();
    let delegates = site.ok("delegate list --identity owner.identity").await;
    assert!(delegates.contains(code), "{delegates}");
    let id = grant_id(&granted);
    assert_eq!(infer(site, &format!("{model}@2"), "user").await, [2; ROWS]);
    let mine = site
        .ok("access list --to-me --identity user.identity")
        .await;
    assert!(mine.contains("by-the-ward"), "{mine}");
    let log = format!("audit log --of {owner} --identity grantor.identity");
    assert!(site.refused(&log).await.contains(ONLY_THE_OWNER));
    id
}

/// The id of a grant, as people read it.
fn grant_id(said: &str) -> u64 {
    let (_, after) = said.split_once("grant ").expect(said);
    after.split_once(':').unwrap().0.parse().unwrap()
}

pub(crate) async fn revoke(site: &Site, people: &People, grant: u64) {
    let People { model, owner, .. } = people;
    infer(site, &format!("{model}@2"), "user").await;
    site.ok(&format!(
        "access revoke {grant} --owner {owner} --identity grantor.identity"
    ))
    .await;
    let target = format!("{model}@2");
    let explained = site
        .ok(&format!("access explain {target} --identity user.identity"))
        .await;
    assert!(explained.starts_with("refused"), "{explained}");
    let line = infer_line(&target, "user");
    within_ten_seconds(async || {
        let output = site.attempt(&line).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() || said.contains(NOT_GRANTED),
            "{said}"
        );
        !output.status.success()
    })
    .await;
    infer(site, &format!("{model}@stable"), "user").await;
}
