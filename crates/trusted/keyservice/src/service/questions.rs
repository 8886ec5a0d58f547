//! What principals ask: signed questions, answered from the state, from the log, or with a custodian's own share.

use std::sync::Arc;

use sesemi_protocol::audit::{self, AuditItem};
use sesemi_protocol::cose::CoseError;
use sesemi_protocol::query::{self, MAX_SKEW, Query, QueryAnswer, Question};
use sesemi_protocol::receipt::{Point, SignedError};
use sesemi_protocol::wire::ReplyBody;
use sesemi_protocol::{Digest, PrincipalId, Refusal, RefusalCode};

use super::pages::Lane;
use super::{CountsFor, KeyService, Witness, read, unreadable};
use crate::answers::{self, Asker};
use crate::log::LogError;
use crate::metrics::Outcome;

/// Length of a page of the log, in bytes: what is shown of the last entry may come on top.
const PAGE: usize = 24 * 1024;
/// Longest entry that is shown; of a longer one there is only the digest.
const MAX_SHOWN: usize = 24 * 1024;
/// Entries on a page, at most.
const MAX_ENTRIES: u64 = 1024;

impl KeyService {
    pub(super) async fn query(self: &Arc<Self>, signed: Vec<u8>) -> (ReplyBody, CountsFor) {
        let clock = self.clock.unix_seconds();
        let (answered, counts_for) = match self.admit_query(&signed, clock) {
            Ok((id, query)) => {
                let answered = self.answer_query(id, query, clock).await;
                (answered, CountsFor::Caller)
            }
            Err(refusal) => (Err(refusal), CountsFor::Address),
        };
        let outcome = Outcome::of(answered.as_ref().err().map(|refusal| refusal.code));
        self.metrics.queries.get_or_create(&outcome).inc();
        let reply = match answered {
            Ok(answer) => ReplyBody::Answer(Box::new(answer)),
            Err(refusal) => ReplyBody::Refused(refusal),
        };
        (reply, counts_for)
    }

    /// Whose question it is, if it is one for now and for this service, and its asker may ask. Only such a one takes from what the
    /// asker may ask: another service that it asked has its question too, but nobody has one to this service, which no log
    /// keeps.
    fn admit_query(&self, signed: &[u8], clock: u64) -> Result<(PrincipalId, Query), Refusal> {
        let (id, query) = self.authenticate_query(signed)?;
        if query.service != self.id() {
            return Err(RefusalCode::WrongService.into());
        }
        if clock.abs_diff(query.at) > MAX_SKEW {
            return Err(RefusalCode::ClockSkew.into());
        }
        self.within_limits(&id)?;
        Ok((id, query))
    }

    async fn answer_query(
        self: &Arc<Self>,
        id: PrincipalId,
        query: Query,
        clock: u64,
    ) -> Result<QueryAnswer, Refusal> {
        self.agree(Lane::Principal(id), Witness::Known, query.seen)
            .await?;
        let asker = Asker {
            id,
            now: read(&self.state).time(clock),
            lease_seconds: self.lease_seconds,
        };
        if let Some(answer) = answers::answer(&read(&self.state), asker, &query.question)? {
            return Ok(answer);
        }
        match query.question {
            Question::Share => self.share(&id),
            Question::Audit { of, after } => {
                answers::may_audit(&read(&self.state), asker, &of)?;
                let service = self.clone();
                // Reading a page unseals up to a thousand entries.
                let read = move || service.audit_page(&of, after);
                self.pages.read(Lane::Principal(id), read).await
            }
            _ => Err(RefusalCode::Internal.into()),
        }
    }

    fn authenticate_query(&self, signed: &[u8]) -> Result<(PrincipalId, Query), Refusal> {
        let refused = |error| match error {
            SignedError::Cose(CoseError::NotAuthentic) => RefusalCode::NotAuthentic.into(),
            error => Refusal::new(RefusalCode::Malformed, error),
        };
        let parsed = query::parse(signed).map_err(refused)?;
        let id = parsed.claimed_principal();
        let identity = read(&self.state)
            .principals()
            .get(&id)
            .map(|known| *known.identity())
            .ok_or(RefusalCode::UnknownPrincipal)?;
        Ok((id, parsed.verify(&identity).map_err(refused)?))
    }

    fn share(&self, custodian: &PrincipalId) -> Result<QueryAnswer, Refusal> {
        let share = read(&self.state)
            .governance()
            .share_of(self.id(), custodian)
            .ok_or(RefusalCode::NotPermitted)?;
        Ok(QueryAnswer::Share(share))
    }

    /// The entries after `after` as `of` may see them.
    fn audit_page(&self, of: &PrincipalId, after: u64) -> Result<QueryAnswer, Refusal> {
        let end = self.reader.point();
        if after > end.sequence {
            return Err(RefusalCode::NotFound.into());
        }
        if after == end.sequence {
            let items = Vec::new();
            return Ok(QueryAnswer::Audit { from: end, items });
        }
        let first = after.saturating_add(1);
        let last = after.saturating_add(MAX_ENTRIES).min(end.sequence);
        let mut page = Page {
            of,
            from: None,
            items: Vec::new(),
            used: 0,
        };
        match self.reader.scan(first, last, |entry| page.push(&entry)) {
            Ok(()) | Err(Stop::Full) => {}
            Err(Stop::Log(error)) => return Err(unreadable(&error)),
        }
        Ok(QueryAnswer::Audit {
            from: page.from.ok_or(RefusalCode::Internal)?,
            items: page.items,
        })
    }
}

/// Why a scan of the log ends early.
enum Stop {
    Full,
    Log(LogError),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// A page of the log under way.
struct Page<'a> {
    of: &'a PrincipalId,
    from: Option<Point>,
    items: Vec<AuditItem>,
    used: usize,
}

impl Page<'_> {
    fn push(&mut self, entry: &crate::log::Opened) -> Result<(), Stop> {
        if self.used >= PAGE {
            return Err(Stop::Full);
        }
        self.from.get_or_insert(Point {
            sequence: entry.sequence.saturating_sub(1),
            chain: entry.chain_before,
        });
        // An entry that cannot be read concerns nobody whom it could be shown to.
        let concerned = audit::decode(&entry.public)
            .ok()
            .and_then(|entry| entry.concerned().ok());
        let shown = concerned.is_some_and(|concerned| concerned.includes(self.of));
        let item = if shown && entry.public.len() <= MAX_SHOWN {
            AuditItem::Shown(entry.public.clone().into())
        } else {
            AuditItem::Hidden(Digest::of(&entry.public))
        };
        let length = match &item {
            AuditItem::Shown(public) => public.len(),
            AuditItem::Hidden(_) => 32,
        };
        self.used = self.used.saturating_add(length).saturating_add(8);
        self.items.push(item);
        Ok(())
    }
}
