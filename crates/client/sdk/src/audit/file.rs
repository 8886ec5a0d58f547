//! The lines of an audit file, and writing them.

use std::io::Write;

use serde::{Deserialize, Serialize};
use sesemi_protocol::audit::AuditItem;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{Digest, PrincipalId, PublicIdentity, ServiceId};

use super::{AuditError, Entry, FORMAT, View, describe};
use crate::client::SignedHead;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderLine {
    pub(super) format: String,
    pub(super) service: String,
    pub(super) service_public_key: String,
    pub(super) of: String,
    pub(super) after_entry: u64,
    pub(super) after_chain: String,
}

/// The line of an entry. `at` and `what` are for people.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    pub(super) entry: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) shown: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) hidden: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) what: Option<serde_json::Value>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) signed_head: String,
    pub(super) entry: u64,
    pub(super) chain: String,
}

impl HeaderLine {
    pub(super) fn new(view: &View) -> Self {
        let key = PublicIdentity::from_key(view.service_key);
        Self {
            format: FORMAT.into(),
            service: key.service_id().to_string(),
            service_public_key: hex::encode(view.service_key),
            of: view.of.to_string(),
            after_entry: view.from.sequence,
            after_chain: view.from.chain.to_string(),
        }
    }

    pub(super) fn view(&self) -> Result<View, AuditError> {
        let wrong = |why: &str| AuditError::Line {
            line: 1,
            why: why.into(),
        };
        if self.format != FORMAT {
            return Err(wrong("its format is another than sesemi-audit-v1"));
        }
        let service: ServiceId = self.service.parse()?;
        // Any 32 bytes in hexadecimal digits: a digest has that form.
        let key: Digest = self
            .service_public_key
            .parse()
            .map_err(|_| wrong("service_public_key must be 64 hexadecimal digits"))?;
        if PublicIdentity::from_key(key.0).service_id() != service {
            return Err(AuditError::Key(service));
        }
        let from = Point {
            sequence: self.after_entry,
            chain: self.after_chain.parse()?,
        };
        if from.sequence == 0 && from != Point::START {
            return Err(wrong("a log begins with a chain of zeros"));
        }
        let of: PrincipalId = self.of.parse()?;
        Ok(View {
            service_key: key.0,
            of,
            from,
        })
    }
}

impl EntryLine {
    fn new(entry: &Entry) -> Self {
        let described = describe(&entry.item);
        let (shown, hidden) = match &entry.item {
            AuditItem::Shown(public) => (Some(hex::encode(public.as_slice())), None),
            AuditItem::Hidden(digest) => (None, Some(digest.to_string())),
        };
        Self {
            entry: entry.point.sequence,
            shown,
            hidden,
            at: described.as_ref().map(|described| described.at),
            what: described.map(|described| described.to_json()),
        }
    }

    /// Whether what the line says for people, if anything, is what the item says.
    pub(super) fn is_worded_as(&self, item: &AuditItem) -> bool {
        if self.at.is_none() && self.what.is_none() {
            return true;
        }
        let described = describe(item);
        let at = described.as_ref().map(|described| described.at);
        let what = described.map(|described| described.to_json());
        (self.at.is_none() || self.at == at) && (self.what.is_none() || self.what == what)
    }

    pub(super) fn item(&self, line: u64) -> Result<AuditItem, AuditError> {
        let wrong = |why: &str| AuditError::Line {
            line,
            why: why.into(),
        };
        match (&self.shown, &self.hidden) {
            (Some(shown), None) => {
                let public =
                    hex::decode(shown).map_err(|_| wrong("shown must be hexadecimal digits"))?;
                Ok(AuditItem::Shown(public.into()))
            }
            (None, Some(digest)) => Ok(AuditItem::Hidden(digest.parse()?)),
            _ => Err(wrong("an entry is either shown or hidden")),
        }
    }
}

/// Writes an audit file, line by line.
#[derive(Debug)]
pub struct AuditWriter<W>(W);

impl<W: Write> AuditWriter<W> {
    /// Writes the first line.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn new(out: W, view: &View) -> Result<Self, AuditError> {
        let mut writer = Self(out);
        writer.line(&HeaderLine::new(view))?;
        Ok(writer)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn entry(&mut self, entry: &Entry) -> Result<(), AuditError> {
        self.line(&EntryLine::new(entry))
    }

    /// Writes the last line, and gives back what it wrote to.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn finish(mut self, end: &SignedHead) -> Result<W, AuditError> {
        self.line(&EndLine {
            signed_head: hex::encode(&end.bytes),
            entry: end.head.state.point.sequence,
            chain: end.head.state.point.chain.to_string(),
        })?;
        self.0.flush()?;
        Ok(self.0)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), AuditError> {
        serde_json::to_writer(&mut self.0, line).map_err(std::io::Error::from)?;
        Ok(self.0.write_all(b"\n")?)
    }
}
