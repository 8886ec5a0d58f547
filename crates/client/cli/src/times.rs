//! Moments as people write them, and as they are shown to people.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// This machine's time, in seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Reads a moment: `2027-01-31` (its first moment, UTC), RFC 3339, or from now `30d`, `12h`, `15m`, `90s`.
///
/// # Errors
/// A sentence for the command line.
pub fn moment(text: &str) -> Result<u64, String> {
    read(text, now())
}

fn read(text: &str, now: u64) -> Result<u64, String> {
    let wrong = || {
        "write a date (2027-01-31), a time (2027-01-31T12:00:00Z), or from now 30d, 12h, 15m or 90s"
            .to_owned()
    };
    if let Some((number, unit)) = relative(text) {
        return number
            .checked_mul(unit)
            .and_then(|seconds| now.checked_add(seconds))
            .filter(|at| rfc3339(*at).is_some())
            .ok_or_else(wrong);
    }
    let full = if text.len() == "2027-01-31".len() {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    let at = OffsetDateTime::parse(&full, &Rfc3339).map_err(|_| wrong())?;
    let at = u64::try_from(at.unix_timestamp()).map_err(|_| wrong())?;
    if at <= now {
        return Err("that has passed".into());
    }
    Ok(at)
}

/// The number and the seconds of its unit.
fn relative(text: &str) -> Option<(u64, u64)> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = text.get(..text.len().checked_sub(1)?)?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse().ok())?.map(|n| (n, unit))
}

fn rfc3339(at: u64) -> Option<String> {
    let at = i64::try_from(at).ok()?;
    OffsetDateTime::from_unix_timestamp(at)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

/// A moment for people: RFC 3339 in UTC.
#[must_use]
pub fn shown(at: u64) -> String {
    rfc3339(at).unwrap_or_else(|| format!("{at} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T00:00:00Z.
    const NOW: u64 = 1_795_392_000;

    #[test]
    fn dates_times_and_spans_are_read() {
        assert_eq!(shown(NOW), "2026-11-23T00:00:00Z");
        let read = |text| shown(read(text, NOW).unwrap());
        assert_eq!(read("2027-01-31"), "2027-01-31T00:00:00Z");
        assert_eq!(read("2027-01-31T12:30:00+01:00"), "2027-01-31T11:30:00Z");
        assert_eq!(read("30d"), "2026-12-23T00:00:00Z");
        assert_eq!(read("12h"), "2026-11-23T12:00:00Z");
        assert_eq!(read("90s"), "2026-11-23T00:01:30Z");
    }

    #[test]
    fn what_has_passed_or_makes_no_sense_is_refused() {
        for bad in [
            "",
            "d",
            "1",
            "-1d",
            "1.5h",
            "1w",
            "tomorrow",
            "2027-02-30",
            "2027-1-31",
            "2026-11-22",
            "1969-01-01",
            "99999999999999999999d",
            "18446744073709551615s",
            "ä",
        ] {
            assert!(read(bad, NOW).is_err(), "{bad}");
        }
    }
}
