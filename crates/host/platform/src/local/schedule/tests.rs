//! The scheduler by example.

use std::time::Duration;

use super::*;

pub(super) fn name(text: &str) -> ActionName {
    ActionName::new(text).unwrap()
}

pub(super) fn scheduler(
    user_memory_mib: u32,
    actions: &[(&str, u32, u32)],
) -> (Scheduler, Instant) {
    let bounds = Bounds {
        user_memory_mib,
        idle_timeout: Duration::from_secs(60),
        queue_capacity: 8,
    };
    let mut scheduler = Scheduler::new(bounds);
    for (action, memory_mib, concurrency) in actions {
        let bounds = ActionBounds {
            memory_mib: *memory_mib,
            concurrency: *concurrency,
        };
        assert!(scheduler.add_action(name(action), bounds));
    }
    (scheduler, Instant::now())
}

fn submit(s: &mut Scheduler, action: &str, now: Instant) -> (Ticket, Vec<Effect>) {
    s.submit(&name(action), now + Duration::from_secs(600), now)
        .unwrap()
}

/// Submits, and carries the cold start through.
fn submit_cold(s: &mut Scheduler, action: &str, now: Instant) -> InstanceId {
    let (ticket, effects) = submit(s, action, now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        s.started(instance, now),
        [Effect::Assign {
            ticket,
            instance,
            cold: true
        }]
    );
    instance
}

#[test]
fn the_first_invocation_starts_an_instance_and_the_next_uses_it_warm() {
    let (mut s, now) = scheduler(512, &[("a", 256, 1)]);
    let instance = submit_cold(&mut s, "a", now);
    assert_eq!(s.release(instance, now), []);
    let (ticket, effects) = submit(&mut s, "a", now);
    assert_eq!(
        effects,
        [Effect::Assign {
            ticket,
            instance,
            cold: false
        }]
    );
}

#[test]
fn invocations_share_an_instance_that_is_still_starting_up_to_its_concurrency() {
    let (mut s, now) = scheduler(512, &[("a", 256, 2)]);
    let (first, effects) = submit(&mut s, "a", now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let (second, effects) = submit(&mut s, "a", now);
    assert_eq!(effects, []);
    let (_, effects) = submit(&mut s, "a", now);
    assert!(matches!(effects[..], [Effect::Start { instance: other, .. }] if other != instance));
    let assigned = [
        Effect::Assign {
            ticket: first,
            instance,
            cold: true,
        },
        Effect::Assign {
            ticket: second,
            instance,
            cold: false,
        },
    ];
    assert_eq!(s.started(instance, now), assigned);
}

#[test]
fn the_busiest_instance_with_room_is_used_first() {
    let (mut s, now) = scheduler(512, &[("a", 256, 2)]);
    let first = submit_cold(&mut s, "a", now);
    submit(&mut s, "a", now);
    let second = submit_cold(&mut s, "a", now);
    s.release(first, now);
    s.release(first, now);
    let (ticket, effects) = submit(&mut s, "a", now);
    assert_eq!(
        effects,
        [Effect::Assign {
            ticket,
            instance: second,
            cold: false
        }]
    );
}

#[test]
fn the_least_recently_used_idle_instance_is_evicted_and_its_memory_counts_until_it_is_gone() {
    let (mut s, now) = scheduler(512, &[("a", 256, 1), ("b", 256, 1), ("c", 256, 1)]);
    let a = submit_cold(&mut s, "a", now);
    let b = submit_cold(&mut s, "b", now);
    s.release(b, now + Duration::from_secs(1));
    s.release(a, now + Duration::from_secs(2));
    let (_, effects) = submit(&mut s, "c", now + Duration::from_secs(3));
    assert_eq!(effects, [Effect::Stop { instance: b }]);
    assert_eq!(s.memory_in_use_mib(), 512);
    let effects = s.gone(b, now + Duration::from_secs(4));
    assert!(
        matches!(&effects[..], [Effect::Start { action, .. }] if *action == name("c")),
        "{effects:?}"
    );
}

#[test]
fn several_small_instances_make_room_for_a_large_one_and_none_ends_in_vain() {
    let (mut s, now) = scheduler(512, &[("small", 128, 1), ("large", 512, 1)]);
    let ids: Vec<_> = (0..4).map(|_| submit_cold(&mut s, "small", now)).collect();
    for id in &ids[..3] {
        s.release(*id, now);
    }
    let (_, effects) = submit(&mut s, "large", now);
    assert_eq!(effects, [], "three of four are idle: not enough");
    let effects = s.release(ids[3], now);
    assert_eq!(effects.len(), 4, "{effects:?}");
}

#[test]
fn waiting_is_first_in_first_out_even_if_a_later_one_could_run() {
    let (mut s, now) = scheduler(512, &[("a", 256, 1), ("large", 512, 1)]);
    let a = submit_cold(&mut s, "a", now);
    let (large, effects) = submit(&mut s, "large", now);
    assert_eq!(effects, []);
    let (late, effects) = submit(&mut s, "a", now);
    assert_eq!(
        effects,
        [],
        "a second instance of a would fit, and would starve the large one"
    );
    assert_eq!(
        s.waiting().map(|(ticket, _)| ticket).collect::<Vec<_>>(),
        [large, late]
    );
    assert_eq!(s.release(a, now), [Effect::Stop { instance: a }]);
}

#[test]
fn the_queue_is_bounded_and_unknown_or_late_invocations_do_not_enter_it() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let later = now + Duration::from_secs(60);
    submit_cold(&mut s, "a", now);
    for _ in 0..8 {
        submit(&mut s, "a", now);
    }
    assert_eq!(s.submit(&name("a"), later, now), Err(Rejection::QueueFull));
    assert_eq!(
        s.submit(&name("x"), later, now),
        Err(Rejection::UnknownAction)
    );
    assert_eq!(s.submit(&name("a"), now, now), Err(Rejection::Expired));
}

#[test]
fn an_expired_invocation_takes_no_slot() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let instance = submit_cold(&mut s, "a", now);
    let deadline = now + Duration::from_secs(1);
    let (late, _) = s.submit(&name("a"), deadline, now).unwrap();
    let (next, _) = submit(&mut s, "a", now);
    let expected = [
        Effect::Refuse {
            ticket: late,
            why: Refusal::Expired,
        },
        Effect::Assign {
            ticket: next,
            instance,
            cold: false,
        },
    ];
    assert_eq!(s.release(instance, deadline), expected);
}

#[test]
fn a_failed_start_refuses_what_was_bound_and_the_next_invocation_starts_afresh() {
    let (mut s, now) = scheduler(256, &[("a", 256, 2)]);
    let (first, effects) = submit(&mut s, "a", now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let (second, _) = submit(&mut s, "a", now);
    let why = Refusal::StartFailed(instance);
    let refused = [
        Effect::Refuse { ticket: first, why },
        Effect::Refuse {
            ticket: second,
            why,
        },
    ];
    assert_eq!(s.start_failed(instance, now), refused);
    let (_, effects) = submit(&mut s, "a", now);
    assert_eq!(effects, [], "its memory is still taken");
    assert!(matches!(s.gone(instance, now)[..], [Effect::Start { .. }]));
}

#[test]
fn a_process_that_ends_while_it_starts_refuses_what_was_bound() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let (ticket, effects) = submit(&mut s, "a", now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        s.gone(instance, now),
        [Effect::Refuse {
            ticket,
            why: Refusal::StartFailed(instance)
        }]
    );
    assert_eq!(s.memory_in_use_mib(), 0);
}

#[test]
fn a_draining_instance_gets_nothing_new_and_ends_with_its_last_invocation() {
    let (mut s, now) = scheduler(512, &[("a", 256, 2)]);
    let instance = submit_cold(&mut s, "a", now);
    let (first, _) = submit(&mut s, "a", now);
    assert_eq!(s.drain(instance, now), []);
    s.release(instance, now);
    let effects = s
        .resubmit(first, &name("a"), now + Duration::from_secs(9), now)
        .unwrap();
    assert!(matches!(effects[..], [Effect::Start { instance: other, .. }] if other != instance));
    assert_eq!(s.release(instance, now), [Effect::Stop { instance }]);
}

#[test]
fn a_resubmitted_invocation_keeps_its_place_in_the_order_of_arrival() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let (first, effects) = submit(&mut s, "a", now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    s.started(instance, now);
    let (second, _) = submit(&mut s, "a", now);
    s.drain(instance, now);
    s.resubmit(first, &name("a"), now + Duration::from_secs(9), now)
        .unwrap();
    assert_eq!(
        s.waiting().map(|(ticket, _)| ticket).collect::<Vec<_>>(),
        [first, second]
    );
}

#[test]
fn idle_instances_end_after_the_timeout_and_busy_ones_never() {
    let (mut s, now) = scheduler(512, &[("a", 256, 1), ("b", 256, 1)]);
    let idle = submit_cold(&mut s, "a", now);
    submit_cold(&mut s, "b", now);
    s.release(idle, now);
    let expiry = s.next_expiry().unwrap();
    assert_eq!(expiry, now + Duration::from_secs(60));
    assert_eq!(s.tick(expiry - Duration::from_millis(1)), []);
    assert_eq!(s.tick(expiry), [Effect::Stop { instance: idle }]);
    assert_eq!(s.next_expiry(), None);
}

#[test]
fn a_cancelled_invocation_gives_up_its_place_in_the_queue_and_on_a_starting_instance() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let (first, effects) = submit(&mut s, "a", now);
    let [Effect::Start { instance, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let (second, _) = submit(&mut s, "a", now);
    let (third, _) = submit(&mut s, "a", now);
    s.cancel(second, now);
    s.cancel(first, now);
    assert_eq!(
        s.started(instance, now),
        [Effect::Assign {
            ticket: third,
            instance,
            cold: false
        }]
    );
}

#[test]
fn a_deleted_action_refuses_what_waits_and_lets_finish_what_runs() {
    let (mut s, now) = scheduler(256, &[("a", 256, 1)]);
    let instance = submit_cold(&mut s, "a", now);
    let (waiting, _) = submit(&mut s, "a", now);
    let refused = [Effect::Refuse {
        ticket: waiting,
        why: Refusal::ActionDeleted,
    }];
    assert_eq!(s.remove_action(&name("a"), now).unwrap(), refused);
    assert_eq!(s.remove_action(&name("a"), now), None);
    assert_eq!(s.release(instance, now), [Effect::Stop { instance }]);
}

#[test]
fn a_shutdown_refuses_what_waits_drains_what_runs_and_ends_what_is_idle() {
    let (mut s, now) = scheduler(512, &[("a", 256, 1), ("b", 256, 1)]);
    let busy = submit_cold(&mut s, "a", now);
    let idle = submit_cold(&mut s, "b", now);
    s.release(idle, now);
    assert_eq!(s.shut_down(), [Effect::Stop { instance: idle }]);
    assert_eq!(
        s.submit(&name("a"), now + Duration::from_secs(1), now),
        Err(Rejection::ShuttingDown)
    );
    assert_eq!(s.stop_all(), [Effect::Stop { instance: busy }]);
}
