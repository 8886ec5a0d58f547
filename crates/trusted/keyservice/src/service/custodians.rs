//! Naming the custodians, the one command that changes the key which seals everything: a step of the writer apart from all others,
//! alone in its batch.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use sesemi_protocol::command::Action;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{Refusal, RefusalCode, SecretKey};

use super::read;
use super::writer::{Denied, Effect, Submission, Writer};
use crate::log::snapshot::Snapshots;
use crate::start::SNAPSHOTS;
use crate::state::Secret;
use crate::unlock::{Scheme, Share, ShareError, UnlockError, split};

/// Entries that a log has at most when its custodians are named: it is sealed anew then.
const MAX_YOUNG: u64 = 10_000;

impl Writer {
    /// Names the custodians: makes a new state key, wraps it for them, and seals the whole young log anew under it. What they
    /// recover is this key and no other; a copy of the service from before, in which the host might name custodians of its own, has
    /// another one.
    pub(super) fn name_custodians(&mut self, mut submission: Submission, at: u64) {
        let named = self.try_name_custodians(&mut submission, at);
        match named {
            Ok(point) => {
                let answer = Effect::Command(Box::new(submission));
                self.carry_out(vec![answer], &[point], at);
            }
            Err(denied) => drop(submission.answer.send(Err(denied))),
        }
    }

    fn try_name_custodians(
        &mut self,
        submission: &mut Submission,
        at: u64,
    ) -> Result<Point, Denied> {
        // Before anything is made: whether it is allowed.
        self.prepare(submission, at)?;
        let Action::NameCustodians {
            custodians,
            threshold,
        } = &submission.authentic.command.action
        else {
            return Err(Refusal::from(RefusalCode::Internal).into());
        };
        if self.log.point().sequence > MAX_YOUNG {
            return Err(Refusal::from(RefusalCode::TooMany).into());
        }
        let fault = |error: &dyn core::fmt::Display| {
            tracing::error!(%error, "custodians could not be named");
            Refusal::from(RefusalCode::Internal)
        };
        let (count, threshold) = (custodians.len(), *threshold);
        let shares = self.shares(count, threshold).map_err(|e| fault(&e))?;
        let key = SecretKey::generate(&*self.entropy).map_err(|e| fault(&e))?;
        self.keep_next(&shares, &key).map_err(|e| fault(&e))?;
        let values = shares.iter().map(|share| share.value().clone());
        submission.authentic.secret = Secret::Shares(values.collect());
        let draft = self.prepare(submission, at)?;
        let point = self
            .log
            .rekey(&key, &draft, &*self.entropy, Instant::now())
            .map_err(|e| fault(&e))?;
        self.use_key(key);
        Ok(point)
    }

    fn shares(&self, custodians: usize, threshold: u8) -> Result<Vec<Share>, ShareError> {
        let count = u8::try_from(custodians).unwrap_or(u8::MAX);
        let scheme = Scheme::new(threshold, count)?;
        let service = read(&self.state).service();
        let key = SecretKey::generate(&*self.entropy)?;
        split(&key, service, scheme, &*self.entropy)
    }

    /// Keeps the next state key for the custodians, and for this code beside the present one. Should the command fail after
    /// all, it opens nothing, and is replaced when custodians are named again.
    fn keep_next(&self, shares: &[Share], key: &SecretKey) -> Result<(), UnlockError> {
        let unlock = self.setup.unlock();
        unlock.write_recovery(shares, key, &*self.entropy)?;
        if let Some(sealing_key) = &self.setup.sealing_key {
            let service = read(&self.state).service();
            let code = self.setup.code;
            unlock.write_next_tee(service, code, sealing_key, key, &*self.entropy)?;
        }
        Ok(())
    }

    /// Everything is sealed under `key` from now on. What fails here is mended by the next start.
    fn use_key(&mut self, key: SecretKey) {
        let unlock = self.setup.unlock();
        let sealing = self.setup.sealing_key.is_some();
        if sealing && let Err(error) = unlock.promote_next(self.setup.code) {
            tracing::error!(%error, "the next state key is still beside the present one");
        }
        match Snapshots::new(self.setup.folder.join(SNAPSHOTS), &key) {
            Ok(folder) => self.snapshot_folder = Arc::new(folder),
            Err(error) => tracing::error!(%error, "snapshots are of no use until a restart"),
        }
        *self
            .state_key
            .write()
            .unwrap_or_else(PoisonError::into_inner) = key;
    }
}

pub(super) fn names_custodians(submission: &Submission) -> bool {
    let action = &submission.authentic.command.action;
    matches!(action, Action::NameCustodians { .. })
}
