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
use sesemi_simtee::{Fault, Machine, Measured, Measurement, SealPolicy, TdMeasurement};

/// ATTRIBUTES and TD attributes: DEBUG, in the first byte.
const ENCLAVE_DEBUG: u8 = 2;
const TD_DEBUG: u8 = 1;

struct Session {
    directory: tempfile::TempDir,
    socket: UnixStream,
    device: JoinHandle<Result<(), DeviceError>>,
    by_measurement: [u8; 32],
}

fn program() -> Measurement {
    Measurement::of_elf(b"a program")
}

fn session() -> Session {
    session_of(Measured::from(&program()))
}

fn session_of(measured: Measured) -> Session {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::create(directory.path(), SystemTime::now()).unwrap();
    let by_measurement = machine.seal_key(&program(), SealPolicy::Measurement);
    let (socket, host) = UnixStream::pair().unwrap();
    let device = std::thread::spawn(move || device::serve(&machine, measured, host));
    Session {
        directory,
        socket,
        device,
        by_measurement,
    }
}

fn program_of_version(isv_svn: u16) -> Measurement {
    Measurement {
        isv_svn,
        ..program()
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

    fn quote(&mut self) -> Quote {
        Quote::parse(&self.ask(OP_QUOTE, &[9; 64]).unwrap()).unwrap()
    }

    /// The machine, as another process would find it.
    fn elsewhere(&self) -> Machine {
        Machine::load(self.directory.path()).unwrap()
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
        "SEAL_KEY takes 1 or 3 bytes of payload, not 0"
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

#[test]
fn a_program_gets_the_signer_keys_of_its_own_version_and_older_ones_but_of_no_newer_one() {
    let mut session = session_of(Measured::from(&program_of_version(0x0203)));
    let own = session.ask(OP_SEAL_KEY, &[1]).unwrap();
    let older = session.ask(OP_SEAL_KEY, &[1, 2, 2]).unwrap();
    assert_eq!(session.ask(OP_SEAL_KEY, &[1, 2, 3]).unwrap(), own);
    assert_ne!(older, own);
    // What the older program itself would get.
    let machine = session.elsewhere();
    let key = |isv_svn| machine.seal_key(&program_of_version(isv_svn), SealPolicy::Signer);
    assert_eq!(older, key(0x0202));
    assert_eq!(own, key(0x0203));
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[1, 2, 4]).unwrap_err(),
        "a sealing key of security version 516 is for programs of that version or newer, but this one has version 515"
    );
    assert!(session.ask(OP_SEAL_KEY, &[1, 0xff, 0xff]).is_err());
    session.end().unwrap();
}

#[test]
fn a_key_by_measurement_has_no_version() {
    let mut session = session_of(Measured::from(&program_of_version(3)));
    let refusal = session.ask(OP_SEAL_KEY, &[0, 0, 3]).unwrap_err();
    assert!(refusal.contains("has no security version"), "{refusal}");
    // The same program has the same key whatever its version is said to be.
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[0]).unwrap(),
        session.by_measurement
    );
    for length in [2, 4] {
        let refusal = session.ask(OP_SEAL_KEY, &vec![1; length]).unwrap_err();
        assert!(refusal.starts_with("SEAL_KEY takes 1 or 3 bytes"));
    }
    session.end().unwrap();
}

#[test]
fn a_trust_domain_gets_td_quotes_and_no_sealing_key() {
    let measurement = TdMeasurement::of_elf(b"a program");
    let mut session = session_of(Measured::from(&measurement));
    assert_eq!(session.ask(OP_HELLO, &[]).unwrap(), b"simtee/1");
    let quote = session.quote();
    let report = quote.report.as_td10().unwrap();
    assert_eq!(
        (report.mr_td, report.report_data),
        (measurement.mr_td, [9; 64])
    );
    for payload in [&[0][..], &[1], &[1, 0, 1]] {
        let refusal = session.ask(OP_SEAL_KEY, payload).unwrap_err();
        assert!(refusal.contains("TDX 1.5 has no sealing keys"), "{refusal}");
    }
    session.end().unwrap();
}

#[test]
fn a_fault_that_is_applied_elsewhere_shows_in_the_next_quote_and_so_does_its_end() {
    let mut enclave = session();
    let flags = |session: &mut Session| session.quote().report.as_sgx().unwrap().attributes[0];
    assert_eq!(flags(&mut enclave) & ENCLAVE_DEBUG, 0);
    let mut machine = enclave.elsewhere().with_fault(Fault::Debug).unwrap();
    assert_eq!(flags(&mut enclave) & ENCLAVE_DEBUG, ENCLAVE_DEBUG);
    machine.heal().unwrap();
    assert_eq!(flags(&mut enclave) & ENCLAVE_DEBUG, 0);
    // Keys are those of the machine, whatever is wrong with it.
    assert_eq!(
        enclave.ask(OP_SEAL_KEY, &[0]).unwrap(),
        enclave.by_measurement
    );

    let mut domain = session_of(Measured::from(&TdMeasurement::of_elf(b"a program")));
    domain.elsewhere().apply(Fault::Debug).unwrap();
    let attributes = domain.quote().report.as_td10().unwrap().td_attributes;
    assert_eq!(attributes[0], TD_DEBUG);
}

#[test]
fn a_device_survives_its_file_but_does_not_answer_for_another_machine() {
    let mut session = session();
    let file = session.directory.path().join("machine.json");
    std::fs::remove_file(&file).unwrap();
    assert!(session.ask(OP_QUOTE, &[9; 64]).is_ok());

    std::fs::write(&file, "{}").unwrap();
    let refusal = session.ask(OP_QUOTE, &[9; 64]).unwrap_err();
    assert!(refusal.contains("machine.json is malformed"), "{refusal}");

    std::fs::remove_file(&file).unwrap();
    Machine::create(session.directory.path(), SystemTime::now()).unwrap();
    let refusal = session.ask(OP_QUOTE, &[9; 64]).unwrap_err();
    assert!(refusal.contains("is the file of another machine now"));
    assert_eq!(
        session.ask(OP_SEAL_KEY, &[0]).unwrap(),
        session.by_measurement
    );
}
