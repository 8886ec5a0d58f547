//! A day with KeyService, as docs/guides/keyservice.md tells it: every command is the program that is deployed, typed as people
//! type it, on one stack whose state goes through a rollback, a restored backup, another machine and an upgrade.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod audit;
mod models;
mod site;
mod state;
mod upgrade;

use sesemi_cli::demo::{data, plaintext};
use site::Site;

/// Rows that are sent each time.
const ROWS: usize = 2;

/// Why a request is refused for which the owner has not granted.
const NOT_GRANTED: &str = "has not granted this user the model";

/// Why a command is refused that only its owner may give.
const ONLY_THE_OWNER: &str = "only the owner, or somebody with a role";

/// Why a grant of a delegate is refused in code that the owner did not approve for it.
const OTHER_CODE_ONLY: &str = "the owner lets this delegate grant in other code only";

/// Who takes part, by id.
struct People {
    owner: String,
    user: String,
    colleague: String,
    grantor: String,
    auditor: String,
    custodians: [String; 3],
    model: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_keyservice() {
    let mut site = Site::new();
    site.up().await;
    let people = meet(&site).await;
    found(&site, &people).await;
    models::serve_a_first_version(&site, &people).await;
    models::move_to_a_second_version(&site, &people).await;
    let first = models::rotate_and_delegate(&site, &people).await;
    audit::audit(&site, &people).await;
    site.ok("keyservice backup --out keyservice.backup").await;
    models::revoke(&site, &people, first).await;
    state::notice_a_rollback(&mut site, &people).await;
    state::restore_the_backup(&mut site, &people).await;
    state::move_to_another_machine(&mut site, &people).await;
    upgrade::upgrade(&mut site, &people).await;
    site.down().await;
}

async fn meet(site: &Site) -> People {
    let id = async |name: &str| {
        let id = site.ok(&format!("identity new {name}.identity")).await;
        site.ok(&format!("register --identity {name}.identity"))
            .await;
        id
    };
    id("operator").await;
    let custodians = [id("ada").await, id("ben").await, id("cleo").await];
    let owner = id("owner").await;
    People {
        model: format!("{owner}/breast-cancer"),
        owner,
        user: id("user").await,
        colleague: id("colleague").await,
        grantor: id("grantor").await,
        auditor: id("auditor").await,
        custodians,
    }
}

async fn found(site: &Site, people: &People) {
    let before = site.ok("keyservice status").await;
    assert!(before.contains("custodians: none"), "{before}");
    let [ada, ben, cleo] = &people.custodians;
    let init = format!(
        "keyservice init --custodian {ada} --custodian {ben} --custodian {cleo} --threshold 2 --identity operator.identity"
    );
    let said = site.ok(&init).await;
    assert!(said.starts_with("any 2 of 3 custodians"), "{said}");
    for name in ["ada", "ben", "cleo"] {
        let share = format!("keyservice share --out {name}.share --identity {name}.identity");
        let said = site.ok(&share).await;
        assert!(said.contains("of 3; any 2 open"), "{said}");
        assert!(
            site.refused(&share).await.contains("exists"),
            "never overwritten"
        );
    }
    let stranger = "keyservice share --out none.share --identity owner.identity";
    assert!(site.refused(stranger).await.contains(ONLY_THE_OWNER));
    let after = site.ok("keyservice status").await;
    assert!(after.contains("any 2 of"), "{after}");
    assert!(after.contains("sesemi_keyservice_writable 1"), "{after}");
    assert!(
        site.refused(&init)
            .await
            .contains("custodians are named once")
    );
}

/// Asks for the first rows, and compares with the model outside of any TEE. Gives the versions that answered.
async fn infer(site: &Site, target: &str, who: &str) -> Vec<u64> {
    let line = infer_line(target, who);
    let said = site.ok(&format!("{line} --json")).await;
    let rows = data::parse_csv(data::HELD_OUT).unwrap();
    let plain = plaintext::probabilities(&rows[..ROWS]).unwrap();
    let mut versions = Vec::new();
    for (line, plain) in said.lines().zip(&plain) {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        let sealed: Vec<f32> =
            serde_json::from_value(answer["outputs"]["probabilities"].clone()).unwrap();
        assert_eq!(&sealed, plain);
        versions.push(answer["version"].as_u64().unwrap());
    }
    assert_eq!(versions.len(), ROWS);
    versions
}

fn infer_line(target: &str, who: &str) -> String {
    format!("infer {target} --csv held-out.csv --rows {ROWS} --identity {who}.identity")
}
