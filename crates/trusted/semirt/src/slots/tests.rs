//! Slots with work of their own; no engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::testing::until;

const BRIEF: Duration = Duration::from_millis(1);

fn user(number: u8) -> PrincipalId {
    PrincipalId([number; 32])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Waits until as many requests are in the queue.
async fn until_waiting(slots: &Slots, count: usize) {
    until(|| slots.waiting() == count).await;
}

/// Takes a slot until the sender is dropped.
async fn occupied(slots: &Slots) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (release, released) = mpsc::channel::<()>();
    let turn = slots.turn(user(0), soon(), BRIEF).await.unwrap();
    let run = tokio::spawn(async move {
        let _ = turn.run(move || released.recv()).await.unwrap();
    });
    (release, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_run_at_once_than_there_are_slots_and_all_get_their_result() {
    let slots = Slots::new(3, 1000).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..200_usize)
        .map(|number| {
            let (slots, now, most) = (slots.clone(), now.clone(), most.clone());
            tokio::spawn(async move {
                let turn = slots
                    .turn(user((number % 7) as u8), soon(), BRIEF)
                    .await
                    .unwrap();
                let work = move || {
                    most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    number
                };
                turn.run(work).await.unwrap()
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), number);
    }
    assert!(most.load(Ordering::SeqCst) <= 3);
    // The last thread may still be on its way from the result to giving its slot back.
    until(|| slots.taken() == 0).await;
}

#[tokio::test]
async fn who_leaves_the_queue_takes_no_slot_and_the_next_one_gets_it() {
    let slots = Slots::new(1, 10).unwrap();
    let (release, run) = occupied(&slots).await;
    let leaving = tokio::spawn({
        let slots = slots.clone();
        async move { slots.turn(user(1), soon(), BRIEF).await.map(drop) }
    });
    until_waiting(&slots, 1).await;
    let staying = tokio::spawn({
        let slots = slots.clone();
        async move { slots.turn(user(2), soon(), BRIEF).await.map(drop) }
    });
    until_waiting(&slots, 2).await;
    leaving.abort();
    until_waiting(&slots, 1).await;
    drop(release);
    run.await.unwrap();
    assert_eq!(staying.await.unwrap(), Ok(()));
    assert_eq!((slots.waiting(), slots.taken()), (0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_whoever_has_most_in_it() {
    let slots = Slots::new(1, 2).unwrap();
    let (release, run) = occupied(&slots).await;
    let wait = |number: u8| {
        let slots = slots.clone();
        tokio::spawn(async move { slots.turn(user(number), soon(), BRIEF).await.map(drop) })
    };
    let first = wait(1);
    until_waiting(&slots, 1).await;
    let second = wait(1);
    until_waiting(&slots, 2).await;
    let refused = wait(1).await.unwrap().unwrap_err();
    assert_eq!(refused.code, RefusalCode::Busy);
    let other = wait(2);
    // Its last request makes room for another user's first.
    assert_eq!(second.await.unwrap().unwrap_err().code, RefusalCode::Busy);
    drop(release);
    run.await.unwrap();
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(other.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn work_that_panics_frees_its_slot_and_says_so() {
    let slots = Slots::new(1, 0).unwrap();
    let turn = slots.turn(user(1), soon(), BRIEF).await.unwrap();
    let ended: Result<(), _> = turn.run(|| panic!("a defect of an engine")).await;
    assert_eq!(ended.unwrap_err().code, RefusalCode::Internal);
    until(|| slots.taken() == 0).await;
    let turn = slots.turn(user(1), soon(), BRIEF).await.unwrap();
    assert_eq!(turn.run(|| 7).await, Ok(7));
}

#[tokio::test]
async fn a_slot_is_taken_until_the_run_has_ended_even_if_nobody_waits_for_it() {
    let slots = Slots::new(1, 1).unwrap();
    let (release, run) = occupied(&slots).await;
    // The work has to be with the thread: a task that was never polled has sent nothing.
    tokio::task::yield_now().await;
    run.abort();
    let _ = run.await;
    assert_eq!(slots.taken(), 1);
    drop(release);
    until(|| slots.taken() == 0).await;
}
