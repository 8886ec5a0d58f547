//! The query of a request: few parameters, each known by name and read once. Others are ignored, as OpenWhisk does.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::failure::Failure;

/// The part of an address after its `?`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(&'a str);

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) skip: usize,
}

impl Page {
    /// Most of a list, which 0 stands for as well.
    const MOST: usize = 200;
    const DEFAULT: usize = 30;

    /// The part of `all`.
    pub(super) fn of<T>(self, all: impl Iterator<Item = T>) -> Vec<T> {
        all.skip(self.skip).take(self.limit).collect()
    }
}

impl<'a> Query<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Self {
        Self(query.unwrap_or_default())
    }

    /// The first value of this name.
    pub(super) fn text(self, name: &str) -> Result<Option<String>, Failure> {
        let pairs = self.0.split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let Some((_, value)) = pairs.find(|(key, _)| *key == name) else {
            return Ok(None);
        };
        let value = value.replace('+', " ");
        let decoded = percent_decode_str(&value).decode_utf8();
        let decoded = decoded.map_err(|_| bad(name, "percent-encoded UTF-8"))?;
        Ok(Some(decoded.into_owned()))
    }

    pub(super) fn flag(self, name: &str) -> Result<bool, Failure> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(name, "true or false")),
        }
    }

    pub(super) fn number(self, name: &str) -> Result<Option<u64>, Failure> {
        let text = self.text(name)?;
        text.map(|text| {
            let digits = text.bytes().all(|c| c.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.ok_or_else(|| bad(name, "a whole number"))
        })
        .transpose()
    }

    /// How long the caller waits, `most` if it says nothing.
    pub(super) fn timeout(self, most: Duration) -> Result<Duration, Failure> {
        match self.number("timeout")?.map(Duration::from_millis) {
            None => Ok(most),
            Some(wait) if !wait.is_zero() && wait <= most => Ok(wait),
            Some(_) => {
                let range = format!("1 to {} milliseconds", most.as_millis());
                Err(bad("timeout", &range))
            }
        }
    }

    pub(super) fn page(self) -> Result<Page, Failure> {
        let count = |name: &str| -> Result<Option<usize>, Failure> {
            let number = self.number(name)?;
            Ok(number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        let limit = match count("limit")? {
            None => Page::DEFAULT,
            Some(0) => Page::MOST,
            Some(limit) if limit <= Page::MOST => limit,
            Some(_) => return Err(bad("limit", &format!("0 to {}", Page::MOST))),
        };
        let skip = count("skip")?.unwrap_or(0);
        Ok(Page { limit, skip })
    }
}

fn bad(name: &str, wanted: &str) -> Failure {
    Failure::BadRequest(format!("the parameter {name} must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query<'_> {
        Query::new(Some(text))
    }

    #[test]
    fn parameters_are_found_by_their_whole_name_and_decoded() {
        let it = query("xname=1&name=a%20b+c&blocking=true");
        assert_eq!(it.text("name").unwrap().as_deref(), Some("a b c"));
        assert_eq!(it.text("nam").unwrap(), None);
        assert!(it.flag("blocking").unwrap() && !it.flag("result").unwrap());
        assert!(Query::new(None).text("name").unwrap().is_none());
        assert!(query("name=%ff").text("name").is_err());
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        assert!(query("blocking=yes").flag("blocking").is_err());
        assert!(query("blocking").flag("blocking").is_err());
        for bad in ["since=", "since=-1", "since=+1", "since=1e3", "since=x"] {
            assert!(query(bad).number("since").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_30_entries_unless_it_says_otherwise_and_200_at_most() {
        let page = |text| query(text).page().ok().map(|it| (it.limit, it.skip));
        assert_eq!(page(""), Some((30, 0)));
        assert_eq!(page("limit=0&skip=5"), Some((200, 5)));
        assert_eq!(page("limit=200"), Some((200, 0)));
        assert_eq!(page("limit=201"), None);
        assert_eq!(query("limit=2&skip=1").page().unwrap().of(0..9), [1, 2]);
    }

    #[test]
    fn a_caller_waits_as_long_as_it_says_but_not_longer_than_allowed() {
        let most = Duration::from_secs(60);
        let wait = |text| query(text).timeout(most).ok();
        assert_eq!(wait(""), Some(most));
        assert_eq!(wait("timeout=1"), Some(Duration::from_millis(1)));
        assert_eq!(wait("timeout=60000"), Some(most));
        assert_eq!((wait("timeout=0"), wait("timeout=60001")), (None, None));
    }
}
