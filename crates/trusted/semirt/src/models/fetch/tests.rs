//! Forms come out as they went in, whatever their sizes; and whatever the store does instead of its work is an error that leaves
//! nothing behind.

use object_store::PutPayload;
use object_store::memory::InMemory;
use sesemi_protocol::package::stream::SEGMENT;
use sesemi_protocol::package::{self, FormContent, Manifest, ModelFormat};
use sesemi_protocol::{ModelName, ModelVersion, PrincipalId, SystemEntropy};

use super::*;

fn model() -> ModelRef {
    ModelRef::new(
        PrincipalId([1; 32]),
        ModelName::new("m").unwrap(),
        ModelVersion::new(1).unwrap(),
    )
}

fn key() -> SecretKey {
    SecretKey::from_bytes([7; 32])
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + seed) % 251) as u8).collect()
}

/// A package with one form of two parts and one of one.
fn sealed(first: &[u8], graph: &[u8], other: &[u8]) -> (Vec<u8>, Wanted) {
    let split = [first, graph];
    let whole = [other];
    let forms = [
        FormContent::portable(ModelFormat::OnnxWithWeights, &split),
        FormContent::portable(ModelFormat::Onnx, &whole),
    ];
    let manifest = Manifest::describing(vec![], vec![], &forms);
    let wanted = Wanted {
        model: model(),
        key: key(),
        manifest: package::manifest_digest(&manifest).unwrap(),
    };
    let entropy = SystemEntropy::new();
    let package = package::seal(&key(), &model(), &manifest, &forms, &entropy).unwrap();
    (package, wanted)
}

async fn stored(package: Vec<u8>) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let path = ObjectPath::from(object_path(&model()));
    store.put(&path, PutPayload::from(package)).await.unwrap();
    store
}

async fn form(
    store: Arc<dyn ObjectStore>,
    wanted: &Wanted,
    form: usize,
) -> Result<Vec<Vec<u8>>, FetchError> {
    let found = find(store, wanted).await?;
    let place = found.package().place(form).unwrap();
    Ok(found.form(place).await?.into_parts())
}

#[tokio::test]
async fn each_form_comes_out_as_it_went_in_whatever_its_size() {
    let full = SEGMENT - 16;
    for (first, graph, other) in [
        (0, 1, 0),
        (1, 0, 5000),
        (full - 4096 - 40, 10, full),
        (full - 4096 - 39, 1, 1),
        (4 * full, 4096, 3 * full + 1),
        (9 * full + 77, full, 8 * full),
    ] {
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
        // The two forms share one segment at most.
        assert!(first.is_err() || second.is_err(), "{position}");
        let error = first.err().or(second.err()).unwrap();
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
    let path = ObjectPath::from(object_path(&model()));
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
        match instead {
            None => store.delete(&path).await.unwrap(),
            Some(other) => drop(store.put(&path, PutPayload::from(other)).await.unwrap()),
        }
        let place = found.package().place(0).unwrap();
        let error = found.form(place).await.err().unwrap().to_string();
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
