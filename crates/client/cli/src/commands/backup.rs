//! Backups of a KeyService's state, through its operator's address: a sealed copy, made while it serves. What comes from there is
//! not believed; `restore` checks that it is whole, and the restored service that it is its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::process::Command;
use tokio::time::timeout;

use super::actor::print;
use crate::error::{CliError, file};
use crate::up::binaries;

/// Longest wait for the next piece.
const IDLE: Duration = Duration::from_secs(60);
/// Longest page of metrics that is read, in bytes.
const MAX_METRICS: usize = 1024 * 1024;
/// Most of what a refusal says that is shown, in characters.
const MAX_SAID: usize = 300;

fn failed(url: &str, why: impl std::fmt::Display) -> CliError {
    CliError::Input(format!("{url}: {why}"))
}

async fn get(url: &str) -> Result<Response<Incoming>, CliError> {
    let request = Request::get(url).body(Empty::<Bytes>::new());
    let request = request.map_err(|_| failed(url, "write the address as http://HOST:PORT"))?;
    if request.uri().scheme_str() != Some("http") {
        return Err(failed(url, "write the address as http://HOST:PORT"));
    }
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = timeout(IDLE, client.request(request))
        .await
        .map_err(|_| failed(url, "no answer within 60 seconds"))?
        .map_err(|e| failed(url, format!("cannot be reached ({})", innermost(&e))))?;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body = timeout(IDLE, Limited::new(response.into_body(), 4096).collect()).await;
    let said = match body {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        _ => String::new(),
    };
    let said: String = said.trim().chars().filter(|c| !c.is_control()).collect();
    let said: String = said.chars().take(MAX_SAID).collect();
    Err(failed(url, format!("answered {status}: {said}")))
}

/// The cause that started it: the layers above it only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// `sesemi keyservice backup`.
///
/// # Errors
/// [`CliError`]; the file is as it was then.
pub(super) async fn backup(admin: &str, out: &Path, json: bool) -> Result<(), CliError> {
    let url = format!("{}/backup", admin.trim_end_matches('/'));
    let response = get(&url).await?;
    let folder = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let staged = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    let mut staged = staged.map_err(file(out))?;
    let mut body = response.into_body();
    let progress = progress(body.size_hint().exact());
    let mut bytes = 0_u64;
    loop {
        let next = timeout(IDLE, body.frame())
            .await
            .map_err(|_| failed(&url, "it stopped sending"))?;
        // A connection that ends early is an error here: the end is announced.
        let Some(frame) = next else { break };
        let frame = frame.map_err(|e| {
            failed(
                &url,
                format!("it broke off ({}); nothing was kept", innermost(&e)),
            )
        })?;
        if let Ok(piece) = frame.into_data() {
            staged.write_all(&piece).map_err(file(out))?;
            bytes += piece.len() as u64;
            progress.inc(piece.len() as u64);
        }
    }
    progress.finish_and_clear();
    if bytes == 0 {
        return Err(failed(&url, "it sent nothing"));
    }
    staged.as_file().sync_all().map_err(file(out))?;
    staged.persist(out).map_err(|e| file(out)(e.error))?;
    let people = format!(
        "{}: {bytes} bytes, sealed; `sesemi keyservice restore` makes a state folder of it",
        out.display()
    );
    print(
        json,
        &serde_json::json!({"file": out, "bytes": bytes}),
        &people,
    );
    Ok(())
}

/// A bar on a terminal; nothing elsewhere.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `sesemi keyservice restore`.
///
/// # Errors
/// [`CliError`], with what the program said.
pub(super) async fn restore(
    from: &Path,
    state: &Path,
    bin_dir: Option<PathBuf>,
    json: bool,
) -> Result<(), CliError> {
    let program = binaries(bin_dir)?.join("sesemi-keyservice");
    let output = Command::new(&program)
        .arg("restore")
        .arg("--from")
        .arg(from)
        .arg("--state")
        .arg(state)
        .output()
        .await
        .map_err(file(&program))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        return Err(CliError::Input(format!(
            "the backup was not restored: {said}"
        )));
    }
    let people = format!(
        "{} is the state of the backup {}; start KeyService on it. Clients who saw more than the backup holds refuse it, by intention.",
        state.display(),
        from.display()
    );
    let value = serde_json::json!({"backup": from, "state": state});
    print(json, &value, &people);
    Ok(())
}

/// The operator's metrics, as text.
///
/// # Errors
/// [`CliError`].
pub(super) async fn metrics(admin: &str) -> Result<String, CliError> {
    let url = format!("{}/metrics", admin.trim_end_matches('/'));
    let body = Limited::new(get(&url).await?.into_body(), MAX_METRICS).collect();
    let body = timeout(IDLE, body)
        .await
        .map_err(|_| failed(&url, "it stopped sending"))?
        .map_err(|e| failed(&url, e))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// Of all metrics those about the state: how large it is, and whether it can be written.
pub(super) fn state_figures(metrics: &str) -> Vec<(String, String)> {
    let about = ["log", "state", "snapshot", "writable", "disk", "locked"];
    metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains('{'))
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| name.split('_').any(|word| about.contains(&word)))
        .filter(|(name, _)| !name.ends_with("_sum") && !name.ends_with("_count"))
        .map(|(name, value)| {
            let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect();
            (printable(name), printable(value.trim()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_metrics_those_about_the_state_are_shown() {
        let metrics = "# HELP sesemi_keyservice_log_entries Entries.\n\
            # TYPE sesemi_keyservice_log_entries gauge\n\
            sesemi_keyservice_log_entries 17\n\
            sesemi_keyservice_writable 1\n\
            sesemi_keyservice_channels 3\n\
            sesemi_keyservice_logins_total 3\n\
            sesemi_keyservice_releases_total{outcome=\"ok\"} 4\n\
            # EOF\n";
        let shown = state_figures(metrics);
        let expected = [
            ("sesemi_keyservice_log_entries", "17"),
            ("sesemi_keyservice_writable", "1"),
        ];
        assert_eq!(
            shown,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
