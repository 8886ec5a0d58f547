//! What a lease demands: whose requests may be inside together, what stays, and when answers leave.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use sesemi_protocol::isolation::Isolation;
use sesemi_protocol::package::Form;

use super::*;
use crate::engine::{Execution, LoadedModel};

async fn demanding(level: IsolationLevel, quantum_ms: u32) -> World {
    let world = world().await;
    world.service.set().isolation = Isolation::new(level, quantum_ms).unwrap();
    world
}

async fn served(world: &World, user: u8) -> Path {
    let answer = ask(&world.runtime, user, &[1.0; 30]).await.unwrap();
    assert!(answer.outcome.is_ok());
    answer.report.path
}

fn route(user: u8) -> Route {
    Route {
        user: PrincipalId([user; 32]),
        model: ModelTarget::from(model(1)),
        request: RequestId([0; 16]),
        key: RequestKeyName::model(1),
    }
}

#[tokio::test]
async fn a_dedicated_enclave_keeps_one_users_keys_and_no_others() {
    let world = demanding(IsolationLevel::DedicatedUser, 0).await;
    let keys = world.runtime.keys();
    served(&world, 1).await;
    assert_eq!(served(&world, 1).await, Path::Hot);
    assert!(keys.held(&route(1)).is_some());
    assert_eq!(served(&world, 2).await, Path::Warm);
    assert!(keys.held(&route(1)).is_none(), "cleared before user 2");
    assert!(keys.held(&route(2)).is_some());
    assert_eq!(served(&world, 1).await, Path::Warm);
}

#[tokio::test]
async fn clearing_drops_the_buffers_of_executions() {
    let world = demanding(IsolationLevel::DedicatedUser, 0).await;
    // Both levels are known then, so that nobody comes in twice.
    served(&world, 2).await;
    served(&world, 1).await;
    let model = world.runtime.models.held(&model(1)).unwrap();
    let idle = model.idle_execution().unwrap();
    model.give_back(idle);
    let slots = world.all_slots().await;
    let runtime = world.runtime.clone();
    let next = tokio::spawn(async move { ask(&runtime, 2, &[1.0; 30]).await });
    until(|| world.runtime.slots.waiting() == 1).await;
    assert!(model.idle_execution().is_none());
    drop(slots);
    assert!(next.await.unwrap().is_ok());
}

/// What was told to wipe, and whether keys and buffers were still there then.
static WIPES: Mutex<Vec<(bool, bool)>> = Mutex::new(Vec::new());

#[tokio::test]
async fn what_the_cleared_leaves_is_wiped_as_it_goes() {
    let world = demanding(IsolationLevel::DedicatedUser, 0).await;
    served(&world, 1).await;
    let (keys, models) = (world.runtime.keys.clone(), world.runtime.models.clone());
    let clear = {
        let (keys, models) = (keys.clone(), models.clone());
        clearing(keys.clone(), models.clone(), move |on| {
            let model = models.held(&model(1)).unwrap();
            let idle = model.idle_execution();
            let there = idle.is_some() && keys.held(&route(1)).is_some();
            idle.into_iter().for_each(|idle| model.give_back(idle));
            WIPES.lock().unwrap().push((on, there));
        })
    };
    clear(true);
    clear(false);
    assert_eq!(*WIPES.lock().unwrap(), [(true, true), (false, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_client_left_stays_inside_until_its_keys_have_come() {
    let world = demanding(IsolationLevel::DedicatedUser, 0).await;
    served(&world, 1).await;
    world.runtime.keys().forget_all();
    world.service.set().delay = Duration::from_secs(3);
    let runtime = world.runtime.clone();
    let leaves = tokio::spawn(async move { ask(&runtime, 1, &[1.0; 30]).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(world.runtime.occupancy.counts(), (1, 0));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.runtime.occupancy.counts(), (0, 0));
}

#[tokio::test]
async fn another_user_waits_outside_with_its_ciphertext_until_a_dedicated_enclave_is_free() {
    let world = demanding(IsolationLevel::DedicatedUser, 0).await;
    served(&world, 1).await;
    served(&world, 2).await;
    let slots = world.all_slots().await;
    let ask_of = |user: u8| {
        let runtime = world.runtime.clone();
        tokio::spawn(async move { ask(&runtime, user, &[1.0; 30]).await.unwrap() })
    };
    let first = ask_of(1);
    until(|| world.runtime.slots.waiting() == 1).await;
    let second = ask_of(2);
    until(|| world.runtime.occupancy.counts() == (1, 1)).await;
    assert!(world.runtime.keys().held(&route(2)).is_none());
    drop(slots);
    assert!(first.await.unwrap().outcome.is_ok());
    assert!(second.await.unwrap().outcome.is_ok());
    assert!(world.runtime.keys().held(&route(1)).is_none());
}

#[tokio::test]
async fn a_sequential_request_asks_for_its_keys_each_time_and_leaves_nothing() {
    let world = demanding(IsolationLevel::Sequential, 0).await;
    // The first release is what says that the request must be alone.
    assert_eq!(served(&world, 1).await, Path::Cold);
    assert_eq!(world.service.calls(), 2);
    for calls in 3..6 {
        assert_eq!(served(&world, 1).await, Path::Warm);
        assert_eq!(world.service.calls(), calls);
        assert!(world.runtime.keys().held(&route(1)).is_none());
        let model = world.runtime.models.held(&model(1)).unwrap();
        assert!(model.idle_execution().is_none());
    }
}

#[tokio::test]
async fn what_is_demanded_more_strictly_than_before_is_done_from_the_next_lease_on() {
    let world = demanding(IsolationLevel::Shared, 0).await;
    served(&world, 1).await;
    assert_eq!(served(&world, 1).await, Path::Hot);
    world.service.set().isolation = Isolation::new(IsolationLevel::Sequential, 0).unwrap();
    let seen = world.service.append();
    // It came in among others, and is not run among them.
    let sent = request(1, &request_key(1), &[1.0; 30], seen);
    let refused = send(&world.runtime, sent).await.unwrap().outcome;
    assert_eq!(refused.unwrap_err().code, RefusalCode::Busy);
    let sent = request(1, &request_key(1), &[1.0; 30], seen);
    assert!(send(&world.runtime, sent).await.unwrap().outcome.is_ok());
    assert!(world.runtime.keys().held(&route(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn answers_leave_at_multiples_of_the_quantum_whatever_they_say() {
    let world = demanding(IsolationLevel::Shared, 100).await;
    world.service.set().delay = Duration::from_millis(130);
    for (features, waits) in [(30, 200), (30, 100), (29, 100)] {
        let before = Instant::now();
        let answer = ask(&world.runtime, 1, &vec![1.0; features]).await.unwrap();
        assert_eq!(answer.outcome.is_ok(), features == 30);
        assert_eq!(before.elapsed().as_millis(), waits);
    }
    // The enclave is free in the meantime.
    let runtime = world.runtime.clone();
    let under_way = tokio::spawn(async move { ask(&runtime, 1, &[1.0; 30]).await });
    // Half of the quantum, on the clock that stands still otherwise.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.runtime.occupancy.counts(), (0, 0));
    assert!(!under_way.is_finished());
    assert!(under_way.await.unwrap().is_ok());
}

/// An engine whose runs go on until they are let go.
struct Held {
    inner: Rten,
    wipes: bool,
    begun: Sender<()>,
    let_go: Arc<Mutex<Receiver<()>>>,
}

struct HeldModel {
    inner: Box<dyn LoadedModel>,
    begun: Sender<()>,
    let_go: Arc<Mutex<Receiver<()>>>,
}

struct HeldExecution {
    inner: Box<dyn Execution>,
    begun: Sender<()>,
    let_go: Arc<Mutex<Receiver<()>>>,
}

impl Engine for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn wipes(&self) -> bool {
        self.wipes
    }

    fn takes(&self, form: &Form) -> bool {
        self.inner.takes(form)
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        Ok(Box::new(HeldModel {
            inner: self.inner.load(manifest, form, parts)?,
            begun: self.begun.clone(),
            let_go: self.let_go.clone(),
        }))
    }
}

impl LoadedModel for HeldModel {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        Ok(Box::new(HeldExecution {
            inner: self.inner.execution()?,
            begun: self.begun.clone(),
            let_go: self.let_go.clone(),
        }))
    }
}

impl Execution for HeldExecution {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError> {
        self.begun.send(()).unwrap();
        self.let_go.lock().unwrap().recv().unwrap();
        self.inner.run(inputs, wanted)
    }
}

/// Such an engine, what it says when a run begins, and what lets one go.
fn held(wipes: bool) -> (Held, Receiver<()>, Sender<()>) {
    let (begun, begins) = channel();
    let (lets_go, let_go) = channel();
    let engine = Held {
        inner: Rten::new(1),
        wipes,
        begun,
        let_go: Arc::new(Mutex::new(let_go)),
    };
    (engine, begins, lets_go)
}

#[tokio::test]
async fn a_request_whose_client_left_stays_inside_until_its_run_has_ended() {
    let (engine, begins, lets_go) = held(true);
    let world = world_of(Arc::new(engine), 64 << 20).await;
    world.service.set().isolation = Isolation::new(IsolationLevel::DedicatedUser, 0).unwrap();
    let runtime = world.runtime.clone();
    let leaves = tokio::spawn(async move { ask(&runtime, 1, &[1.0; 30]).await });
    until(|| begins.try_recv().is_ok() || leaves.is_finished()).await;
    assert!(!leaves.is_finished(), "it was not run at all");
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(world.runtime.occupancy.counts(), (1, 0));
    lets_go.send(()).unwrap();
    until(|| world.runtime.occupancy.counts() == (0, 0)).await;
}

#[tokio::test]
async fn an_engine_that_wipes_nothing_serves_no_sequential_request() {
    let (engine, _begins, _lets_go) = held(false);
    let world = world_of(Arc::new(engine), 64 << 20).await;
    world.service.set().isolation = Isolation::new(IsolationLevel::Sequential, 0).unwrap();
    let refused = ask(&world.runtime, 1, &[1.0; 30]).await.unwrap_err();
    assert_eq!(refused, RefusalCode::NotPermitted);
    assert_eq!(world.runtime.occupancy.counts(), (0, 0));
}

#[tokio::test]
async fn an_engine_that_wipes_nothing_says_so_also_to_whom_it_served_before() {
    let (engine, _begins, lets_go) = held(false);
    let world = world_of(Arc::new(engine), 64 << 20).await;
    lets_go.send(()).unwrap();
    served(&world, 1).await;
    world.service.set().isolation = Isolation::from(IsolationLevel::Sequential);
    let seen = world.service.append();
    let ask = async || {
        let sent = request(1, &request_key(1), &[1.0; 30], seen);
        let answer = send(&world.runtime, sent).await;
        answer.and_then(|it| it.outcome.map_err(|refusal| refusal.code))
    };
    for _ in 0..3 {
        assert_eq!(ask().await, Err(RefusalCode::NotPermitted));
    }
}
