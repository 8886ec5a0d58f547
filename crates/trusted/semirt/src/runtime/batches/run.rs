//! A batch in its slot: all requests as one run, or one after the other if that does not work.

use std::sync::{Arc, Weak};

use sesemi_protocol::tensor::TensorView;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::forming::{Interest, Member};
use super::{Outcome, Ran};
use crate::engine::{EngineError, Plain, rows};
use crate::metrics::Metrics;
use crate::models::budget::Reservation;
use crate::models::shelf::Held;
use crate::models::{Buffers, Model, Models};
use crate::runtime::under_way::StillWanted;
use crate::slots::Watchdog;
use crate::sync::lock;

/// What a text takes in an engine besides its bytes, in bytes: a string of C++.
const TEXT: u64 = 32;

/// One batch on a slot's thread.
pub(super) struct Run {
    pub(super) members: Vec<Member>,
    pub(super) interest: Weak<Interest>,
    /// None after a run that failed: its buffers are in an unknown state. Before the model: it runs it.
    pub(super) execution: Option<Buffers>,
    pub(super) model: Arc<Held<Model>>,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) models: Arc<Models>,
    pub(super) fresh: bool,
}

/// What is told once the slot is free.
pub(super) type Told = Vec<(oneshot::Sender<Outcome>, Outcome)>;

impl Run {
    /// Runs all members at once; one after the other if that does not work, so that nobody's values are another's trouble.
    pub(super) fn run(mut self, still_wanted: &StillWanted, metrics: &Metrics) -> Told {
        let began = Instant::now();
        let told = match self.together() {
            Some(outputs) => {
                let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
                metrics.batched(count);
                let each = began.elapsed().checked_div(count);
                self.model.took(each.unwrap_or_default());
                let members = core::mem::take(&mut self.members).into_iter();
                let told = members.zip(outputs);
                told.map(|(member, outputs)| self.ran(member, Ok(outputs), began))
                    .collect()
            }
            None => self.one_by_one(),
        };
        if still_wanted.ended()
            && let Some(execution) = self.execution.take()
        {
            self.model.give_back(execution);
        }
        told
    }

    fn ran(
        &self,
        member: Member,
        outputs: Result<Plain, EngineError>,
        began: Instant,
    ) -> (oneshot::Sender<Outcome>, Outcome) {
        let ran = Ran {
            outputs,
            began,
            fresh: self.fresh,
            _place: member.place.clone(),
        };
        (member.into_told(), Outcome::Ran(ran))
    }

    fn together(&mut self) -> Option<Vec<Plain>> {
        if self.members.len() < 2 {
            return None;
        }
        let members = self.members.iter();
        let requests: Vec<Vec<TensorView<'_>>> = members
            .map(|member| member.opened.inputs().collect())
            .collect();
        // The copies of inputs and outputs; what a run needs for itself is reserved with its buffers.
        let inputs = requests.iter().flatten().map(|input| input.data.len());
        let _inputs = self.room(inputs)?;
        let texts = self.members.iter().map(|member| member.size.texts);
        let texts = texts.fold(0, u64::saturating_add);
        let _texts = self.models.room(texts.saturating_mul(TEXT))?;
        let inputs = Plain(rows::join(&requests));
        let wanted = self.members.first()?.opened.outputs().to_vec();
        let rows: Vec<u64> = self.members.iter().map(|member| member.size.rows).collect();
        let outputs = {
            let _watched = self.watchdog.begin("run");
            let views: Vec<TensorView<'_>> = inputs.0.iter().map(|it| it.view()).collect();
            self.execution.as_mut()?.run(&views, &wanted)
        };
        let outputs = match outputs {
            Ok(outputs) => Plain(outputs),
            Err(error) => {
                if !matches!(error, EngineError::Input(_)) {
                    self.execution = None;
                }
                return None;
            }
        };
        let _outputs = self.room(outputs.0.iter().map(|output| output.data.len()))?;
        let split = rows::split(&outputs.0, &rows);
        if split.is_none() {
            tracing::warn!("a model has a batch, and its outputs have no row for each");
            self.model.has_no_rows();
        }
        Some(split?.into_iter().map(Plain).collect())
    }

    /// Memory for so many bytes, if it is free.
    fn room(&self, mut bytes: impl Iterator<Item = usize>) -> Option<Reservation> {
        let bytes = bytes.try_fold(0usize, |sum, it| sum.checked_add(it))?;
        self.models.room(u64::try_from(bytes).ok()?)
    }

    /// Each is told as soon as it was run, but for the last, whose slot is free first.
    fn one_by_one(&mut self) -> Told {
        let mut left = core::mem::take(&mut self.members).into_iter();
        while let Some(member) = left.next() {
            if member.told.is_closed() {
                continue;
            }
            if member.lease.has_ended() {
                let _ = member.into_told().send(Outcome::LeaseEnded);
                continue;
            }
            let began = Instant::now();
            let outputs = self.alone(&member);
            if outputs.is_ok() {
                self.model.took(began.elapsed());
            }
            let (told, ran) = self.ran(member, outputs, began);
            if left.len() == 0 {
                return vec![(told, ran)];
            }
            let _ = told.send(ran);
        }
        Told::new()
    }

    fn alone(&mut self, member: &Member) -> Result<Plain, EngineError> {
        let mut execution = match self.execution.take() {
            Some(execution) => execution,
            None => self.another()?,
        };
        let _watched = self.watchdog.begin("run");
        let inputs: Vec<TensorView<'_>> = member.opened.inputs().collect();
        let outputs = execution.run(&inputs, member.opened.outputs());
        if matches!(outputs, Ok(_) | Err(EngineError::Input(_))) {
            self.execution = Some(execution);
        }
        outputs.map(Plain)
    }

    /// Buffers in place of those that a failed run left, which are stopped in their place.
    fn another(&self) -> Result<Buffers, EngineError> {
        let nobody = || EngineError::Run("nobody waits for it".into());
        let interest = self.interest.upgrade().ok_or_else(nobody)?;
        let made = self.model.new_execution();
        let made = made.map_err(|refusal| EngineError::Run(refusal.to_string()))?;
        if let Some(under_way) = lock(&interest.under_way).as_mut() {
            under_way.stops(made.stopper());
        }
        Ok(made)
    }
}
