//! Loads of many models at once, from stores that stall, lie or fail, within a budget: whatever happens, memory is given back.

use sesemi_protocol::isolation::Isolation;
use sesemi_protocol::package::stream::SEGMENT;
use sesemi_protocol::package::{Form, FormContent, Memory, ModelFormat};
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{SecretKey, ServiceId};

use super::testing::{Remote, Trouble, bytes, model, put, sealed_forms, sealed_one};
use super::*;
use crate::engine::EngineError;
use crate::testing::until;

const MIB: usize = 1 << 20;

/// An engine that runs nothing: what it loads is the parts themselves.
struct Keeps;

struct Parts(#[expect(dead_code, reason = "kept for its memory")] Vec<Vec<u8>>);

struct Runs;

impl Engine for Keeps {
    fn name(&self) -> &'static str {
        "keeps"
    }

    fn wipes(&self) -> bool {
        true
    }

    fn takes(&self, form: &Form) -> bool {
        form.format == ModelFormat::Onnx
    }

    fn load(
        &self,
        _: &Manifest,
        _: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        Ok(Box::new(Parts(parts)))
    }
}

impl LoadedModel for Parts {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        Ok(Box::new(Runs))
    }
}

impl Execution for Runs {
    fn run(&mut self, _: &[TensorView<'_>], _: &[String]) -> Result<Vec<Tensor>, EngineError> {
        Ok(vec![])
    }
}

fn lease(wanted: Wanted) -> Lease {
    Lease {
        model: wanted.model,
        model_key: wanted.key,
        manifest: wanted.manifest,
        request_key: SecretKey::from_bytes([9; 32]),
        seconds: 60,
        isolation: Isolation::default(),
        state: StatePoint {
            service: ServiceId([0; 32]),
            point: Point::START,
        },
    }
}

struct World {
    store: Arc<Remote>,
    models: Models,
}

impl World {
    fn new(budget: usize) -> Self {
        let store = Remote::new();
        let watchdog = Watchdog::new(Duration::from_secs(60));
        let models = Models::new(store.clone(), Arc::new(Keeps), budget as u64, watchdog);
        Self { store, models }
    }

    /// Another instance, with the same store and a cache.
    fn with_cache(&self, cache: &Arc<Cache>) -> Models {
        let watchdog = Watchdog::new(Duration::from_secs(60));
        Models::new(self.store.clone(), Arc::new(Keeps), 256 << 20, watchdog)
            .with_cache(cache.clone())
    }

    /// Puts a model of so many bytes into the store.
    async fn put(&self, version: u32, length: usize) -> Lease {
        let (package, wanted) = sealed_one(version, &bytes(length, version as usize));
        put(&*self.store, version, package).await;
        lease(wanted)
    }

    /// A model of a megabyte whose runs need `run` bytes.
    async fn put_running(&self, version: u32, run: usize) -> Lease {
        let part = bytes(MIB, version as usize);
        let parts = [&part[..]];
        let memory = Memory {
            loaded: 0,
            run: run as u64,
        };
        let form = FormContent {
            memory,
            ..FormContent::portable(ModelFormat::Onnx, &parts)
        };
        let (package, wanted) = sealed_forms(version, &[form]);
        put(&*self.store, version, package).await;
        lease(wanted)
    }

    /// Waits until nothing is reserved any more: what was given up is given back by other threads.
    async fn until_used_is(&self, bytes: u64) {
        until(|| self.models.used() == bytes).await;
    }
}

#[test]
fn ten_loads_at_once_end_also_if_store_and_loads_share_two_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = Arc::new(World::new(1 << 30));
        let mut loads = Vec::new();
        for version in 1..=10 {
            let lease = world.put(version, 9 * MIB).await;
            let world = world.clone();
            loads.push(tokio::spawn(
                async move { world.models.fetch(&lease).await },
            ));
        }
        for load in loads {
            load.await.unwrap().unwrap();
        }
        assert_eq!(world.models.count(), 10);
        let asked = world.store.asked();
        let heads = asked.iter().filter(|range| range.start == 0).count();
        assert_eq!(heads, 10);
    });
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_ends_the_load_after_its_time_and_its_memory_comes_back() {
    let world = World::new(64 * MIB);
    let lease = world.put(1, 20 * MIB).await;
    for from in [0, 5 * SEGMENT as u64] {
        world.store.set(Trouble::Stalls(from));
        let refused = world.models.fetch(&lease).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::ModelUnavailable);
        world.until_used_is(0).await;
    }
    world.store.set(Trouble::None);
    world.models.fetch(&lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_loads_that_stall_hold_up_a_third_until_their_time_is_over_and_no_longer() {
    let world = World::new(256 * MIB);
    let mut leases = Vec::new();
    for version in 1..=3 {
        leases.push(world.put(version, 9 * MIB).await);
    }
    world.store.set(Trouble::Stalls(SEGMENT as u64));
    let started = tokio::time::Instant::now();
    let loads = leases.iter().map(|lease| world.models.fetch(lease));
    let loads = futures::future::join_all(loads).await;
    assert!(loads.iter().all(Result::is_err));
    assert_eq!(
        started.elapsed(),
        LONGEST,
        "each has its own time, from its request on"
    );
    world.until_used_is(0).await;
}

#[tokio::test]
async fn the_times_of_a_load_add_up_to_the_wait_of_each_who_waited() {
    let world = World::new(64 * MIB);
    let lease = world.put(1, 9 * MIB).await;
    let first = async {
        let started = Instant::now();
        let (_, times) = world.models.load(&lease, Arc::new(())).await.unwrap();
        (times, started.elapsed())
    };
    let second = async {
        tokio::task::yield_now().await;
        let started = Instant::now();
        let (_, times) = world.models.load(&lease, Arc::new(())).await.unwrap();
        (times, started.elapsed())
    };
    let (first, second) = tokio::join!(first, second);
    for (times, waited) in [first, second] {
        assert!(times.fetch + times.decrypt + times.load <= waited);
        assert!(times.fetch > Duration::ZERO && times.load > Duration::ZERO);
    }
    let seconds = Duration::from_secs;
    let whole = LoadTimes {
        fetch: seconds(5),
        decrypt: seconds(3),
        load: seconds(2),
    };
    for waited in [0, 1, 2, 4, 5, 7, 10, 12].map(seconds) {
        let LoadTimes {
            fetch,
            decrypt,
            load,
        } = whole.within(waited);
        assert_eq!(fetch + decrypt + load, waited);
    }
}

#[tokio::test]
async fn buffers_of_runs_are_in_the_budget_and_go_before_models_do() {
    let world = World::new(20 * MIB);
    let (one, two) = (
        world.put_running(1, 5 * MIB).await,
        world.put_running(2, 5 * MIB).await,
    );
    let first = world.models.fetch(&one).await.unwrap();
    let loaded = world.models.used();
    let buffers = first.new_execution().unwrap();
    assert_eq!(world.models.used(), loaded + 5 * MIB as u64);
    first.give_back(buffers);
    assert!(first.idle_execution().is_some_and(|buffers| {
        first.give_back(buffers);
        true
    }));
    world.models.drop_executions();
    assert_eq!(world.models.used(), loaded);
    assert!(first.idle_execution().is_none());

    // All that is left goes to idle buffers of the one; the other's load takes them, and not the model.
    let buffers = [
        first.new_execution().unwrap(),
        first.new_execution().unwrap(),
    ];
    buffers
        .into_iter()
        .for_each(|buffers| first.give_back(buffers));
    let second = world.models.fetch(&two).await.unwrap();
    assert!(first.idle_execution().is_none());
    assert_eq!((world.models.count(), world.models.evictions()), (2, 0));
    // In use, they are nobody else's.
    let _taken: Vec<Buffers> = (0..3).map(|_| first.new_execution().unwrap()).collect();
    let refused = second.new_execution().err().unwrap();
    assert_eq!(refused.code, RefusalCode::Busy);
}

#[tokio::test]
async fn a_model_that_could_be_loaded_but_never_run_is_refused() {
    let world = World::new(20 * MIB);
    let lease = world.put_running(1, 19 * MIB).await;
    let refused = world.models.fetch(&lease).await.unwrap_err();
    assert!(refused.detail.contains("budget"), "{refused}");
    assert_eq!(world.models.used(), 0);
}

#[tokio::test]
async fn a_package_without_a_form_for_this_engine_is_refused_in_its_own_words() {
    let world = World::new(64 * MIB);
    let parts: [&[u8]; 2] = [b"weights", b"graph"];
    let form = FormContent::portable(ModelFormat::OnnxWithWeights, &parts);
    let (package, wanted) = sealed_forms(1, &[form]);
    put(&*world.store, 1, package).await;
    let refused = world.models.fetch(&lease(wanted)).await.unwrap_err();
    assert!(refused.detail.contains("no form"), "{refused}");
    assert_eq!(world.models.used(), 0);
}

#[tokio::test]
async fn what_was_begun_for_a_request_that_left_is_given_back_and_asks_for_nothing_more() {
    let world = World::new(64 * MIB);
    world.put(1, 20 * MIB).await;
    world.store.set(Trouble::Stalls(5 * SEGMENT as u64));
    let ahead = world.models.prefetch(&model(1)).unwrap();
    until(|| world.models.used() >= 20 * MIB as u64).await;
    drop(ahead);
    world.until_used_is(0).await;
    let _ = world.store.asked();
    world.store.set(Trouble::None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(world.store.asked().is_empty());
}

#[tokio::test]
async fn what_nobody_is_entitled_to_yet_drops_no_model_and_makes_way_for_a_load() {
    let world = World::new(70 * MIB);
    let idle = world.put(1, 9 * MIB).await;
    drop(world.models.fetch(&idle).await.unwrap());
    let (_, other) = (world.put(2, 60 * MIB).await, world.put(3, 9 * MIB).await);
    let before = world.models.used();
    let ahead = world.models.prefetch(&model(2)).unwrap();
    until(|| world.models.used() > before + 20 * MIB as u64).await;
    assert!(world.models.held(&model(1)).is_some());
    world.models.fetch(&other).await.unwrap();
    assert!(
        world.models.held(&model(1)).is_some(),
        "there was room without it"
    );
    assert_eq!(world.models.evictions(), 0);
    drop(ahead);
}

#[tokio::test]
async fn no_more_than_two_are_fetched_ahead_and_none_that_is_held() {
    let world = World::new(256 * MIB);
    let mut leases = Vec::new();
    for version in 1..=4 {
        leases.push(world.put(version, 3 * MIB).await);
    }
    world.models.fetch(&leases[3]).await.unwrap();
    assert!(world.models.prefetch(&model(4)).is_none());
    let ahead: Vec<_> = (1..=3)
        .map(|version| world.models.prefetch(&model(version)))
        .collect();
    assert_eq!(ahead.iter().flatten().count(), 2);
    let loads = leases.iter().map(|lease| world.models.fetch(lease));
    let loads = futures::future::join_all(loads).await;
    assert!(loads.iter().all(Result::is_ok));
    drop(ahead);
    assert_eq!(world.models.count(), 4);
}

#[tokio::test]
async fn also_without_room_for_more_than_heads_no_more_than_two_are_fetched_ahead() {
    let world = World::new(28 * MIB);
    for version in 1..=3 {
        world.put(version, 60 * MIB).await;
    }
    let blocker = world.models.room(3 * MIB as u64).unwrap();
    let ahead = [1, 2].map(|version| world.models.prefetch(&model(version)).unwrap());
    until(|| world.store.asked_until() > 0 && world.models.used() >= 19 * MIB as u64).await;
    drop(blocker);
    assert!(world.models.prefetch(&model(3)).is_none());
    drop(ahead);
    world.until_used_is(0).await;
    assert!(world.models.prefetch(&model(3)).is_some());
}

fn sealed_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_one_instance_fetched_the_next_finds_in_the_cache() {
    let (world, folder) = (World::new(MIB), tempfile::tempdir().unwrap());
    let lease = world.put(1, 9 * MIB).await;
    let cache = Cache::new(folder.path().to_owned(), 1 << 30);
    world.with_cache(&cache).fetch(&lease).await.unwrap();
    assert!(!world.store.asked().is_empty());
    assert_eq!(sealed_in(folder.path()).len(), 1);
    // Also one that is started later, and one that begins before it has the key.
    let later = Cache::new(folder.path().to_owned(), 1 << 30);
    world.with_cache(&later).fetch(&lease).await.unwrap();
    let third = world.with_cache(&later);
    let ahead = third.prefetch(&model(1)).unwrap();
    third.fetch(&lease).await.unwrap();
    drop(ahead);
    assert!(world.store.asked().is_empty());
}

#[tokio::test]
async fn what_is_wrong_in_the_cache_is_fetched_from_the_store_and_is_right_afterwards() {
    let (world, folder) = (World::new(MIB), tempfile::tempdir().unwrap());
    let lease = world.put(1, 9 * MIB).await;
    let cache = Cache::new(folder.path().to_owned(), 1 << 30);
    world.with_cache(&cache).fetch(&lease).await.unwrap();
    let file = sealed_in(folder.path()).remove(0);
    let good = std::fs::read(&file).unwrap();
    let mut changed = good.clone();
    changed[5 * MIB] ^= 1;
    let mut head = good.clone();
    head[300] ^= 1;
    let longer = [&good[..], &[0; 100]].concat();
    for wrong in [
        &changed[..],
        &head,
        &longer,
        &good[..6 * MIB],
        &good[..20],
        &[],
    ] {
        std::fs::write(&file, wrong).unwrap();
        let _ = world.store.asked();
        world.with_cache(&cache).fetch(&lease).await.unwrap();
        assert!(!world.store.asked().is_empty());
        assert!(std::fs::read(&file).unwrap() == good, "{}", wrong.len());
    }
    // A folder that is gone.
    folder.close().unwrap();
    world.with_cache(&cache).fetch(&lease).await.unwrap();
}

#[tokio::test]
async fn a_package_that_was_not_authentic_is_not_kept() {
    let (world, folder) = (World::new(MIB), tempfile::tempdir().unwrap());
    let (mut package, wanted) = sealed_one(1, &bytes(9 * MIB, 1));
    package[5 * MIB] ^= 1;
    put(&*world.store, 1, package).await;
    let cache = Cache::new(folder.path().to_owned(), 1 << 30);
    let models = world.with_cache(&cache);
    assert!(models.fetch(&lease(wanted)).await.is_err());
    // What was being written is removed by whoever writes last.
    until(|| sealed_in(folder.path()).is_empty()).await;
}

#[tokio::test]
async fn the_cache_keeps_what_was_used_last_and_not_more_than_it_may() {
    let (world, folder) = (World::new(MIB), tempfile::tempdir().unwrap());
    let cache = Cache::new(folder.path().to_owned(), 22 * MIB as u64);
    let mut leases = Vec::new();
    for version in 1..=3 {
        leases.push(world.put(version, 9 * MIB).await);
    }
    let large = world.put(4, 25 * MIB).await;
    // The clock of files is coarse.
    let load = async |lease: &Lease| {
        world.with_cache(&cache).fetch(lease).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        !world.store.asked().is_empty()
    };
    assert!(load(&leases[0]).await && load(&leases[1]).await);
    assert!(!load(&leases[0]).await, "used again");
    assert!(load(&leases[2]).await, "and so the second one goes");
    assert!(!load(&leases[0]).await && !load(&leases[2]).await);
    assert!(load(&leases[1]).await);
    // What is larger than the cache drives nothing out.
    assert!(load(&large).await && load(&large).await);
    assert!(!load(&leases[1]).await && !load(&leases[2]).await);
    assert_eq!(sealed_in(folder.path()).len(), 2);
}
