//! A push that was interrupted between KeyService and the object store, on the real stack: the same model completes it, and no
//! other does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::path::Path;

use sesemi::{
    Client, Error, FormContent, Grant, Isolation, IsolationChange, IsolationLevel, Manifest,
    ModelFormat, ModelRef, RefusalCode, object_path,
};
use sesemi_cli::demo::data;
use sesemi_cli::stack::Facts;
use support::{input, join, push, rows, scope, semirt, start, store};

async fn push_bytes(facts: &Facts, owner: &mut Client, model: &[u8]) -> Result<ModelRef, Error> {
    push_isolated(facts, owner, model, Isolation::default()).await
}

async fn push_isolated(
    facts: &Facts,
    owner: &mut Client,
    model: &[u8],
    isolation: Isolation,
) -> Result<ModelRef, Error> {
    let parts = [model];
    let forms = [FormContent::portable(ModelFormat::Onnx, &parts)];
    let Manifest {
        inputs, outputs, ..
    } = data::manifest();
    let manifest = Manifest::describing(inputs, outputs, &forms);
    owner
        .push_model(
            &store(facts),
            "breast-cancer",
            1,
            &manifest,
            &forms,
            isolation,
        )
        .await
}

fn exists(pushed: Result<ModelRef, Error>) -> bool {
    match pushed {
        Err(Error::Refused(refusal)) => refusal.code == RefusalCode::AlreadyExists,
        other => panic!("{other:?}"),
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_push_is_completed_by_the_same_model_and_by_no_other() {
    let (_folder, stack) = start().await;
    let facts = &stack.facts;
    let mut owner = join(facts).await;
    let mut user = join(facts).await;
    let model = push(facts, &mut owner).await;
    let code = semirt(facts);
    let grant = Grant::of(&model, user.id(), code);
    owner.grant(grant).await.unwrap();
    user.deposit_key(&scope(&model), [code], IsolationChange::default())
        .await
        .unwrap();

    // As it is after an interruption: registered, but not in its place.
    let place = facts.store.join(object_path(&model));
    std::fs::remove_file(&place).unwrap();
    let mut other = data::MODEL.to_vec();
    *other.last_mut().unwrap() ^= 1;
    match push_bytes(facts, &mut owner, &other).await {
        Err(Error::OtherContent(found)) => assert_eq!(*found, model),
        pushed => panic!("{pushed:?}"),
    }
    let strict = IsolationLevel::Sequential.into();
    match push_isolated(facts, &mut owner, data::MODEL, strict).await {
        Err(Error::OtherIsolation { registered, .. }) => {
            assert_eq!(registered, Isolation::default());
        }
        pushed => panic!("{pushed:?}"),
    }
    assert_eq!(files(place.parent().unwrap()), 0, "nothing is left behind");

    push_bytes(facts, &mut owner, data::MODEL).await.unwrap();
    let row = [input(&rows()[0])];
    let answer = user.infer(&facts.gateway, model.clone(), &row).await;
    assert_eq!(answer.unwrap().outputs.len(), 1);

    // What is in its place is never replaced, and a version that was retired stays so.
    assert!(exists(push_bytes(facts, &mut owner, data::MODEL).await));
    assert!(exists(push_bytes(facts, &mut owner, &other).await));
    assert_eq!(files(place.parent().unwrap()), 1);
    std::fs::remove_file(&place).unwrap();
    let (name, version) = (model.model.name.clone(), model.version);
    owner.retire_model(name, version).await.unwrap();
    assert!(exists(push_bytes(facts, &mut owner, data::MODEL).await));
    assert_eq!(files(place.parent().unwrap()), 0);
    stack.stop().await.unwrap();
}
