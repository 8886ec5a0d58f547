//! `sesemi audit`: KeyService's log as its principals may see it.

use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anstream::println;
use sesemi::audit::{AuditWriter, Entry, Expected, Verified, View, describe, verify};
use sesemi::{Audit, Point, ServiceId, SignedReceipt};

use super::actor::{Actor, print};
use crate::args::{AuditCommand, AuditVerifyArgs, Who};
use crate::error::{CliError, During as _, file};
use crate::files::read_at_most;
use crate::seen::{newest_seen, read_seen};
use crate::times::shown;

/// Longest file with a receipt, in bytes.
const MAX_RECEIPT: usize = 256 * 1024;

/// `sesemi audit`.
///
/// # Errors
/// [`CliError`].
pub async fn audit(command: AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::Log { of, after, who } => log(of.as_deref(), after, who).await,
        AuditCommand::Export { out, of, who } => export(&out, of.as_deref(), who).await,
        AuditCommand::Verify(args) => offline(args),
    }
}

async fn begin(actor: &mut Actor, of: Option<&str>) -> Result<(Audit, View), CliError> {
    let of = actor.principal(of)?;
    let walk = actor.client.audit(of, Point::START).await;
    let view = View {
        service_key: *actor.client.service().identity.key(),
        of,
        from: Point::START,
    };
    Ok((walk.during("read the log")?, view))
}

async fn log(of: Option<&str>, after: u64, who: Who) -> Result<(), CliError> {
    let mut actor = who.connect().await?;
    let (mut walk, _) = begin(&mut actor, of).await?;
    let (mut hidden, mut listed) = (0_u64, 0_u64);
    loop {
        let page = actor.client.audit_page(&mut walk).await;
        let page = page.during("read the log")?;
        if page.is_empty() {
            break;
        }
        for entry in page.iter().filter(|entry| entry.point.sequence > after) {
            match line(entry, actor.json()) {
                Some(line) => {
                    println!("{line}");
                    listed += 1;
                }
                None => hidden += 1,
            }
        }
    }
    let end = walk.end().head;
    let value = serde_json::json!({
        "verified": {
            "entry": end.state.point.sequence,
            "chain": end.state.point.chain.to_string(),
            "at": shown(end.at),
        },
        "shown": listed,
        "hidden": hidden,
    });
    let people = format!(
        "verified up to entry {}, which the service signed at {} (chain {}); {hidden} entries concern others",
        end.state.point.sequence,
        shown(end.at),
        end.state.point.chain
    );
    actor.show(&value, &people)
}

/// An entry for people or programs; `None` if it is hidden.
fn line(entry: &Entry, json: bool) -> Option<String> {
    let sequence = entry.point.sequence;
    let described = describe(&entry.item)?;
    if json {
        let value = serde_json::json!({
            "entry": sequence,
            "at": shown(described.at),
            "what": described.to_json(),
        });
        return Some(value.to_string());
    }
    let facts: Vec<String> = described
        .by
        .iter()
        .map(|by| format!("by {by}"))
        .chain(
            described
                .facts
                .iter()
                .map(|(name, value)| format!("{name} {}", readable(name, value))),
        )
        .collect();
    Some(format!(
        "{sequence:>8}  {}  {:<16} {}",
        shown(described.at),
        described.kind,
        facts.join("  ")
    ))
}

/// A fact for people: seconds since 1970 as a date, somebody's text on one line.
fn readable(name: &str, value: &str) -> String {
    let is_moment = matches!(name, "expires" | "earlier-end" | "end" | "last");
    match value.parse() {
        // An end that was given as none in particular.
        Ok(0) if is_moment => "at once".to_owned(),
        Ok(at) if is_moment => shown(at),
        _ => value.replace(char::is_control, " "),
    }
}

async fn export(out: &Path, of: Option<&str>, who: Who) -> Result<(), CliError> {
    let mut actor = who.connect().await?;
    let (mut walk, view) = begin(&mut actor, of).await?;
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Whole or not at all: a file without its signed end proves nothing.
    let staged = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    let staged = staged.map_err(file(out))?;
    let mut writer = AuditWriter::new(BufWriter::new(staged), &view)?;
    loop {
        let page = actor.client.audit_page(&mut walk).await;
        let page = page.during("read the log")?;
        if page.is_empty() {
            break;
        }
        for entry in &page {
            writer.entry(entry)?;
        }
    }
    let staged = writer.finish(walk.end())?;
    let staged = staged.into_inner().map_err(|e| file(out)(e.into_error()))?;
    staged
        .as_file()
        .sync_all()
        .and_then(|()| staged.persist_noclobber(out).map_err(|e| e.error).map(drop))
        .map_err(file(out))?;
    let end = walk.end().head.state.point;
    let value = serde_json::json!({
        "file": out,
        "entries": end.sequence,
        "chain": end.chain.to_string(),
    });
    let people = format!(
        "{}: entries 1 to {}, verified; check it anywhere with `sesemi audit verify`",
        out.display(),
        end.sequence
    );
    actor.show(&value, &people)
}

fn offline(args: AuditVerifyArgs) -> Result<(), CliError> {
    let opened = std::fs::File::open(&args.file).map_err(file(&args.file))?;
    let service = match &args.keyservice_id {
        Some(id) => Some(id.parse::<ServiceId>().during("read the service id")?),
        None => None,
    };
    let expected = expected(&args, service)?;
    let verified = verify(BufReader::new(opened), &expected)?;
    let value = serde_json::json!({
        "service": verified.service.to_string(),
        "of": verified.of.to_string(),
        "from_entry": verified.from.sequence,
        "entry": verified.head.state.point.sequence,
        "chain": verified.head.state.point.chain.to_string(),
        "signed_at": shown(verified.head.at),
        "shown": verified.shown,
        "hidden": verified.hidden,
        "signatures": verified.signatures,
        "unknown_signers": verified.unknown_signers,
        "points": verified.points,
    });
    print(args.json, &value, &for_people(&verified, service));
    Ok(())
}

fn for_people(verified: &Verified, expected: Option<ServiceId>) -> String {
    let end = verified.head.state.point;
    let whose = match expected {
        Some(_) => String::new(),
        None => "\nCompare the service's id with the one that you know, or give --keyservice-id."
            .to_owned(),
    };
    let before = match verified.before {
        0 => String::new(),
        n => format!(", {n} are before its first entry"),
    };
    format!(
        "the log of KeyService {}, as {} may see it\n  \
         chain:      entries {} to {} lead to what the service signed at {}\n  \
         entries:    {} shown, {} concern others\n  \
         signatures: {} commands verified, {} of signers whose registration is not shown\n  \
         points:     {} that were seen before are on it{before}{whose}",
        verified.service,
        verified.of,
        verified.from.sequence + 1,
        end.sequence,
        shown(verified.head.at),
        verified.shown,
        verified.hidden,
        verified.signatures,
        verified.unknown_signers,
        verified.points,
    )
}

/// Everything that the log must agree with.
fn expected(args: &AuditVerifyArgs, service: Option<ServiceId>) -> Result<Expected, CliError> {
    let mut expected = Expected {
        service,
        ..Expected::default()
    };
    let of_file = header_service(&args.file)?;
    for identity in &args.identity {
        let point = newest_seen(identity, of_file)?;
        let who = identity.display().to_string();
        if point == Point::START {
            // Nothing would be compared, and a slip of the pen would pass for a check.
            return Err(CliError::Input(format!(
                "the identity {who} has seen nothing of KeyService {of_file}, so there is nothing to compare; check the file's name"
            )));
        }
        expected.seen.push((who, point));
    }
    for path in &args.seen {
        let seen = read_seen(path)?;
        if seen.service != of_file {
            return Err(CliError::Input(format!(
                "{} is of KeyService {}, the log of {of_file}",
                path.display(),
                seen.service
            )));
        }
        expected.seen.push((path.display().to_string(), seen.point));
    }
    for path in &args.receipt {
        expected
            .receipts
            .push((path.display().to_string(), read_receipt(path)?));
    }
    Ok(expected)
}

/// Which service a file says it is of, to find what was kept of that one. Verifying the file verifies this too.
fn header_service(path: &Path) -> Result<ServiceId, CliError> {
    let head = read_at_most(path, 4096).map_err(file(path))?;
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let id = value.get("service").and_then(serde_json::Value::as_str);
    id.and_then(|id| id.parse().ok()).ok_or_else(|| {
        CliError::Input(format!(
            "{} is not what `sesemi audit export` writes",
            path.display()
        ))
    })
}

fn read_receipt(path: &PathBuf) -> Result<SignedReceipt, CliError> {
    let wrong = || {
        CliError::Input(format!(
            "{} is not what a command printed with --json: it has no `command` and `receipt`",
            path.display()
        ))
    };
    let text = read_at_most(path, MAX_RECEIPT).map_err(file(path))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| wrong())?;
    let bytes = |name: &str| {
        let text = value.get(name).and_then(serde_json::Value::as_str);
        text.and_then(|text| hex::decode(text).ok())
            .ok_or_else(wrong)
    };
    Ok(SignedReceipt {
        command: bytes("command")?,
        receipt: bytes("receipt")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_an_entry_are_dates_and_texts_stay_on_their_line() {
        assert_eq!(readable("expires", "1798002241"), "2026-12-23T05:04:01Z");
        assert_eq!(readable("end", "0"), "at once");
        assert_eq!(readable("note", "1798002241"), "1798002241");
        assert_eq!(readable("note", "a\nb\u{1b}[1m"), "a b [1m");
    }
}
