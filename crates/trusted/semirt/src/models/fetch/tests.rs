//! Forms come out as they went in, whatever their sizes; and whatever the store does instead of its work is an error that leaves
//! nothing behind.

use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, PutPayload};
use sesemi_protocol::package::stream::SEGMENT;
use sesemi_protocol::package::{FormContent, ModelFormat, object_path};

use super::super::ahead::Ahead;
use super::super::budget::Budget;
use super::super::testing::{Remote, Trouble, bytes, model, put, sealed_forms};
use super::*;
use crate::testing::until;

const ENOUGH: u64 = 1 << 32;

/// A package with one form of two parts and one of one.
fn sealed(first: &[u8], graph: &[u8], other: &[u8]) -> (Vec<u8>, Wanted) {
    let split = [first, graph];
    let whole = [other];
    sealed_forms(
        1,
        &[
            FormContent::portable(ModelFormat::OnnxWithWeights, &split),
            FormContent::portable(ModelFormat::Onnx, &whole),
        ],
    )
}

async fn stored(package: Vec<u8>) -> Arc<Remote> {
    let store = Remote::new();
    put(&*store, 1, package).await;
    store
}

async fn find(store: Arc<dyn ObjectStore>, wanted: &Wanted) -> Result<Found, FetchError> {
    let reserved = Budget::new(ENOUGH).try_take(1).unwrap();
    let opened = Source::open(store, &model(1)).await?;
    Begun::new(opened, reserved)?.open(wanted).await
}

fn origin(store: &Arc<dyn ObjectStore>) -> Origin {
    Origin {
        store: store.clone(),
        cache: None,
        past_cache: false,
        engine: "any",
    }
}

async fn form_of(mut found: Found, form: usize) -> Result<Vec<Vec<u8>>, FetchError> {
    let place = found.package().place(form).unwrap();
    found.keep_of(&place).await;
    let reserved = Budget::new(ENOUGH).try_take(1).unwrap();
    Ok(found.form(place, reserved).await?.0.into_parts().0)
}

async fn form(
    store: Arc<dyn ObjectStore>,
    wanted: &Wanted,
    form: usize,
) -> Result<Vec<Vec<u8>>, FetchError> {
    form_of(find(store, wanted).await?, form).await
}

/// The same, after a while in which ciphertext came without a key.
async fn form_after(
    store: Arc<dyn ObjectStore>,
    wanted: &Wanted,
    form: usize,
    room: u64,
    pause: u64,
) -> (Vec<Vec<u8>>, bool) {
    let (ahead, budget) = (Ahead::new(), Budget::new(room));
    let guard = ahead.begin(&model(1), &origin(&store), &budget).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
    let begun = ahead.take(&model(1)).await;
    drop(guard);
    let came = begun.as_ref().is_some_and(|it| it.early.is_some());
    let begun = match begun {
        Some(begun) => begun,
        // It was told to stop before it had begun.
        None => {
            let reserved = budget.try_take(1).unwrap();
            Begun::new(Source::open(store, &model(1)).await.unwrap(), reserved).unwrap()
        }
    };
    let found = begun.open(wanted).await.unwrap();
    (form_of(found, form).await.unwrap(), came)
}

const FULL: usize = SEGMENT - 16;

/// Lengths of the two parts of one form and the one of another, around the borders of pages and segments.
const LENGTHS: [(usize, usize, usize); 7] = [
    (0, 1, 0),
    (1, 0, 5000),
    (FULL - 4096 - 40, 10, FULL),
    (FULL - 4096 - 39, 1, 1),
    (4 * FULL, 4096, 3 * FULL + 1),
    (5 * FULL + 77, FULL, 4 * FULL),
    (12 * FULL, 3, 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_that_another_model_left_the_form_is_the_same_and_nothing_of_the_other_is_in_it()
{
    for (first, graph, other) in LENGTHS {
        let parts = [bytes(first, 1), bytes(graph, 2)];
        let (package, wanted) = sealed(&parts[0], &parts[1], &bytes(other, 3));
        let store = stored(package).await;
        // Longer than needed, as long, and too short.
        for (more, less) in [(5000, 0), (0, 0), (0, 1)] {
            let mut found = find(store.clone(), &wanted).await.unwrap();
            let place = found.package().place(0).unwrap();
            let length = found.length_of(&place).unwrap();
            let left = vec![0xa5; (length + more).saturating_sub(less)];
            found.reuse(Some(Wiped(left)));
            let found = form_of(found, 0).await.unwrap();
            assert!(found == parts, "{first} and {graph}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_decrypted_where_the_model_before_it_was() {
    let parts = [bytes(3 * FULL, 1), bytes(100, 2)];
    let (package, wanted) = sealed(&parts[0], &parts[1], &[]);
    let mut found = find(stored(package).await, &wanted).await.unwrap();
    let place = found.package().place(0).unwrap();
    let left = Wiped(vec![0xa5; found.length_of(&place).unwrap()]);
    let address = left.as_ptr();
    found.reuse(Some(left));
    let form = form_of(found, 0).await.unwrap();
    assert_eq!(form[0].as_ptr(), address);
    assert!(
        form[0].capacity() >= parts[0].len() + parts[1].len(),
        "the next one fits in as well"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_the_key_and_what_came_after_it_make_the_same_form() {
    let mut early = 0;
    for (first, graph, other) in LENGTHS {
        let parts = [bytes(first, 1), bytes(graph, 2), bytes(other, 3)];
        let (package, wanted) = sealed(&parts[0], &parts[1], &parts[2]);
        let folder = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        put(&*local, 1, package.clone()).await;
        let remote = stored(package).await;
        let room = [ENOUGH, 40 << 20, 12 << 20];
        for (pause, room) in [0, 2, 10, 40].into_iter().zip(room.into_iter().cycle()) {
            for store in [local.clone() as Arc<dyn ObjectStore>, remote.clone()] {
                let (two, came) = form_after(store.clone(), &wanted, 0, room, pause).await;
                assert!(two == parts[..2], "{first} {graph} {pause}");
                early += usize::from(came);
                let (one, _) = form_after(store, &wanted, 1, room, pause).await;
                assert!(one == parts[2..], "{other} {pause}");
            }
        }
    }
    assert!(early > 0, "nothing ever came before the key");
}

#[tokio::test]
async fn what_came_before_the_key_is_not_asked_for_again() {
    let content = bytes(20 * FULL, 1);
    let (package, wanted) = sealed(&content, b"graph", b"");
    let length = package.len() as u64;
    let store = stored(package).await;
    let (ahead, budget) = (Ahead::new(), Budget::new(ENOUGH));
    let any: Arc<dyn ObjectStore> = store.clone();
    let any = origin(&any);
    let guard = ahead.begin(&model(1), &any, &budget).unwrap();
    assert!(ahead.begin(&model(1), &any, &budget).is_some(), "joined");
    until(|| store.asked_until() >= 8 * SEGMENT as u64).await;
    let begun = ahead.take(&model(1)).await.unwrap();
    drop(guard);
    let found = begun.open(&wanted).await.unwrap();
    assert!(form_of(found, 0).await.unwrap()[0] == content);
    let mut asked = store.asked();
    asked.sort_by_key(|range| range.start);
    // The head, and then each byte once.
    let after_head: Vec<Range<u64>> = asked.split_off(1);
    assert!(after_head.windows(2).all(|two| two[0].end == two[1].start));
    assert_eq!(after_head.last().unwrap().end, length);
}

#[tokio::test]
async fn a_store_that_sends_less_more_or_something_else_is_an_error() {
    let (package, wanted) = sealed(&bytes(9 * FULL, 1), b"graph", b"");
    let store = stored(package).await;
    let from = 3 * SEGMENT as u64;
    for trouble in [
        Trouble::Short(from),
        Trouble::Long(from),
        Trouble::Elsewhere(from),
    ] {
        store.set(trouble);
        let error = form(store.clone(), &wanted, 0).await.unwrap_err();
        let length = matches!(error, FetchError::Length { .. });
        let changed = matches!(error, FetchError::Package(_));
        assert!(
            if matches!(trouble, Trouble::Elsewhere(_)) {
                changed
            } else {
                length
            },
            "{error}"
        );
    }
    // More than the head is cut off; less is not enough.
    store.set(Trouble::Long(0));
    assert!(find(store.clone(), &wanted).await.is_ok());
    store.set(Trouble::Short(0));
    assert!(
        find(store, &wanted).await.is_ok(),
        "the first segment is there"
    );
}

#[tokio::test]
async fn a_changed_segment_is_told_at_once_although_the_store_stalls_with_the_rest() {
    let (mut package, wanted) = sealed(&bytes(20 * FULL, 1), b"graph", b"");
    package[2 * SEGMENT + 500] ^= 1;
    let store = stored(package).await;
    store.set(Trouble::Stalls(4 * SEGMENT as u64));
    let error = form(store, &wanted, 0).await.unwrap_err();
    assert!(matches!(error, FetchError::Package(_)), "{error}");
}

#[tokio::test]
async fn each_form_comes_out_as_it_went_in_whatever_its_size() {
    for (first, graph, other) in LENGTHS {
        let parts = [bytes(first, 1), bytes(graph, 2), bytes(other, 3)];
        let (package, wanted) = sealed(&parts[0], &parts[1], &parts[2]);
        let store = stored(package).await;
        let two = form(store.clone(), &wanted, 0).await.unwrap();
        assert!(two == parts[..2], "{first} {graph}");
        let one = form(store, &wanted, 1).await.unwrap();
        assert!(one == parts[2..], "{other}");
    }
}

#[tokio::test]
async fn a_changed_byte_in_any_segment_of_the_form_is_an_error_and_elsewhere_is_not_noticed() {
    let (package, wanted) = sealed(&bytes(6 * SEGMENT, 1), b"graph", &bytes(2 * SEGMENT, 2));
    let in_second_form = package.len() - 10;
    for position in (2000..package.len())
        .step_by(SEGMENT / 2)
        .chain([in_second_form])
    {
        let mut changed = package.clone();
        changed[position] ^= 1;
        let store = stored(changed).await;
        let first = form(store.clone(), &wanted, 0).await;
        let second = form(store, &wanted, 1).await;
        // The two forms share one segment at most. What lies before the end of the first one's is its own.
        let own = position < 6 * SEGMENT;
        assert_eq!(
            first.is_err(),
            own || second.is_err() && first.is_err(),
            "{position}"
        );
        let error = if own { first.err() } else { second.err() };
        let error = error.unwrap();
        assert!(matches!(error, FetchError::Package(_)), "{error}");
    }
    let mut changed = package;
    changed[in_second_form] ^= 1;
    assert!(form(stored(changed).await, &wanted, 0).await.is_ok());
}

#[tokio::test]
async fn a_store_that_loses_cuts_or_replaces_the_package_half_way_is_an_error_that_ends() {
    let content = bytes(40 * SEGMENT, 1);
    let (package, wanted) = sealed(&content, b"graph", b"");
    // The same model and manifest, sealed once more: another salt.
    let (again, _) = sealed(&content, b"graph", b"");
    for (instead, expected) in [
        (None, "the object store"),
        (Some(package[..20 * SEGMENT].to_vec()), "the object store"),
        (
            Some(package[..20 * SEGMENT + 5].to_vec()),
            "the object store",
        ),
        (Some(again), "not authentic"),
    ] {
        let store = stored(package.clone()).await;
        let found = find(store.clone(), &wanted).await.unwrap();
        let path = ObjectPath::from(object_path(&model(1)));
        match instead {
            None => store.delete(&path).await.unwrap(),
            Some(other) => drop(store.put(&path, PutPayload::from(other)).await.unwrap()),
        }
        let error = form_of(found, 0).await.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn another_model_key_or_manifest_is_refused_by_the_head() {
    let (package, _) = sealed(b"weights", b"graph", b"");
    let store = stored(package).await;
    let (_, good) = sealed(b"weights", b"graph", b"");
    assert!(find(store.clone(), &good).await.is_ok());
    let others = [
        Wanted {
            key: SecretKey::from_bytes([8; 32]),
            ..sealed(b"weights", b"graph", b"").1
        },
        sealed(b"weightz", b"graph", b"").1,
    ];
    for other in others {
        let error = find(store.clone(), &other).await.err().unwrap();
        assert!(matches!(error, FetchError::Package(_)), "{error}");
    }
}
