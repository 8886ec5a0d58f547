//! What happens to the state: a rollback, a backup, another machine.

use std::path::PathBuf;

use crate::site::{Site, copy_folder};
use crate::{People, infer, infer_line};

pub(crate) async fn notice_a_rollback(site: &mut Site, people: &People) {
    let People {
        model, colleague, ..
    } = people;
    site.meanwhile(|site| copy_folder(&site.state(), &site.path("older")))
        .await;
    let grant = format!("access grant {model}@2 {colleague} --identity owner.identity");
    site.ok(&grant).await;
    infer(site, &format!("{model}@stable"), "user").await;
    site.meanwhile(|site| {
        std::fs::rename(site.state(), site.path("newest")).unwrap();
        std::fs::rename(site.path("older"), site.state()).unwrap();
    })
    .await;
    for line in [
        grant.as_str(),
        &infer_line(&format!("{model}@stable"), "user"),
    ] {
        let refused = site.refused(line).await;
        assert!(
            refused.contains("rolled back or forked; do not use it"),
            "{refused}"
        );
    }
    put_the_newest_back(site).await;
    site.ok(&format!(
        "access list --model {model} --identity owner.identity"
    ))
    .await;
    infer(site, &format!("{model}@stable"), "user").await;
}

async fn put_the_newest_back(site: &mut Site) {
    site.meanwhile(|site| {
        std::fs::remove_dir_all(site.state()).unwrap();
        std::fs::rename(site.path("newest"), site.state()).unwrap();
    })
    .await;
}

pub(crate) async fn restore_the_backup(site: &mut Site, people: &People) {
    let restored = site
        .ok("keyservice restore keyservice.backup --state restored")
        .await;
    assert!(restored.contains("Clients who saw more"), "{restored}");
    let again = site
        .refused("keyservice restore keyservice.backup --state restored")
        .await;
    assert!(again.contains("empty"), "{again}");
    site.meanwhile(|site| {
        std::fs::rename(site.state(), site.path("newest")).unwrap();
        std::fs::rename(site.path("restored"), site.state()).unwrap();
    })
    .await;
    // A custodian saw nothing after the backup; the user did.
    site.ok("register --identity cleo.identity").await;
    let stable = format!("{}@stable", people.model);
    let refused = site.refused(&infer_line(&stable, "user")).await;
    assert!(refused.contains("rolled back or forked"), "{refused}");
    // Who was told why, and agrees to go on without what came after the backup, says so by putting away what was seen.
    let seen = seen_file(site, "user");
    let kept = seen.with_extension("kept");
    std::fs::rename(&seen, &kept).unwrap();
    infer(site, &stable, "user").await;
    // The newest state came back all the same: what was seen of it counts again. What cleo saw of the other is a fork now.
    put_the_newest_back(site).await;
    std::fs::rename(kept, seen).unwrap();
    infer(site, &stable, "user").await;
    std::fs::remove_file(seen_file(site, "cleo")).unwrap();
}

fn seen_file(site: &Site, who: &str) -> PathBuf {
    let folder = std::fs::read_dir(site.path(".")).unwrap();
    let mut found = folder.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&format!("{who}.identity.")) && name.ends_with(".seen")
    });
    found.next().expect("something was seen")
}

pub(crate) async fn move_to_another_machine(site: &mut Site, people: &People) {
    let stable = format!("{}@stable", people.model);
    site.meanwhile(exchange_the_processor).await;
    let status = site.ok("keyservice status").await;
    assert!(status.contains("is LOCKED: it has 0 of the 2"), "{status}");
    let refused = site.refused(&infer_line(&stable, "user")).await;
    assert!(refused.contains("is locked"), "{refused}");
    assert_eq!(site.ready().await, "locked");
    let backup = site.refused("keyservice backup --out none.backup").await;
    assert!(backup.contains("the state is locked"), "{backup}");
    let one = site.ok("keyservice recover --share ada.share").await;
    assert!(one.contains("has 1 of the 2 shares"), "{one}");
    let open = site.ok("keyservice recover --share cleo.share").await;
    assert!(open.contains("opened its state and serves"), "{open}");
    assert_eq!(site.ready().await, "ready");
    infer(site, &stable, "user").await;
    site.meanwhile(|_| {}).await;
    infer(site, &stable, "user").await;
}

/// Another machine of the same maker: what it seals, the first cannot open, and the other way round.
fn exchange_the_processor(site: &Site) {
    let path = site.path("my-stack/platform/machine.json");
    let mut machine: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    machine["secrets"]["seal_secret"] = "5e".repeat(32).into();
    std::fs::write(path, serde_json::to_vec(&machine).unwrap()).unwrap();
}
