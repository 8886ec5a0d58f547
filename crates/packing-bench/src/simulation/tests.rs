use super::*;

const MIB: u64 = 1 << 20;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn costs() -> Costs {
    let model = |mib: u64, run| ModelCosts {
        bytes: mib * MIB,
        run: ms(run),
        load: ms(mib),
    };
    Costs {
        models: vec![model(100, 20), model(50, 10)],
        start: ms(100),
        start_wait: ms(50),
        request: ms(0),
        way: ms(1),
        stop: ms(10),
    }
}

fn site(policy: Policy, endpoints_mib: Vec<u32>) -> Site {
    Site {
        processors: 2.0,
        user_memory_mib: 4096,
        idle_timeout: Duration::from_secs(10),
        slots: 2,
        program_mib: 56,
        endpoints_mib,
        instances: 1,
        patience: Duration::from_secs(60),
        policy,
        prices: Prices::default(),
    }
}

fn single(at: u64, model: usize) -> Script {
    Script {
        at: ms(at),
        user: 0,
        calls: vec![(Duration::ZERO, model)],
    }
}

fn took(outcome: &Outcome) -> Vec<u64> {
    let nearest = |it: &Served| (it.took.as_secs_f64() * 1e3).round() as u64;
    outcome.served.iter().map(nearest).collect()
}

#[test]
fn a_cold_a_hot_and_a_warm_request_take_what_their_steps_take() {
    let scripts = [single(0, 0), single(1_000, 0), single(2_000, 1)];
    let outcome = simulate(
        &costs(),
        &site(Policy::Cost, vec![256, 256]),
        &scripts,
        Duration::from_secs(5),
    );
    assert_eq!(took(&outcome), [150 + 100 + 20 + 1, 20 + 1, 50 + 10 + 1]);
    assert_eq!(outcome.cold_share(), 1.0 / 3.0);
    // One instance, from the first request to the end of the count.
    let expected = 256.0 * MIB as f64 / 1e9 * 5.0;
    assert!(
        (outcome.gb_s / expected - 1.0).abs() < 1e-6,
        "{}",
        outcome.gb_s
    );
}

#[test]
fn an_instance_ends_when_it_was_idle_for_long() {
    let scripts = [single(0, 0), single(60_000, 0)];
    let outcome = simulate(
        &costs(),
        &site(Policy::Cost, vec![256]),
        &scripts,
        Duration::from_secs(120),
    );
    assert_eq!(took(&outcome), [271, 271]);
    let expected = 256.0 * MIB as f64 / 1e9 * 2.0 * (0.271 + 10.0 + 0.01);
    assert!(
        (outcome.gb_s / expected - 1.0).abs() < 1e-3,
        "{} {expected}",
        outcome.gb_s
    );
}

#[test]
fn runs_share_the_processors() {
    let mut scripts = vec![single(0, 0)];
    scripts.extend((0..4).map(|_| single(1_000, 0)));
    let outcome = simulate(
        &costs(),
        &Site {
            slots: 4,
            ..site(Policy::Cost, vec![256])
        },
        &scripts,
        Duration::from_secs(5),
    );
    assert_eq!(took(&outcome)[1..], [41, 41, 41, 41]);
}

#[test]
fn a_session_goes_on_after_each_answer() {
    let scripts = [Script {
        at: ms(0),
        user: 0,
        calls: vec![(ms(0), 0), (ms(500), 1), (ms(500), 0)],
    }];
    let outcome = simulate(
        &costs(),
        &site(Policy::Cost, vec![256]),
        &scripts,
        Duration::from_secs(5),
    );
    assert_eq!(took(&outcome), [271, 61, 21]);
}

#[test]
fn the_prototype_refuses_and_the_others_wait() {
    let scripts = [single(0, 0), single(1, 1)];
    let refused = |policy| {
        let site = site(policy, vec![256]);
        simulate(&costs(), &site, &scripts, Duration::from_secs(5)).refused
    };
    assert_eq!(refused(Policy::Prototype), 1);
    for policy in [
        Policy::Paper,
        Policy::Cost,
        Policy::AllInOne,
        Policy::OneToOne,
    ] {
        assert_eq!(refused(policy), 0, "{policy:?}");
    }
}
