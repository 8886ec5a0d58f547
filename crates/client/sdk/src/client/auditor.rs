//! What auditors read: KeyService's log, with everything that concerns one principal, up to an end that the service signed.

use sesemi_protocol::PrincipalId;
use sesemi_protocol::audit::{AuditItem, extend};
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::receipt::{Head, Point};

use super::Client;
use crate::audit::Entry;
use crate::error::Error;

/// The end of a log as the service signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The signed bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub head: Head,
}

/// A walk along the log. What it gave is verified once it has come to its end, and not before.
#[derive(Debug)]
pub struct Audit {
    of: PrincipalId,
    at: Point,
    seen: Point,
    end: SignedHead,
}

impl Audit {
    /// Where the walk ends.
    #[must_use]
    pub fn end(&self) -> &SignedHead {
        &self.end
    }
}

impl Client {
    /// Begins a walk along the log, with what concerns `of`, from the entry after `from` on to the log's present end. For `of`
    /// itself and its auditors.
    ///
    /// # Errors
    /// [`Error::Stale`] if the service does not agree with what this client has seen.
    pub async fn audit(&mut self, of: PrincipalId, from: Point) -> Result<Audit, Error> {
        let seen = self.seen.point;
        let (end, _) = self.status().await?;
        Ok(Audit {
            of,
            at: from,
            seen,
            end,
        })
    }

    /// The next entries of the walk; none at its end. By then the chain from where the walk began to the signed end was
    /// computed here, through the point that this client had seen.
    ///
    /// # Errors
    /// [`Error::Stale`] if the chain does not lead through that point or to that end; [`Error::Refused`].
    pub async fn audit_page(&self, audit: &mut Audit) -> Result<Vec<Entry>, Error> {
        let end = audit.end.head.state.point;
        let not_on_chain = |point: Point| Error::Stale {
            service: self.seen.service,
            seen: point,
            why: "its entries do not lead there".into(),
        };
        if audit.at.sequence >= end.sequence {
            return if audit.at == end {
                Ok(Vec::new())
            } else {
                Err(not_on_chain(audit.at))
            };
        }
        let question = Question::Audit {
            of: audit.of,
            after: audit.at.sequence,
        };
        let QueryAnswer::Audit { from, items } = self.ask(question).await? else {
            return Err(Error::Protocol("another answer than entries of its log"));
        };
        if from != audit.at {
            return Err(not_on_chain(audit.at));
        }
        if items.is_empty() {
            return Err(Error::Protocol("no entries before the end of its log"));
        }
        let mut entries = Vec::new();
        for item in items {
            if audit.at.sequence == end.sequence {
                break;
            }
            audit.at = extend(&audit.at, &AuditItem::digest(&item));
            for known in [audit.seen, end] {
                if audit.at.sequence == known.sequence && audit.at != known {
                    return Err(not_on_chain(known));
                }
            }
            entries.push(Entry {
                point: audit.at,
                item,
            });
        }
        Ok(entries)
    }
}
