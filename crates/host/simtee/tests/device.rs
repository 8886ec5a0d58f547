//! The device protocol, frame by frame.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::SystemTime;

use dcap_qvl::quote::Quote;
use sesemi_simtee::device::{self, DeviceError, MAX_PAYLOAD, OP_HELLO, OP_QUOTE, OP_SEAL_KEY};
use sesemi_simtee::{Machine, Measurement, SealPolicy};

struct Session {
    socket: UnixStream,
    device: JoinHandle<Result<(), DeviceError>>,
    by_measurement: [u8; 32],
}

fn program() -> Measurement {
    Measurement::of_elf(b"a program")
}

fn session() -> Session {
    let state = tempfile::tempdir().unwrap();
    let machine = Machine::create(state.path(), SystemTime::now()).unwrap();
    let by_measurement = machine.seal_key(&program(), SealPolicy::Measurement);
    let (socket, host) = UnixStream::pair().unwrap();
    let device = std::thread::spawn(move || device::serve(&machine, &program(), host));
    Session {
        socket,
        device,
        by_measurement,
    }
}

impl Session {
    fn send(&mut self, operation: u8, length: u32, payload: &[u8]) {
        self.socket
            .write_all(&[&[operation], length.to_be_bytes().as_slice(), payload].concat())
            .unwrap();
    }

    fn receive(&mut self) -> Result<Vec<u8>, String> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes(head[1..].try_into().unwrap()) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        match head[0] {
            device::STATUS_OK => Ok(payload),
            device::STATUS_REFUSED => Err(String::from_utf8(payload).unwrap()),
            other => panic!("unknown status {other}"),
        }
    }

    fn ask(&mut self, operation: u8, payload: &[u8]) -> Result<Vec<u8>, String> {
        self.send(operation, payload.len() as u32, payload);
        self.receive()
    }

    fn end(self) -> Result<(), DeviceError> {
        self.socket.shutdown(Shutdown::Write).unwrap();
        self.device.join().unwrap()
    }
}

#[test]
fn the_device_greets_quotes_and_gives_sealing_keys() {
    let mut session = session();
    assert_eq!(session.ask(OP_HELLO, &[]).unwrap(), b"simtee/1");
    let quote = Quote::parse(&session.ask(OP_QUOTE, &[9; 64]).unwrap()).unwrap();
    let report = quote.report.as_sgx().unwrap();
    assert_eq!(
        (report.mr_enclave, report.report_data),
        (program().mr_enclave, [9; 64])
    );
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[0]).unwrap(),
        session.by_measurement
    );
    assert_ne!(
        session.ask(OP_SEAL_KEY, &[1]).unwrap(),
        session.by_measurement
    );
    session.end().unwrap();
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_connection_goes_on() {
    let mut session = session();
    assert_eq!(session.ask(9, &[]).unwrap_err(), "unknown operation 9");
    assert_eq!(
        session.ask(9, &[0; MAX_PAYLOAD as usize]).unwrap_err(),
        "unknown operation 9"
    );
    assert_eq!(
        session.ask(OP_HELLO, &[1]).unwrap_err(),
        "HELLO takes 0 bytes of payload, not 1"
    );
    assert_eq!(
        session.ask(OP_QUOTE, &[0; 63]).unwrap_err(),
        "QUOTE takes 64 bytes of payload, not 63"
    );
    // A quote request that tries to name a measurement of its own is just too long.
    assert!(session.ask(OP_QUOTE, &[0; 96]).is_err());
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[]).unwrap_err(),
        "SEAL_KEY takes 1 bytes of payload, not 0"
    );
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[2]).unwrap_err(),
        "unknown sealing policy 2"
    );
    assert_eq!(session.ask(OP_HELLO, &[]).unwrap(), b"simtee/1");
    session.end().unwrap();
}

#[test]
fn a_payload_that_is_announced_too_long_is_refused_unread_and_ends_the_connection() {
    for length in [MAX_PAYLOAD + 1, u32::MAX] {
        let mut session = session();
        session.send(OP_QUOTE, length, &[]);
        assert!(session.receive().unwrap_err().contains(&length.to_string()));
        assert_eq!(session.socket.read(&mut [0]).unwrap(), 0);
        assert!(
            matches!(session.device.join().unwrap(), Err(DeviceError::TooLong { length: l }) if l == length)
        );
    }
}

#[test]
fn a_frame_that_ends_too_early_ends_the_connection() {
    let mut in_the_payload = session();
    in_the_payload.send(OP_QUOTE, 64, &[0; 63]);
    assert!(matches!(in_the_payload.end(), Err(DeviceError::Truncated)));
    let mut in_the_length = session();
    in_the_length.socket.write_all(&[OP_HELLO, 0, 0]).unwrap();
    assert!(matches!(in_the_length.end(), Err(DeviceError::Truncated)));
}

#[test]
fn requests_may_be_sent_ahead_and_are_answered_in_order() {
    let mut session = session();
    session.send(OP_HELLO, 0, &[]);
    session.send(7, 0, &[]);
    session.send(OP_SEAL_KEY, 1, &[0]);
    assert_eq!(session.receive().unwrap(), b"simtee/1");
    assert_eq!(session.receive().unwrap_err(), "unknown operation 7");
    assert_eq!(session.receive().unwrap(), session.by_measurement);
}
