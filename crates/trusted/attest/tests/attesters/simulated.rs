//! A simulator at the other end of the socket that behaves in one way after another, or is none.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sesemi_attest::evidence::{EvidenceError, MAX_EVIDENCE};
use sesemi_attest::tee::simulated::SimulatedTee;
use sesemi_attest::{Attester as _, AttesterError, SealBinding, TeeKind};

use crate::{AMPLE, SOON, in_time, patiently, report_data, sgx_quote, tdx_quote};

const HELLO: u8 = 0;
const QUOTE: u8 = 1;

fn frame(status: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[status][..], &length.to_be_bytes(), payload].concat()
}

/// A simulator that answers each request with the next of `answers`, then keeps the socket open, and silent, until the
/// other side closes it.
fn simulator(mut socket: UnixStream, answers: Vec<Vec<u8>>) -> JoinHandle<Vec<Vec<u8>>> {
    thread::spawn(move || {
        let mut requests = Vec::new();
        let mut answers = answers.into_iter();
        let mut head = [0; 5];
        while socket.read_exact(&mut head).is_ok() {
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let mut payload = vec![0; length as usize];
            socket.read_exact(&mut payload).unwrap();
            requests.push([&head[..1], &payload].concat());
            if let Some(answer) = answers.next() {
                socket.write_all(&answer).unwrap();
            }
        }
        requests
    })
}

/// What a program makes of such a simulator.
fn over(
    answers: Vec<Vec<u8>>,
    deadline: Duration,
) -> (
    Result<SimulatedTee, AttesterError>,
    JoinHandle<Vec<Vec<u8>>>,
) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let simulator = simulator(theirs, answers);
    (SimulatedTee::over(ours, deadline), simulator)
}

fn greeting() -> Vec<u8> {
    frame(0, b"simtee/1")
}

fn quote() -> Vec<u8> {
    frame(0, &sgx_quote(&report_data(1), 1))
}

/// A TEE that was found and then meets these answers.
fn found_then(answers: &[Vec<u8>], deadline: Duration) -> SimulatedTee {
    let answers = [&[greeting(), quote()], answers].concat();
    over(answers, deadline).0.unwrap()
}

#[test]
fn a_simulator_is_greeted_and_says_by_its_evidence_what_it_plays() {
    let (tee, simulator) = over(
        vec![greeting(), quote(), quote(), frame(0, &[5; 32])],
        AMPLE,
    );
    let tee = tee.unwrap();
    assert_eq!((tee.name(), tee.tee()), ("simulated", TeeKind::Sgx));
    let evidence = tee.evidence(&report_data(1)).unwrap();
    assert_eq!(evidence.as_bytes(), sgx_quote(&report_data(1), 1));
    let key = tee.sealing_key(SealBinding::Measurement).unwrap();
    assert_eq!(key.expose(), &[5; 32]);
    drop(tee);
    let asked = simulator.join().unwrap();
    assert_eq!(asked[0], [HELLO]);
    assert_eq!(asked[1], [&[QUOTE][..], &[0; 64]].concat());
    assert_eq!(asked[2], [&[QUOTE][..], &report_data(1)].concat());

    let tdx = frame(0, &tdx_quote(4, &report_data(1)));
    assert_eq!(
        over(vec![greeting(), tdx], AMPLE).0.unwrap().tee(),
        TeeKind::Tdx
    );
}

#[test]
fn what_is_no_simulator_is_not_taken_for_one() {
    type IsExpected = fn(AttesterError) -> bool;
    let cases: [(Vec<u8>, IsExpected); 4] = [
        (frame(0, b"simtee/2"), |error| {
            matches!(
                error,
                AttesterError::Contract("another greeting than simtee/1")
            )
        }),
        // A web server, say: its first bytes announce a length that nobody allocates.
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), |error| {
            matches!(error, AttesterError::Contract("answer too long"))
        }),
        (frame(1, b"who are you?"), |error| {
            matches!(error, AttesterError::Refused(_))
        }),
        (frame(0, b""), |error| {
            matches!(error, AttesterError::Contract(_))
        }),
    ];
    for (answer, is_expected) in cases {
        let (tee, _) = over(vec![answer], AMPLE);
        assert!(is_expected(tee.unwrap_err()));
    }
    let (tee, _) = over(vec![greeting(), frame(0, b"no quote")], AMPLE);
    assert!(matches!(
        tee,
        Err(AttesterError::Evidence(EvidenceError::Unknown))
    ));
}

#[test]
fn a_simulator_that_hangs_is_given_up() {
    assert!(matches!(
        over(vec![], SOON).0,
        Err(AttesterError::TimedOut("answer"))
    ));
    // Half an answer, and an answer without its last byte.
    for answer in [
        frame(0, b"simtee/1")[..3].to_vec(),
        greeting()[..12].to_vec(),
    ] {
        assert!(matches!(
            over(vec![answer], SOON).0,
            Err(AttesterError::TimedOut("answer"))
        ));
    }
}

#[test]
fn a_simulator_that_hangs_up_is_a_device_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(matches!(
        SimulatedTee::over(ours, AMPLE),
        Err(AttesterError::Device(_))
    ));
}

#[test]
fn after_an_exchange_broke_off_no_later_answer_is_read() {
    let too_long = [
        &[0][..],
        &u32::try_from(MAX_EVIDENCE + 1).unwrap().to_be_bytes(),
    ]
    .concat();
    for (answer, deadline) in [(too_long, AMPLE), (vec![0, 0], SOON)] {
        let answers = [greeting(), quote(), answer, quote()];
        let (tee, simulator) = patiently(|| {
            let (tee, simulator) = over(answers.to_vec(), deadline);
            in_time(tee).map(|tee| (tee, simulator))
        });
        assert!(matches!(
            tee.evidence(&report_data(1)),
            Err(AttesterError::Contract("answer too long") | AttesterError::TimedOut("answer"))
        ));
        for _ in 0..2 {
            assert!(matches!(
                tee.evidence(&report_data(1)),
                Err(AttesterError::OutOfService(_))
            ));
            assert!(matches!(
                tee.sealing_key(SealBinding::Measurement),
                Err(AttesterError::OutOfService(_))
            ));
        }
        // The socket was closed, so the simulator has ended although the attester lives.
        assert_eq!(simulator.join().unwrap().len(), 3);
        drop(tee);
    }
}

#[test]
fn after_a_refusal_the_device_goes_on() {
    let tee = found_then(&[frame(1, b"not today"), quote()], AMPLE);
    let Err(AttesterError::Refused(reason)) = tee.evidence(&report_data(1)) else {
        panic!("was not refused");
    };
    assert_eq!(reason, "not today");
    assert!(tee.evidence(&report_data(1)).is_ok());
}

#[test]
fn a_key_of_another_length_is_refused() {
    for length in [0, 31, 33] {
        let tee = found_then(&[frame(0, &vec![1; length])], AMPLE);
        assert!(matches!(
            tee.sealing_key(SealBinding::Measurement),
            Err(AttesterError::Contract("sealing key has another length"))
        ));
    }
}
