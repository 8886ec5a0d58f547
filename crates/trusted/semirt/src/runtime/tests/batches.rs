//! Requests that are run together: whose may be, that each gets its own answer, and that nobody is another's trouble.

use std::num::NonZeroU32;
use std::sync::Mutex;

use sesemi_protocol::isolation::Isolation;
use sesemi_protocol::package::Form;

use super::*;
use crate::engine::{Execution, LoadedModel};

/// The real engine, which notes how many rows each run had.
#[derive(Clone)]
struct Noting {
    rten: Arc<Rten>,
    rows: Arc<Mutex<Vec<u64>>>,
    together: Together,
}

/// What runs of more than one row come to.
#[derive(Clone)]
enum Together {
    Rows,
    Fails(EngineError),
    /// One row for all.
    Mixes,
}

struct NotingModel(Box<dyn LoadedModel>, Noting);
struct NotingExecution(Box<dyn Execution>, Noting);

impl Engine for Noting {
    fn name(&self) -> &'static str {
        "noting"
    }

    fn wipes(&self) -> bool {
        true
    }

    fn takes(&self, form: &Form) -> bool {
        self.rten.takes(form)
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        let loaded = Engine::load(&*self.rten, manifest, form, parts)?;
        Ok(Box::new(NotingModel(loaded, self.clone())))
    }
}

impl LoadedModel for NotingModel {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        let execution = self.0.execution()?;
        Ok(Box::new(NotingExecution(execution, self.1.clone())))
    }
}

impl Execution for NotingExecution {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError> {
        let rows = inputs[0].shape[0];
        self.1.rows.lock().unwrap().push(rows);
        let mut outputs = self.0.run(inputs, wanted)?;
        match &self.1.together {
            Together::Fails(error) if rows > 1 => return Err(error.clone()),
            Together::Mixes if rows > 1 => {
                let row = outputs[0].data.len() / rows as usize;
                outputs[0].shape[0] = 1;
                outputs[0].data.truncate(row);
            }
            _ => {}
        }
        Ok(outputs)
    }
}

struct Batching {
    world: World,
    noting: Noting,
}

impl Batching {
    /// With a window of a second, on a clock that stands still while anything is done: a batch that is not full waits for all
    /// requests that a test sends.
    async fn new(level: IsolationLevel, most: Option<u32>) -> Self {
        Self::with(level, most, Together::Rows).await
    }

    async fn with(level: IsolationLevel, most: Option<u32>, together: Together) -> Self {
        let noting = Noting {
            rten: Arc::new(Rten::new(1)),
            rows: Arc::default(),
            together,
        };
        let manifest = manifest().with_batch(most.and_then(NonZeroU32::new));
        let engine = Arc::new(noting.clone());
        let window = Duration::from_secs(1);
        let world = world_that_batches(engine, 64 << 20, &manifest, window).await;
        world.service.set().isolation = Isolation::from(level);
        Self { world, noting }
    }

    /// Sends a request of each of these users with so many rows at once, and checks each answer against the model alone.
    async fn all_are_served(&self, requests: &[(u8, u64)]) {
        let tasks: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(number, (user, rows))| {
                let features = features(number, *rows);
                let (runtime, user) = (self.world.runtime.clone(), *user);
                let sent = sealed(user, &features);
                let expected = alone(&features);
                (
                    expected,
                    tokio::spawn(async move { send(&runtime, sent).await }),
                )
            })
            .collect();
        for (expected, task) in tasks {
            let answer = task.await.unwrap().unwrap();
            assert_eq!(answer.outcome.unwrap(), expected);
        }
    }

    /// How many rows each run had, since the last time.
    fn runs(&self) -> Vec<u64> {
        core::mem::take(&mut *self.noting.rows.lock().unwrap())
    }
}

fn features(number: usize, rows: u64) -> Tensor {
    let values = (0..rows * 30).map(|it| (it as usize * 7 % 31 + number * 3) as f32);
    let values: Vec<f32> = values.collect();
    Tensor::fp32("features", &[rows, 30], &values).unwrap()
}

fn sealed(user: u8, features: &Tensor) -> SealedRequest {
    sealed_for(
        ModelTarget::from(model(1)),
        user,
        &request_key(user),
        features,
        Point::START,
    )
}

fn alone(features: &Tensor) -> Vec<Tensor> {
    let manifest = manifest();
    let parts = vec![MODEL.to_vec()];
    let loaded = Engine::load(&Rten::new(1), &manifest, &manifest.forms[0], parts).unwrap();
    let mut execution = loaded.execution().unwrap();
    execution.run(&[features.view()], &[]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_user_are_run_together_and_each_gets_its_own_answer() {
    for level in [IsolationLevel::Shared, IsolationLevel::DedicatedUser] {
        let batching = Batching::new(level, Some(64)).await;
        batching
            .all_are_served(&[(1, 1), (1, 2), (1, 1), (1, 5)])
            .await;
        assert_eq!(batching.runs(), [9]);
        let metrics = batching.world.runtime.metrics();
        assert!(metrics.contains("sesemi_semirt_batches_total 1\n"));
        assert!(metrics.contains("sesemi_semirt_batched_total 4\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn users_meet_in_one_run_only_where_all_of_them_asked_for_it() {
    let shared = Batching::new(IsolationLevel::Shared, Some(64)).await;
    shared
        .all_are_served(&[(1, 1), (2, 2), (1, 1), (2, 2)])
        .await;
    let mut runs = shared.runs();
    runs.sort_unstable();
    assert_eq!(runs, [2, 4]);
    let batched = Batching::new(IsolationLevel::Batched, Some(64)).await;
    batched
        .all_are_served(&[(1, 1), (2, 2), (1, 1), (2, 2)])
        .await;
    assert_eq!(batched.runs(), [6]);
}

#[tokio::test(start_paused = true)]
async fn who_did_not_ask_for_it_is_run_apart_from_those_who_did() {
    let batching = Batching::new(IsolationLevel::Batched, Some(64)).await;
    batching.all_are_served(&[(1, 1), (3, 1)]).await;
    batching.world.service.set().isolation = Isolation::from(IsolationLevel::Shared);
    batching.all_are_served(&[(2, 1)]).await;
    batching.runs();
    batching
        .all_are_served(&[(1, 1), (2, 4), (3, 1), (2, 4)])
        .await;
    let mut runs = batching.runs();
    runs.sort_unstable();
    assert_eq!(runs, [2, 8]);
}

#[tokio::test(start_paused = true)]
async fn without_a_batch_in_the_manifest_or_in_sequential_mode_each_runs_alone() {
    let owner = Batching::new(IsolationLevel::Batched, None).await;
    owner.all_are_served(&[(1, 2), (1, 2), (2, 2)]).await;
    assert_eq!(owner.runs(), [2, 2, 2]);
    let sequential = Batching::new(IsolationLevel::Sequential, Some(64)).await;
    sequential.all_are_served(&[(1, 2), (1, 2)]).await;
    assert_eq!(sequential.runs(), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_never_larger_than_its_owner_says() {
    let batching = Batching::new(IsolationLevel::Shared, Some(4)).await;
    let requests: Vec<(u8, u64)> = (0..20).map(|it| (1, 1 + it % 3)).collect();
    batching.all_are_served(&requests).await;
    let runs = batching.runs();
    assert!(runs.iter().all(|rows| *rows <= 4), "{runs:?}");
    assert_eq!(runs.iter().sum::<u64>(), 39);
    assert!(runs.len() < 20, "{runs:?}");
    // One that is larger by itself is run all the same.
    batching.all_are_served(&[(1, 9)]).await;
    assert_eq!(batching.runs(), [9]);
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_a_batch_its_members_are_served_one_by_one_if_need_be() {
    for error in [
        EngineError::Input("a value of one of them".into()),
        EngineError::Run("too much at once".into()),
    ] {
        let batching =
            Batching::with(IsolationLevel::Batched, Some(64), Together::Fails(error)).await;
        batching.all_are_served(&[(1, 1), (2, 1), (3, 1)]).await;
        assert_eq!(batching.runs(), [3, 1, 1, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_whose_rows_turn_out_to_be_mixed_is_not_tried_again() {
    let batching = Batching::with(IsolationLevel::Shared, Some(64), Together::Mixes).await;
    batching.all_are_served(&[(1, 1), (1, 1)]).await;
    assert_eq!(batching.runs(), [2, 1, 1]);
    batching.all_are_served(&[(1, 1), (1, 1)]).await;
    assert_eq!(batching.runs(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_time_to_wait_for_others_does_not() {
    let batching = Batching::new(IsolationLevel::Shared, Some(64)).await;
    batching.all_are_served(&[(1, 1)]).await;
    let (sent, began) = (sealed(1, &features(0, 1)), Instant::now());
    let deadline = began + Duration::from_millis(900);
    let runtime = &batching.world.runtime;
    let answer = runtime.serve(sent.bytes, deadline, &mut untraced()).await;
    let answer = sent.pending.open(answer.unwrap()).unwrap();
    assert!(answer.outcome.is_ok());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn who_joined_a_batch_of_somebody_without_a_place_in_the_queue_gets_one_in_its_own_name() {
    let batching = Batching::new(IsolationLevel::Batched, Some(64)).await;
    batching.all_are_served(&[(1, 1), (2, 1)]).await;
    let runtime = &batching.world.runtime;
    let taken = batching.world.all_slots().await;
    let places: Vec<_> = (0..100)
        .map(|_| {
            let slots = runtime.slots.clone();
            let user = PrincipalId([1; 32]);
            tokio::spawn(async move { slots.turn(user, soon(), Duration::ZERO).await.map(drop) })
        })
        .collect();
    until(|| runtime.slots.waiting() == 100).await;
    let ask = |user, number| {
        let (runtime, sent) = (runtime.clone(), sealed(user, &features(number, 1)));
        tokio::spawn(async move { send(&runtime, sent).await.unwrap().outcome })
    };
    let began = ask(1, 1);
    until(|| runtime.occupancy.counts() == (1, 0)).await;
    let joined = ask(2, 2);
    let refused = began.await.unwrap().unwrap_err();
    assert_eq!(refused.code, RefusalCode::Busy);
    drop(taken);
    assert_eq!(joined.await.unwrap().unwrap(), alone(&features(2, 1)));
    for place in places {
        let _ = place.await.unwrap();
    }
}

#[tokio::test]
async fn who_leaves_a_batch_that_waits_for_a_slot_leaves_nothing_in_it() {
    let batching = Batching::new(IsolationLevel::Shared, Some(2)).await;
    batching.all_are_served(&[(1, 2)]).await;
    let runtime = &batching.world.runtime;
    let slots = batching.world.all_slots().await;
    let [leaves, stays] = [0, 1].map(|number| {
        let (runtime, sent) = (runtime.clone(), sealed(1, &features(number, 1)));
        tokio::spawn(async move { send(&runtime, sent).await })
    });
    until(|| runtime.slots.waiting() == 1).await;
    assert_eq!(runtime.occupancy.counts(), (2, 0));
    leaves.abort();
    until(|| runtime.occupancy.counts() == (1, 0)).await;
    drop(slots);
    assert!(stays.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_batch_is_missing_in_it_and_a_batch_that_all_left_is_not_run() {
    let batching = Batching::new(IsolationLevel::Shared, Some(64)).await;
    let leaving = |number| {
        let runtime = batching.world.runtime.clone();
        let sent = sealed(1, &features(number, 3));
        tokio::spawn(async move { send(&runtime, sent).await })
    };
    // So that a lease and the model are here.
    batching.all_are_served(&[(1, 1)]).await;
    batching.runs();
    let gone = leaving(0);
    // A tenth of the window, on the clock that stands still otherwise: it is in a batch by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(batching.world.runtime.occupancy.counts(), (1, 0));
    gone.abort();
    batching.all_are_served(&[(1, 2), (1, 1)]).await;
    assert_eq!(batching.runs(), [3]);

    let gone = leaving(1);
    // A tenth of the window, on the clock that stands still otherwise: it is in a batch by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(batching.world.runtime.occupancy.counts(), (1, 0));
    gone.abort();
    // The window and more, on the same clock.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(batching.runs(), [0; 0]);
    let (inside, _) = batching.world.runtime.occupancy.counts();
    assert_eq!((inside, batching.world.runtime.slots.taken()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_run_under_a_lease_that_ended_while_its_request_waited_for_others() {
    let batching = Batching::new(IsolationLevel::Shared, Some(64)).await;
    batching.all_are_served(&[(1, 1)]).await;
    let calls = batching.world.service.calls();
    tokio::time::sleep(Duration::from_secs(u64::from(LEASE)) - Duration::from_millis(1500)).await;
    // It is held when the request comes, and has ended when the window has.
    batching.all_are_served(&[(1, 1), (1, 1)]).await;
    assert_eq!(batching.world.service.calls(), calls + 1);
    assert_eq!(batching.runs(), [1, 2]);
}

#[tokio::test]
async fn inputs_that_do_not_fit_are_told_to_whom_they_belong() {
    let batching = Batching::new(IsolationLevel::Shared, Some(64)).await;
    let runtime = batching.world.runtime.clone();
    let wrong = tokio::spawn(async move { ask(&runtime, 1, &[1.0; 29]).await });
    batching.all_are_served(&[(1, 1), (1, 1)]).await;
    let refusal = wrong.await.unwrap().unwrap().outcome.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidInput);
}
