//! Invocations: each is a task of its own, so that it goes on when its caller leaves or has waited long enough, and leaves a record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::conclude::conclude;
use super::entity::{Action, EntityName};
use super::failure::Failure;
use super::query::Query;
use super::record::Record;
use super::{Shared, answer, now_ms};
use crate::http::Answer;
use crate::{Activation, ActivationId, Form, Invocation, PlatformError};

/// How often an invocation follows an action that is replaced while it waits.
const REPLACEMENTS: usize = 8;

/// How a caller wants to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// How long it waits, if at all.
    wait: Option<Duration>,
    /// Whether it wants the result alone.
    result: bool,
}

impl Manner {
    pub(super) fn of(query: Query<'_>, longest: Duration) -> Result<Self, Failure> {
        let wait = query.timeout(longest)?;
        Ok(Self {
            wait: query.flag("blocking")?.then_some(wait),
            result: query.flag("result")?,
        })
    }
}

pub(super) async fn invoke(
    shared: &Arc<Shared>,
    name: &EntityName,
    manner: Manner,
    body: &[u8],
) -> Result<Answer, Failure> {
    let action = shared.action(name).ok_or(Failure::NoSuchAction)?;
    let value = Bytes::from(action.value(body)?);
    let most = shared.config.max_activations;
    let place = shared.room.clone().try_acquire_owned();
    let place = place.map_err(|_| Failure::TooManyActivations(most))?;
    let id = shared.platform.next_activation();
    let running = run(shared.clone(), action, id, value, place);
    let running = shared.activations.spawn(running);
    let Some(wait) = manner.wait else {
        return Ok(accepted(id));
    };
    let record = match timeout(wait, running).await {
        Ok(Ok(record)) => record,
        // It runs on; whoever asks for its record later will have it.
        Err(_) => return Ok(accepted(id)),
        Ok(Err(_)) => return Err(Failure::GivenUp),
    };
    let status = record.http_status();
    Ok(if manner.result {
        answer::about(id, status, record.result())
    } else {
        answer::about(id, status, &record.view())
    })
}

fn accepted(id: ActivationId) -> Answer {
    let body = json!({"activationId": id.to_string()});
    answer::about(id, StatusCode::ACCEPTED, &body)
}

/// Runs an activation to its end and keeps its record; `_place` is free again then.
async fn run(
    shared: Arc<Shared>,
    mut action: Arc<Action>,
    id: ActivationId,
    value: Bytes,
    _place: OwnedSemaphorePermit,
) -> Arc<Record> {
    let start = now_ms();
    let outcome = follow(&shared, &mut action, id, value).await;
    let most = shared.config.max_payload_bytes;
    let conclusion = conclude(outcome, action.timeout(), most);
    tracing::info!(activation = %id, action = action.name.as_str(), status = conclusion.status.as_str(), "activation ended");
    let namespace = &shared.config.namespace;
    let times = [start, now_ms()];
    let record = Arc::new(Record::new(id, &action, namespace, times, conclusion));
    shared.ledger.keep(record.clone());
    record
}

/// Invokes an action. If it is replaced before an instance has the invocation, what replaced it is invoked.
async fn follow(
    shared: &Shared,
    action: &mut Arc<Action>,
    id: ActivationId,
    value: Bytes,
) -> Result<Activation, PlatformError> {
    let mut replaced = 0;
    loop {
        let patience = shared.config.max_wait + action.timeout();
        let invocation = Invocation {
            body: value.clone(),
            form: Form::Whisk,
            deadline: Instant::now() + patience,
            trace: None,
        };
        let invoked = shared.platform.invoke_as(id, &action.deployed, invocation);
        let error = match invoked.await {
            Err(error @ PlatformError::UnknownAction { .. }) => error,
            other => return other,
        };
        match shared.action(&action.name) {
            Some(newer) if newer.deployed != action.deployed && replaced < REPLACEMENTS => {
                replaced += 1;
                *action = newer;
            }
            _ => return Err(error),
        }
    }
}
