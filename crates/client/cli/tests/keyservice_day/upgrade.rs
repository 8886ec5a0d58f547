//! From one build of KeyService to the next, and back.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::site::{Running, Site};
use crate::{ONLY_THE_OWNER, People, infer};

pub(crate) async fn upgrade(site: &mut Site, people: &People) {
    let stable = format!("{}@stable", people.model);
    let old_programs = site.programs().to_owned();
    let new_programs = a_later_build(site);
    let measured = site
        .json("measure next/sesemi-keyservice --stack my-stack/stack.toml")
        .await;
    let new = measured["code"].as_str().unwrap().to_owned();
    let status = site.json("keyservice status").await;
    let old = status["code"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    let approve = format!("keyservice approve-upgrade --code {new} --identity");
    assert!(
        site.refused(&format!("{approve} owner.identity"))
            .await
            .contains(ONLY_THE_OWNER)
    );
    site.ok(&format!("{approve} ada.identity")).await;
    let status = site.ok("keyservice status").await;
    assert!(status.contains("approved by 1 of 2"), "{status}");
    let predecessor = site.fact("keyservice");
    assert!(
        successor(site, "next", &predecessor, &old).await.is_err(),
        "one approval is not enough"
    );
    let log = std::fs::read_to_string(site.path("successor.log")).unwrap();
    assert!(log.contains("not enough custodians approved"), "{log}");
    infer(site, &stable, "user").await;

    site.ok(&format!("{approve} ben.identity")).await;
    let running = hand_over(site, "next", &old).await;
    let address = running.text("address");
    let at = format!("access list --identity owner.identity --keyservice {address}");
    let refused = site.refused(&at).await;
    assert!(refused.contains("not among the approved ones"), "{refused}");
    site.ok(&format!("{at} --keyservice-code {new}")).await;
    assert!(running.stop().await.success());

    site.use_programs(new_programs.clone());
    site.up().await;
    infer(site, &stable, "user").await;
    site.down().await;
    site.use_programs(old_programs.clone());
    let refused = site.up_refused().await;
    assert!(refused.contains(&new), "{refused}");
    go_back(site, &old, &new).await;
    infer(site, &stable, "user").await;
}

/// The old code is a successor as any other.
async fn go_back(site: &mut Site, old: &str, new: &str) {
    let first = site.programs().to_owned();
    std::fs::create_dir(site.path("first")).unwrap();
    let name = "sesemi-keyservice";
    std::fs::copy(first.join(name), site.path("first").join(name)).unwrap();
    site.use_programs(site.path("next"));
    site.up().await;
    for custodian in ["ben", "cleo"] {
        site.ok(&format!(
            "keyservice approve-upgrade --code {old} --identity {custodian}.identity"
        ))
        .await;
    }
    let running = hand_over(site, "first", new).await;
    assert!(running.stop().await.success());
    site.use_programs(first);
    site.up().await;
}

/// Starts the successor from this folder; the predecessor stops, and with it the stack.
async fn hand_over(site: &mut Site, folder: &str, predecessor_code: &str) -> Running {
    let predecessor = site.fact("keyservice");
    let running = successor(site, folder, &predecessor, predecessor_code).await;
    assert_eq!(site.ended().await.code(), Some(1));
    running.unwrap()
}

/// The same programs with another KeyService: bytes after its end are measured too, and change nothing else.
fn a_later_build(site: &Site) -> PathBuf {
    let next = site.path("next");
    std::fs::create_dir(&next).unwrap();
    for name in [
        "sesemi",
        "simtee",
        "sesemi-keyservice",
        "sesemi-fnpacker",
        "sesemi-semirt",
    ] {
        std::fs::copy(site.programs().join(name), next.join(name)).unwrap();
    }
    let file = std::fs::File::options()
        .append(true)
        .open(next.join("sesemi-keyservice"));
    file.unwrap().write_all(b"a later build").unwrap();
    next
}

async fn successor(
    site: &Site,
    folder: &str,
    predecessor: &str,
    code: &str,
) -> Result<Running, ExitStatus> {
    let line = format!(
        "{folder}/sesemi-keyservice serve --state my-stack/keyservice --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 \
         --simulated-root my-stack/platform/public/root.der --endorsements my-stack/platform/public/collateral.json \
         --predecessor {predecessor} --predecessor-code {code}"
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    site.start_in_tee(&words, "successor.log").await
}
