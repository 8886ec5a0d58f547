//! What was fetched, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use sesemi_attest::snp::{Product, TcbVersion};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::args::{DcapTee, PckAuthority};

/// Endorsements whose time ends within this are to be fetched again; Intel's last for 30 days, AMD's lists for six weeks.
const SOON: Duration = Duration::days(7);

/// For which platforms.
pub(super) enum Of {
    Dcap {
        tee: DcapTee,
        fmspc: String,
        ca: PckAuthority,
    },
    Snp {
        product: Product,
        /// The chip and the firmware whose certificate was fetched.
        vcek: Option<([u8; 64], TcbVersion)>,
    },
}

/// One set, as it says of itself. Nothing of it is verified yet.
pub(super) struct Fetched {
    of: Of,
    from: String,
    /// TCB evaluation data number, or the number of AMD's list.
    number: u64,
    issued: OffsetDateTime,
    /// What ends first, and when.
    first: &'static str,
    next_update: OffsetDateTime,
}

impl Fetched {
    /// `ends` says when each part is to be fetched again.
    pub(super) fn new<const N: usize>(
        of: Of,
        from: &str,
        number: u64,
        issued: OffsetDateTime,
        ends: [(&'static str, OffsetDateTime); N],
    ) -> Self {
        let (first, next_update) = ends
            .into_iter()
            .min_by_key(|(_, end)| *end)
            .unwrap_or(("nothing", issued));
        Self {
            of,
            from: from.to_owned(),
            number,
            issued,
            first,
            next_update,
        }
    }

    /// What whoever uses this should know.
    fn cautions(&self, now: OffsetDateTime) -> Vec<String> {
        let mut cautions = Vec::new();
        let (first, end) = (self.first, date(self.next_update));
        if self.next_update <= now {
            cautions.push(format!(
                "OUT OF DATE since {end} ({first}): verifiers refuse it; ask another service"
            ));
        } else if self.next_update - now <= SOON {
            cautions.push(format!(
                "{first} ends soon, on {end}: fetch again before that"
            ));
        }
        if self.issued > now {
            cautions.push("issued in the future: is the clock of this machine right?".to_owned());
        }
        cautions
    }
}

/// A file that was written.
pub(super) struct Written<'a> {
    pub(super) path: &'a Path,
    /// How many sets are in it now.
    pub(super) sets: usize,
    pub(super) fetched: &'a Fetched,
    pub(super) now: OffsetDateTime,
}

impl Written<'_> {
    pub(super) fn for_people(&self) -> String {
        let fetched = self.fetched;
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name:<18} {value}");
        };
        let numbered = match &fetched.of {
            Of::Dcap { tee, fmspc, ca } => {
                line("tee", tee.as_str());
                line("fmspc", fmspc);
                line("ca", ca.as_str());
                "evaluation number"
            }
            Of::Snp { product, vcek } => {
                line("tee", "snp");
                line("product", &product.as_str().to_ascii_lowercase());
                if let Some((chip, tcb)) = vcek {
                    line("chip", &hex::encode(chip));
                    line("certificate for", &tcb.to_string());
                }
                "list number"
            }
        };
        line("from", &fetched.from);
        line(numbered, &fetched.number.to_string());
        line("issued", &date(fetched.issued));
        let end = date(fetched.next_update);
        line("next update", &format!("{end} ({})", fetched.first));
        line(
            "checked",
            "it parses and says that it is for this platform; signatures are checked when evidence is verified with it",
        );
        for caution in fetched.cautions(self.now) {
            line("mind", &caution);
        }
        let sets = match self.sets {
            1 => "1 set".to_owned(),
            sets => format!("{sets} sets"),
        };
        let _ = write!(out, "{:<18} {} ({sets})", "written", self.path.display());
        out
    }

    pub(super) fn as_json(&self) -> String {
        let fetched = self.fetched;
        let mut value = match &fetched.of {
            Of::Dcap { tee, fmspc, ca } => json!({
                "tee": tee.as_str(),
                "fmspc": fmspc,
                "ca": ca.as_str(),
                "evaluation_number": fetched.number,
            }),
            Of::Snp { product, vcek } => json!({
                "tee": "snp",
                "product": product.as_str().to_ascii_lowercase(),
                "chip": vcek.map(|(chip, _)| hex::encode(chip)),
                "list_number": fetched.number,
            }),
        };
        let common = json!({
            "from": fetched.from,
            "issued": date(fetched.issued),
            "next_update": date(fetched.next_update),
            "ends_first": fetched.first,
            "mind": fetched.cautions(self.now),
            "file": self.path,
            "sets": self.sets,
        });
        if let (Some(value), serde_json::Value::Object(common)) = (value.as_object_mut(), common) {
            value.extend(common);
        }
        value.to_string()
    }
}

fn date(date: OffsetDateTime) -> String {
    // Only years beyond 9999 have none.
    date.format(&Rfc3339).unwrap_or_else(|_| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_first_counts_and_is_warned_of_in_time() {
        let issued = OffsetDateTime::UNIX_EPOCH;
        let at = |days| issued + Duration::days(days);
        let of = Of::Snp {
            product: Product::Milan,
            vcek: None,
        };
        let ends = [("late", at(40)), ("early", at(30)), ("later", at(50))];
        let fetched = Fetched::new(of, "http://a", 1, issued, ends);
        assert_eq!(fetched.first, "early");
        assert!(fetched.cautions(at(22)).is_empty());
        assert!(fetched.cautions(at(23))[0].contains("early ends soon"));
        assert!(fetched.cautions(at(30))[0].contains("OUT OF DATE"));
        assert!(fetched.cautions(at(-1))[0].contains("future"));
    }
}
