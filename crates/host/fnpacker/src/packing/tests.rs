use std::collections::HashSet;

use proptest::prelude::*;

use super::ledger::{Phase, Report};
use super::*;

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(600);
const KEEP_WARM: Duration = Duration::from_secs(60);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A pool in which models of 100 MiB run for 20 ms and load in 100 ms, three of them to an endpoint.
struct Rig {
    packer: Packer,
    now: Instant,
}

impl Rig {
    fn new(policy: Policy, endpoints: usize, slots: u32) -> Self {
        let rules = Rules {
            policy,
            prices: Prices::default(),
            queue: Bounds {
                all: 100,
                each: 100,
            },
            keep_warm: KEEP_WARM,
        };
        let capacity = Capacity {
            slots,
            room: 300 * MIB,
            memory: 400 * MIB,
        };
        let now = Instant::now();
        Self {
            packer: Packer::new(rules, &vec![capacity; endpoints], now),
            now,
        }
    }

    fn wait(&mut self, time: Duration) -> Vec<Go> {
        self.now += time;
        self.packer.passes(self.now)
    }

    fn arrive(&mut self, model: &str, user: &str) -> Result<(Ticket, Vec<Go>), Refusal> {
        let model = ModelKey::new(model.as_bytes()).unwrap();
        self.packer.size_is(&model, 100 * MIB, self.now);
        let arrival = Arrival {
            model,
            user: User::new(user.as_bytes()),
            deadline: self.now + LONG,
        };
        self.packer.arrives(&arrival, self.now)
    }

    /// A request that has a slot at once.
    fn go(&mut self, model: &str) -> Slot {
        let (ticket, gone) = self.arrive(model, "user").unwrap();
        let [go] = gone[..] else {
            panic!("{model}: {gone:?}");
        };
        assert_eq!(go.ticket, ticket);
        go.slot
    }

    /// A request that has none yet.
    fn waits(&mut self, model: &str, user: &str) -> Ticket {
        let (ticket, gone) = self.arrive(model, user).unwrap();
        assert!(gone.is_empty(), "{model}: {gone:?}");
        ticket
    }

    fn end(&mut self, slot: Slot) -> Vec<Go> {
        let report = Report {
            run: Some(ms(20)),
            load: None,
            start: None,
        };
        self.packer.ended(slot, End::Answered(report), self.now)
    }

    /// One whole request, of which it is told where it was.
    fn serve(&mut self, model: &str) -> usize {
        let slot = self.go(model);
        self.now += ms(20);
        assert!(self.end(slot).is_empty());
        slot.endpoint.index()
    }

    /// The pool has learned how long starts and loads take.
    fn experienced(mut self) -> Self {
        let slot = self.go("first");
        let report = Report {
            run: Some(ms(20)),
            load: Some(ms(100)),
            start: Some(ms(200)),
        };
        self.packer.ended(slot, End::Answered(report), self.now);
        self.wait(2 * KEEP_WARM);
        self
    }
}

#[test]
fn models_share_an_endpoint_for_as_long_as_there_is_room() {
    let mut rig = Rig::new(Policy::Cost, 4, 2).experienced();
    let places: Vec<usize> = ["a", "b", "c", "a", "b", "c"]
        .map(|model| rig.serve(model))
        .into();
    assert_eq!(places, [places[0]; 6]);
}

#[test]
fn a_rare_model_displaces_another_and_frequent_ones_get_an_endpoint_more() {
    let mut rig = Rig::new(Policy::Cost, 4, 2).experienced();
    for model in ["a", "b", "c"] {
        rig.serve(model);
    }
    rig.wait(ms(30_000));
    let first = rig.serve("c");
    rig.wait(ms(20_000));
    assert_eq!(rig.serve("d"), first, "asked for once in a minute");
    // Four that are asked for again and again have no room at one.
    let mut places = HashSet::new();
    for _ in 0..40 {
        for model in ["a", "b", "c", "d"] {
            places.insert(rig.serve(model));
            rig.wait(ms(200));
        }
    }
    assert_eq!(places.len(), 2);
}

#[test]
fn whoever_has_to_wait_less_than_a_load_takes_waits() {
    let mut rig = Rig::new(Policy::Cost, 4, 2).experienced();
    rig.serve("a");
    let (one, two) = (rig.go("a"), rig.go("a"));
    let ticket = rig.waits("a", "user");
    let gone = rig.end(one);
    assert_eq!(gone.len(), 1);
    assert_eq!(
        (gone[0].ticket, gone[0].slot.endpoint),
        (ticket, two.endpoint)
    );
}

#[test]
fn a_hot_model_is_spread_when_waiting_costs_more_than_another_instance() {
    let mut rig = Rig::new(Policy::Cost, 4, 2).experienced();
    rig.serve("a");
    let mut places = HashSet::new();
    for _ in 0..80 {
        for go in rig.arrive("a", "user").unwrap().1 {
            places.insert(go.slot.endpoint);
        }
    }
    assert!(places.len() > 1, "{places:?}");
    assert!(rig.packer.waiting() > 0);
}

#[test]
fn a_cold_start_does_not_hold_up_requests_for_what_is_there() {
    let mut rig = Rig::new(Policy::Cost, 2, 1).experienced();
    let home = rig.serve("a");
    let busy = rig.go("a");
    // Of another model: it starts the other endpoint, which never gets ready here.
    let other = rig.go("b");
    assert_ne!(other.endpoint, busy.endpoint);
    rig.end(busy);
    assert_eq!(rig.serve("a"), home);
}

#[test]
fn an_endpoint_idle_for_too_long_holds_nothing_any_more() {
    let mut rig = Rig::new(Policy::Cost, 2, 1);
    rig.serve("a");
    assert!(rig.packer.ledger().memory() > 0);
    assert_eq!(rig.packer.next_change(), Some(rig.now + KEEP_WARM));
    rig.wait(KEEP_WARM);
    assert_eq!(rig.packer.ledger().memory(), 0);
    assert_eq!(rig.packer.next_change(), None);
}

#[test]
fn an_endpoint_that_fails_is_left_alone_for_longer_each_time_and_then_tried_with_one_request() {
    let mut rig = Rig::new(Policy::Cost, 1, 4);
    let slot = rig.go("a");
    let failed = |rig: &mut Rig, slot| rig.packer.ended(slot, End::InstanceLost, rig.now);
    assert!(failed(&mut rig, slot).is_empty());
    let (one, two) = (rig.waits("a", "user"), rig.waits("b", "user"));
    assert!(rig.wait(ms(499)).is_empty());
    let gone = rig.wait(ms(1));
    assert_eq!(gone.len(), 1, "one at a time until it answers");
    assert_eq!(gone[0].ticket, one);
    assert!(failed(&mut rig, gone[0].slot).is_empty());
    assert!(rig.wait(ms(999)).is_empty());
    let gone = rig.wait(ms(1));
    assert_eq!(gone[0].ticket, two);
    rig.end(gone[0].slot);
    rig.go("a");
    rig.go("b");
}

#[test]
fn users_take_turns_whoever_came_first() {
    let mut rig = Rig::new(Policy::Cost, 1, 1);
    let held = rig.go("a");
    let many: Vec<Ticket> = (0..3).map(|_| rig.waits("a", "many")).collect();
    let few = rig.waits("a", "few");
    let mut order = Vec::new();
    let mut slot = held;
    for _ in 0..4 {
        let [go] = rig.end(slot)[..] else { panic!() };
        order.push(go.ticket);
        slot = go.slot;
    }
    assert_eq!(order, [many[0], few, many[1], many[2]]);
}

#[test]
fn whoever_leaves_is_not_sent_anywhere() {
    let mut rig = Rig::new(Policy::Cost, 1, 1);
    let held = rig.go("a");
    let (one, two) = (rig.waits("a", "user"), rig.waits("b", "user"));
    rig.packer.leaves(one);
    rig.packer.leaves(one);
    let gone = rig.end(held);
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].ticket, two);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    let mut rig = Rig::new(Policy::Cost, 1, 1);
    rig.serve("a");
    let _held = rig.go("a");
    for _ in 0..9 {
        rig.waits("a", "user");
    }
    let arrival = |left| Arrival {
        model: ModelKey::new(b"a").unwrap(),
        user: User::new(b"user"),
        deadline: rig.now + left,
    };
    // Nine runs of about 20 ms are ahead of it.
    let (soon, later, past) = (arrival(ms(50)), arrival(ms(1000)), arrival(ms(0)));
    assert_eq!(rig.packer.arrives(&soon, rig.now), Err(Refusal::TooLate));
    assert_eq!(rig.packer.arrives(&past, rig.now), Err(Refusal::TooLate));
    assert!(rig.packer.arrives(&later, rig.now).is_ok());
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let mut rig = Rig::new(Policy::Cost, 1, 1);
    let _held = rig.go("a");
    for _ in 0..100 {
        rig.waits("a", "user");
    }
    assert_eq!(
        rig.arrive("a", "other").err(),
        Some(Refusal::Full { retry_after: 1 })
    );
}

#[test]
fn the_papers_rule_keeps_a_model_in_flight_to_itself_and_shares_the_rest() {
    let mut rig = Rig::new(Policy::Paper, 2, 4);
    let a = rig.go("a");
    assert_eq!(rig.go("a").endpoint, a.endpoint, "in flight: its endpoint");
    let b = rig.go("b");
    assert_ne!(b.endpoint, a.endpoint, "that is another's");
    let c = rig.waits("c", "user");
    let gone = rig.end(b);
    assert_eq!(
        (gone[0].ticket, gone[0].slot.endpoint),
        (c, b.endpoint),
        "idle: shared"
    );
}

#[test]
fn the_prototype_refuses_where_nothing_is_free_and_claims_what_two_requests_met_at() {
    let mut rig = Rig::new(Policy::Prototype, 2, 1);
    let (a, again) = (rig.go("a"), rig.go("a"));
    assert_eq!(a.endpoint, again.endpoint);
    let b = rig.go("b");
    assert_ne!(a.endpoint, b.endpoint);
    assert_eq!(rig.arrive("c", "user").err(), Some(Refusal::NoPlace));
    rig.end(a);
    rig.end(again);
    // Within twice the time of its last run the endpoint is still claimed.
    assert_eq!(rig.arrive("c", "user").err(), Some(Refusal::NoPlace));
    rig.wait(ms(41));
    assert_eq!(rig.go("c").endpoint, a.endpoint);
}

#[test]
fn without_packing_each_model_has_its_endpoint_or_all_have_one() {
    let mut rig = Rig::new(Policy::OneToOne, 3, 2);
    let places: Vec<usize> = ["a", "b", "c", "b", "a", "c"]
        .map(|model| rig.serve(model))
        .into();
    assert_eq!(places, [0, 1, 2, 1, 0, 2]);
    let mut rig = Rig::new(Policy::AllInOne, 3, 2);
    assert_eq!(["a", "b", "a", "c"].map(|model| rig.serve(model)), [0; 4]);
}

#[test]
fn an_endpoint_that_drains_gets_nothing_and_a_new_one_is_used() {
    let mut rig = Rig::new(Policy::Cost, 1, 1);
    let slot = rig.go("a");
    assert!(!rig.packer.drain(slot.endpoint));
    let ticket = rig.waits("a", "user");
    let capacity = rig.packer.ledger().capacity(slot.endpoint);
    let (new, gone) = rig.packer.add(capacity, rig.now);
    assert_eq!((gone[0].ticket, gone[0].slot.endpoint), (ticket, new));
    rig.end(slot);
    assert!(rig.packer.drain(slot.endpoint), "now it is empty");
}

#[test]
fn names_that_callers_make_up_are_forgotten() {
    let mut ledger = Ledger::new(&[], KEEP_WARM, Instant::now());
    let start = Instant::now();
    let mut most = 0;
    for n in 0..200_000_u64 {
        let now = start + Duration::from_micros(n);
        let model = ledger.model(&ModelKey::new(n.to_string().as_bytes()).unwrap(), now);
        ledger.arrived(model, now);
        most = most.max(ledger.models());
    }
    assert!(most <= 65_536, "{most}");
}

/// Whatever the indexes say is what the endpoints are.
fn check(ledger: &Ledger, over_slots: bool) -> Result<(), TestCaseError> {
    let all: Vec<Endpoint> = ledger.endpoints().collect();
    let sorted = |mut some: Vec<Endpoint>| {
        some.sort();
        some
    };
    let of = |what: &dyn Fn(&Endpoint) -> bool| {
        all.iter()
            .copied()
            .filter(|it| what(it))
            .collect::<Vec<_>>()
    };
    let up = |it: &Endpoint| ledger.phase(*it) == Phase::Up;
    prop_assert_eq!(
        sorted(ledger.with_slot().collect()),
        of(&|it| up(it) && ledger.has_slot(*it))
    );
    prop_assert_eq!(
        sorted(ledger.idle().collect()),
        of(&|it| up(it) && ledger.load_of(*it) == 0)
    );
    let total: u64 = all.iter().map(|it| u64::from(ledger.load_of(*it))).sum();
    prop_assert_eq!(total, ledger.in_flight());
    for endpoint in all {
        let held = ledger.held(endpoint);
        let serving: u32 = held.iter().map(|it| it.serving).sum();
        prop_assert_eq!(serving, ledger.load_of(endpoint));
        prop_assert!(over_slots || ledger.load_of(endpoint) <= ledger.capacity(endpoint).slots);
        for it in held {
            prop_assert!(ledger.holders(it.model).contains(&endpoint));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn under_any_policy_nobody_is_lost_and_no_slot_is_taken_twice(
        policy in prop::sample::select(Policy::ALL.to_vec()),
        steps in prop::collection::vec((0..8_u8, 0..6_usize, 0..3_usize, any::<prop::sample::Index>(), 0..3_000_u64), 1..150),
    ) {
        let mut rig = Rig::new(policy, 3, 2);
        let (mut waiting, mut running): (HashSet<Ticket>, Vec<Slot>) = Default::default();
        for (step, model, user, which, time) in steps {
            let gone = match step {
                0..4 => match rig.arrive(["a", "b", "c", "d", "e", "f"][model], ["x", "y", "z"][user]) {
                    Ok((ticket, gone)) => {
                        waiting.insert(ticket);
                        gone
                    }
                    Err(refusal) => {
                        prop_assert!(refusal == Refusal::NoPlace && policy == Policy::Prototype);
                        Vec::new()
                    }
                },
                4 | 5 if !running.is_empty() => {
                    let slot = running.swap_remove(which.index(running.len()));
                    let end = match time % 5 {
                        0 => End::InstanceLost,
                        1 => End::Unknown,
                        _ => End::Answered(Report { run: Some(ms(time)), load: Some(ms(time)), start: None }),
                    };
                    rig.packer.ended(slot, end, rig.now)
                }
                6 => {
                    if let Some(ticket) = waiting.iter().next().copied() {
                        rig.packer.leaves(ticket);
                        waiting.remove(&ticket);
                    }
                    Vec::new()
                }
                _ => rig.wait(ms(time * 30)),
            };
            for go in gone {
                prop_assert!(waiting.remove(&go.ticket), "sent although it did not wait");
                running.push(go.slot);
            }
            prop_assert_eq!(rig.packer.waiting(), waiting.len());
            prop_assert_eq!(rig.packer.ledger().in_flight(), running.len() as u64);
            check(rig.packer.ledger(), policy == Policy::Prototype)?;
        }
        // Everyone who still waits gets a turn once the others are done and time passes.
        for _ in 0..400 {
            if waiting.is_empty() {
                break;
            }
            let mut gone = rig.wait(ms(500));
            while let Some(slot) = running.pop() {
                gone.extend(rig.end(slot));
            }
            for go in gone {
                waiting.remove(&go.ticket);
                running.push(go.slot);
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?}");
    }
}
