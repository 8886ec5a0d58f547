//! What the demo found: as JSON for machines, and readable in ten seconds for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// The demo's result.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    /// Which TEE it ran in. Always `simulated` here.
    pub tee: &'static str,
    /// Who took part.
    pub parties: Parties,
    /// Held-out rows that were sent, each sealed.
    pub rows: usize,
    /// Share of them whose predicted class is the true label.
    pub accuracy: f64,
    /// Whether every prediction equals that of the model run without protection.
    pub predictions_match_plaintext: bool,
    /// Largest difference between a probability and the plain model's.
    pub largest_difference: f32,
    /// Latency of the first request of all, in milliseconds.
    pub cold_ms: f64,
    /// Latency of the first request of a second user, in milliseconds.
    pub warm_ms: f64,
    /// Median latency of the requests after those, in milliseconds.
    pub hot_ms_p50: f64,
    /// The path that SeMIRT reported for the first, the second user's first, and the others.
    pub paths: [&'static str; 3],
    /// What the host saw of one request.
    pub host_saw: HostSaw,
    /// What was refused, and why.
    pub refused: Vec<Refused>,
}

/// The parties and the code they approved.
#[derive(Debug, Serialize)]
pub struct Parties {
    /// The model owner's id.
    pub owner: String,
    /// The users' ids.
    pub users: [String; 2],
    /// The model.
    pub model: String,
    /// KeyService's service id.
    pub keyservice: String,
    /// KeyService's code identity.
    pub keyservice_code: String,
    /// SeMIRT's code identity.
    pub semirt_code: String,
}

/// What the host saw of one request.
#[derive(Debug, Serialize)]
pub struct HostSaw {
    /// Bytes of the sealed request.
    pub request_bytes: usize,
    /// Bytes of the sealed response.
    pub response_bytes: usize,
    /// The last bytes of the request's ciphertext, in hexadecimal.
    pub ciphertext: String,
    /// Bytes of the encrypted model package.
    pub package_bytes: u64,
}

/// Something that was refused.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// What was tried.
    pub case: &'static str,
    /// The code of the refusal.
    pub code: String,
    /// The sentence that the caller reads.
    pub reason: String,
}

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const WARN: Style = AnsiColor::Yellow.on_default().bold();

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The first twelve characters of an id.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

impl DemoReport {
    /// For people; colours are stripped where there is no terminal.
    #[must_use]
    pub fn for_people(&self) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let p = &self.parties;
        writeln!(
            out,
            "{}",
            paint(
                BOLD,
                "Parties (what each approved is a hash of code, checked by attestation)"
            )
        )?;
        writeln!(
            out,
            "  owner       {}   model {}",
            short(&p.owner),
            p.model.rsplit('/').next().unwrap_or_default()
        )?;
        writeln!(
            out,
            "  user 1      {}   user 2 {}",
            short(&p.users[0]),
            short(&p.users[1])
        )?;
        writeln!(
            out,
            "  KeyService  {}   code {}",
            short(&p.keyservice),
            short(&p.keyservice_code)
        )?;
        writeln!(
            out,
            "  SeMIRT                     code {}",
            short(&p.semirt_code)
        )?;

        let matches = if self.predictions_match_plaintext {
            paint(GOOD, "equal to the plain model")
        } else {
            paint(WARN, "NOT equal to the plain model")
        };
        writeln!(out, "{}", paint(BOLD, "Predictions"))?;
        writeln!(
            out,
            "  {} sealed rows, {:.1} % right against the true labels, {matches} (largest difference {:.1e})",
            self.rows,
            self.accuracy * 100.0,
            self.largest_difference
        )?;

        writeln!(out, "{}", paint(BOLD, "Latency, as the user sees it"))?;
        let lines = [
            ("first request", self.cold_ms),
            ("first of user 2", self.warm_ms),
            ("median after that", self.hot_ms_p50),
        ];
        for ((what, ms), path) in lines.iter().zip(self.paths) {
            writeln!(out, "  {what:<18} {ms:>8.2} ms   SeMIRT says: {path}")?;
        }

        let saw = &self.host_saw;
        writeln!(out, "{}", paint(BOLD, "What the host saw of one request"))?;
        writeln!(
            out,
            "  {} bytes in, {} bytes out, ending in ciphertext {}",
            saw.request_bytes, saw.response_bytes, saw.ciphertext
        )?;
        writeln!(out, "  the model as {} encrypted bytes", saw.package_bytes)?;

        writeln!(out, "{}", paint(BOLD, "Refused"))?;
        for refused in &self.refused {
            writeln!(
                out,
                "  {:<26} {} ({})",
                refused.case, refused.reason, refused.code
            )?;
        }
        writeln!(
            out,
            "{}",
            paint(
                WARN,
                "The TEE was simulated: this run shows the protocol, it protects nothing from this machine's root."
            )
        )
    }
}
