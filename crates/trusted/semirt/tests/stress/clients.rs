//! Clients that know what the right answer is, and some of which leave before they have it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sesemi_protocol::envelope::{RequestContent, Route, seal_request};
use sesemi_protocol::id::ModelTarget;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::tensor::Tensor;
use sesemi_protocol::{RefusalCode, RequestId, SystemEntropy};
use sesemi_semirt::runtime::Runtime;
use sesemi_traces::{Kind, Span};
use tokio::time::Instant;

use crate::faults::{Chance, SERVICE};
use crate::models::{COLUMNS, MODELS, ROWS, USERS, expected, model, request_key, user};

/// Errors that the faults may cause, and no others.
const CLEAN: [RefusalCode; 7] = [
    RefusalCode::Busy,
    RefusalCode::DeadlineExceeded,
    RefusalCode::EngineFailed,
    RefusalCode::Internal,
    RefusalCode::KeyServiceUnavailable,
    RefusalCode::ModelUnavailable,
    RefusalCode::NotGranted,
];

/// Those that must have been seen: faults of the engine, and of the store.
const MET: [RefusalCode; 2] = [RefusalCode::EngineFailed, RefusalCode::ModelUnavailable];

/// Milliseconds that are enough for whatever goes well.
pub(crate) const PATIENT: u64 = 20_000;
/// From this user on, each must be kept apart from all others.
pub(crate) const APART: usize = USERS - 2;

/// Clients share the users, but each of those who must be kept apart has one: they empty the enclave whenever they come.
pub(crate) fn user_of(client: usize) -> usize {
    if client < USERS {
        client
    } else {
        client % APART
    }
}

/// What became of all requests.
#[derive(Default)]
pub(crate) struct Tally {
    /// Right answers by path.
    right: Mutex<BTreeMap<&'static str, u64>>,
    /// Right answers by user.
    users: Mutex<BTreeMap<usize, u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    left: Mutex<u64>,
}

impl Tally {
    pub(crate) fn print(&self, memory: u64, budget: u64) {
        println!(
            "right: {:?}; refused: {:?}; left: {}; memory: {} MiB of {} MiB",
            self.right.lock().unwrap(),
            self.refused.lock().unwrap(),
            self.left.lock().unwrap(),
            memory >> 20,
            budget >> 20,
        );
    }

    /// Whether every user was served, and requests met faults of each kind.
    pub(crate) fn is_complete(&self) -> bool {
        let refused = self.refused.lock().unwrap();
        self.users.lock().unwrap().len() == USERS
            && MET.iter().all(|code| refused.contains_key(code.as_str()))
    }

    /// Every user was served, on every path, and some requests met faults.
    pub(crate) fn check(&self) {
        assert_eq!(self.users.lock().unwrap().len(), USERS);
        let right = self.right.lock().unwrap();
        assert!(right.contains_key("hot") && right.contains_key("warm"));
        let refused = self.refused.lock().unwrap();
        for code in MET {
            assert!(refused.contains_key(code.as_str()), "{refused:?}");
        }
        assert!(*self.left.lock().unwrap() > 0);
    }
}

pub(crate) struct Client {
    user: usize,
    runtime: Arc<Runtime>,
    tally: Arc<Tally>,
    chance: Chance,
}

impl Client {
    pub(crate) fn new(number: usize, runtime: Arc<Runtime>, tally: Arc<Tally>) -> Self {
        let always = Arc::new(AtomicBool::new(true));
        Self {
            user: user_of(number),
            runtime,
            tally,
            chance: Chance::new(1000 + number as u64, always),
        }
    }

    pub(crate) async fn go_on_until(self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::SeqCst) {
            // Some models are asked for more than others.
            let model = self.chance.below(self.chance.below(MODELS as u64) + 1) as usize;
            let time = if self.chance.of(5) { 20 } else { PATIENT };
            if self.chance.of(3) {
                let patience = Duration::from_millis(self.chance.below(30));
                let left = tokio::time::timeout(patience, self.ask_once(model, time)).await;
                if left.is_err() {
                    *self.tally.left.lock().unwrap() += 1;
                }
            } else if let Err(code) = self.ask_once(model, time).await {
                assert!(CLEAN.contains(&code), "{code:?}");
                *self
                    .tally
                    .refused
                    .lock()
                    .unwrap()
                    .entry(code.as_str())
                    .or_default() += 1;
            }
            // Those who must be kept apart from all others would have the enclave to themselves.
            let pause = if self.user >= APART { 4000 } else { 10 };
            tokio::time::sleep(Duration::from_millis(self.chance.below(pause))).await;
        }
    }

    /// One request, with so many milliseconds of time, whose answer is checked.
    pub(crate) async fn ask_once(&self, number: usize, patience: u64) -> Result<(), RefusalCode> {
        let values: Vec<f32> = (0..ROWS)
            .map(|_| self.chance.below(9) as f32 - 4.0)
            .collect();
        let input = Tensor::fp32("x", &[1, ROWS as u64], &values).unwrap();
        let route = Route {
            user: user(self.user),
            model: ModelTarget::from(model(number)),
            request: RequestId(sesemi_protocol::entropy::random(&SystemEntropy::new()).unwrap()),
            key: RequestKeyName::model(1),
        };
        let content = RequestContent {
            inputs: &[input.view()],
            outputs: &[],
            seen: StatePoint {
                service: SERVICE,
                point: Point::START,
            },
        };
        let key = request_key(self.user);
        let sent = seal_request(&key, route, &content, &SystemEntropy::new()).unwrap();
        let deadline = Instant::now() + Duration::from_millis(patience);
        let mut span = Span::root("stress", Kind::Client);
        let answer = self.runtime.serve(sent.bytes, deadline, &mut span).await;
        let answer = answer.map_err(|refusal| refusal.code)?;
        // It opens for this user and this request alone.
        let answer = sent.pending.open(answer).unwrap();
        let outputs = answer.outcome.map_err(|refusal| refusal.code)?;
        self.check(number, &values, &outputs);
        *self
            .tally
            .right
            .lock()
            .unwrap()
            .entry(answer.report.path.as_str())
            .or_default() += 1;
        *self
            .tally
            .users
            .lock()
            .unwrap()
            .entry(self.user)
            .or_default() += 1;
        Ok(())
    }

    fn check(&self, number: usize, input: &[f32], outputs: &[Tensor]) {
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].shape, [1, COLUMNS as u64]);
        let values = outputs[0].to_fp32().unwrap();
        for _ in 0..8 {
            let column = self.chance.below(COLUMNS as u64) as usize;
            assert_eq!(values[column], expected(number, input, column));
        }
    }
}
