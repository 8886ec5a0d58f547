//! A batch in its slot: all requests as one run, or one after the other if that does not work.

use std::sync::Arc;

use sesemi_protocol::tensor::TensorView;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Member, Outcome, Ran};
use crate::engine::{EngineError, rows};
use crate::metrics::Metrics;
use crate::models::shelf::Held;
use crate::models::{Buffers, Model, Models};
use crate::runtime::plain::Plain;
use crate::runtime::under_way::StillWanted;
use crate::slots::Watchdog;

/// One batch on a slot's thread.
pub(super) struct Run {
    pub(super) members: Vec<Member>,
    pub(super) model: Arc<Held<Model>>,
    /// None after a run that failed: its buffers are in an unknown state.
    pub(super) execution: Option<Buffers>,
    pub(super) watchdog: Arc<Watchdog>,
    pub(super) models: Arc<Models>,
    pub(super) fresh: bool,
}

pub(super) type Told = Vec<(oneshot::Sender<Outcome>, Ran)>;

impl Run {
    /// Runs all members at once; one after the other if that does not work, so that nobody's values are another's trouble.
    pub(super) fn run(mut self, still_wanted: &StillWanted, metrics: &Metrics) -> Told {
        let began = Instant::now();
        let count = u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1);
        let outputs = match self.together() {
            Some(outputs) => {
                metrics.batched(count);
                let each = began.elapsed().checked_div(count);
                self.model.took(each.unwrap_or_default());
                outputs.into_iter().map(|it| (Ok(it), began)).collect()
            }
            None => self.one_by_one(),
        };
        if still_wanted.ended()
            && let Some(execution) = self.execution.take()
        {
            self.model.give_back(execution);
        }
        let fresh = self.fresh;
        let told = self.members.into_iter().zip(outputs);
        told.map(|(member, (outputs, began))| {
            let ran = Ran {
                outputs,
                began,
                fresh,
                _place: member.place,
            };
            (member.told, ran)
        })
        .collect()
    }

    fn together(&mut self) -> Option<Vec<Plain>> {
        if self.members.len() < 2 {
            return None;
        }
        let members = self.members.iter();
        let requests: Vec<Vec<TensorView<'_>>> = members
            .map(|member| member.opened.inputs().collect())
            .collect();
        // The copy of the inputs; what a run needs for itself is reserved with its buffers.
        let inputs = requests.iter().flatten().map(|input| input.data.len());
        let _room = self
            .models
            .room(u64::try_from(inputs.sum::<usize>()).ok()?)?;
        let inputs = Plain(rows::join(&requests));
        let wanted = self.members.first()?.opened.outputs().to_vec();
        let rows: Vec<u64> = self.members.iter().map(|member| member.rows).collect();
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
        let split = rows::split(&outputs.0, &rows);
        if split.is_none() {
            tracing::warn!("a model has a batch, and its outputs have no row for each");
        }
        Some(split?.into_iter().map(Plain).collect())
    }

    fn one_by_one(&mut self) -> Vec<(Result<Plain, EngineError>, Instant)> {
        let members = core::mem::take(&mut self.members);
        let ran = members.iter().map(|member| {
            let began = Instant::now();
            let outputs = if member.told.is_closed() {
                Err(EngineError::Run("nobody waits for it".into()))
            } else {
                self.alone(member)
            };
            if outputs.is_ok() {
                self.model.took(began.elapsed());
            }
            (outputs, began)
        });
        let ran = ran.collect();
        self.members = members;
        ran
    }

    fn alone(&mut self, member: &Member) -> Result<Plain, EngineError> {
        let mut execution = match self.execution.take() {
            Some(execution) => execution,
            None => self
                .model
                .new_execution()
                .map_err(|refusal| EngineError::Run(refusal.to_string()))?,
        };
        let _watched = self.watchdog.begin("run");
        let inputs: Vec<TensorView<'_>> = member.opened.inputs().collect();
        let outputs = execution.run(&inputs, member.opened.outputs());
        if matches!(outputs, Ok(_) | Err(EngineError::Input(_))) {
            self.execution = Some(execution);
        }
        outputs.map(Plain)
    }
}
