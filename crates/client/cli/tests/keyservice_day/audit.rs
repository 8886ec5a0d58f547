//! The auditor: the log, an export, and what is changed in it.

use crate::People;
use crate::site::Site;

pub(crate) async fn audit(site: &Site, people: &People) {
    let People { owner, .. } = people;
    let log = site
        .ok(&format!(
            "audit log --of {owner} --identity auditor.identity"
        ))
        .await;
    for what in ["grant", "release", "verified up to entry"] {
        assert!(log.contains(what), "{what}: {log}");
    }
    site.ok(&format!(
        "audit export --of {owner} --out audit.jsonl --identity auditor.identity"
    ))
    .await;
    let status = site.json("keyservice status").await;
    let service = status["service"].as_str().unwrap();
    // The stack is not asked: what was kept beside an identity's file is enough.
    let verify =
        format!("audit verify audit.jsonl --keyservice-id {service} --identity auditor.identity");
    let verified = site.ok(&verify).await;
    assert!(
        verified.contains("lead to what the service signed"),
        "{verified}"
    );
    change_a_line(site);
    let refused = site
        .refused(&verify.replace("audit.jsonl", "changed.jsonl"))
        .await;
    assert!(refused.contains("than the log does"), "{refused}");
}

/// Changes one hexadecimal digit in the middle of an exported log.
fn change_a_line(site: &Site) {
    let text = std::fs::read_to_string(site.path("audit.jsonl")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let middle = lines.len() / 2;
    let line = &mut lines[middle];
    let at = line.rfind(|c: char| c.is_ascii_digit()).unwrap();
    let other = if line.as_bytes()[at] == b'1' {
        "2"
    } else {
        "1"
    };
    line.replace_range(at..=at, other);
    std::fs::write(site.path("changed.jsonl"), lines.join("\n") + "\n").unwrap();
}
