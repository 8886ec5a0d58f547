//! The collateral over HTTP: fetched as a DCAP client does it, it is the collateral that the machine publishes.
//!
//! The steps are those of the collateral client in the verifier's library (its client itself would bring a second
//! cryptographic provider): which paths it asks, which headers it reads, how it decodes them and puts them together.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sesemi_simtee::{
    FMSPC, Fault, MAX_CONNECTIONS, MAX_HEAD_BYTES, Machine, Measurement, TdMeasurement, Tee,
};

/// Far more than any answer takes; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `simtee serve` in the background; ended with the test.
struct Service {
    simtee: Child,
    address: SocketAddr,
}

impl Service {
    fn start(state: &Path) -> Self {
        let mut simtee = Command::new(env!("CARGO_BIN_EXE_simtee"))
            .args(["serve", "--state", state.to_str().unwrap()])
            .args(["--listen", "127.0.0.1:0", "--die-with-parent"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(simtee.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], "listening");
        let address = event["address"].as_str().unwrap().parse().unwrap();
        Self { simtee, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn send(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        Answer::read(stream)
    }

    fn get(&self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nhost: pccs\r\n\r\n"))
    }

    /// What a DCAP client makes of the four resources.
    fn fetch(&self, tee: &str) -> QuoteCollateralV3 {
        let pck_crl = self.get("/sgx/certification/v4/pckcrl?ca=platform&encoding=der");
        let fmspc = hex::encode_upper(FMSPC);
        let tcb = self.get(&format!(
            "/{tee}/certification/v4/tcb?fmspc={fmspc}&update=standard"
        ));
        let qe = self.get(&format!(
            "/{tee}/certification/v4/qe/identity?update=standard"
        ));
        let root_crl = self.get("/sgx/certification/v4/rootcacrl");
        let (tcb_info, tcb_info_signature) = tcb.signed("tcbInfo");
        let (qe_identity, qe_identity_signature) = qe.signed("enclaveIdentity");
        QuoteCollateralV3 {
            pck_crl_issuer_chain: pck_crl.chain("SGX-PCK-CRL-Issuer-Chain"),
            root_ca_crl: hex::decode(root_crl.success().body).unwrap(),
            tcb_info_issuer_chain: tcb.chain("TCB-Info-Issuer-Chain"),
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain: qe.chain("SGX-Enclave-Identity-Issuer-Chain"),
            qe_identity,
            qe_identity_signature,
            pck_crl: pck_crl.success().body,
            pck_certificate_chain: None,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.simtee.kill();
        let _ = self.simtee.wait();
    }
}

struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        Self {
            head: String::from_utf8(bytes[..end].to_vec()).unwrap(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn success(self) -> Self {
        assert_eq!(self.status(), 200, "{}", self.head);
        self
    }

    fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
            .unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// A percent-encoded chain of certificates.
    fn chain(&self, name: &str) -> String {
        let mut parts = self.header(name).split('%');
        let mut decoded = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (digits, plain) = part.split_at(2);
            decoded.push(u8::from_str_radix(digits, 16).unwrap());
            decoded.extend_from_slice(plain.as_bytes());
        }
        String::from_utf8(decoded).unwrap()
    }

    /// The content that was signed, parsed and written again, and its signature.
    fn signed(&self, name: &str) -> (String, Vec<u8>) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        let signature = hex::decode(body["signature"].as_str().unwrap()).unwrap();
        (body[name].to_string(), signature)
    }
}

fn machine() -> (Machine, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::create(directory.path(), SystemTime::now()).unwrap();
    (machine, directory)
}

fn accepted(machine: &Machine, quote: &[u8], collateral: &QuoteCollateralV3) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    QuoteVerifier::new(machine.root_der().to_vec())
        .verify_with_policy(quote, collateral, now, &QuotePolicy::strict(now))
        .is_ok()
}

#[test]
fn collateral_fetched_over_http_is_the_published_one_and_verifies_quotes() {
    let (machine, directory) = machine();
    let service = Service::start(directory.path());
    let (sgx, tdx) = (service.fetch("sgx"), service.fetch("tdx"));
    assert_eq!(&sgx, machine.collateral());
    assert_eq!(&tdx, machine.collateral_for(Tee::Tdx));
    let quote = machine
        .quote(&Measurement::of_elf(b"a program"), &[1; 64])
        .unwrap();
    let td_quote = machine
        .td_quote(&TdMeasurement::of_elf(b"a program"), &[1; 64])
        .unwrap();
    assert!(accepted(&machine, &quote, &sgx));
    assert!(accepted(&machine, &td_quote, &tdx));
}

#[test]
fn a_fault_that_another_process_applies_is_served_at_once_and_so_is_its_end() {
    let (mut machine, directory) = machine();
    let service = Service::start(directory.path());
    let quote = machine
        .quote(&Measurement::of_elf(b"a program"), &[1; 64])
        .unwrap();
    assert!(accepted(&machine, &quote, &service.fetch("sgx")));
    machine.apply(Fault::PlatformRevoked).unwrap();
    assert!(!accepted(&machine, &quote, &service.fetch("sgx")));
    machine.heal().unwrap();
    assert!(accepted(&machine, &quote, &service.fetch("sgx")));
    // What is for another model is served all the same: noticing it is the verifier's business.
    machine.apply(Fault::FmspcMismatch).unwrap();
    let served = service.fetch("sgx");
    assert_eq!(&served, machine.collateral());
    assert!(!accepted(&machine, &quote, &served));
}

#[test]
fn the_revocation_list_comes_in_pem_unless_der_is_asked_for() {
    let (machine, directory) = machine();
    let service = Service::start(directory.path());
    let answer = service
        .get("/sgx/certification/v4/pckcrl?ca=platform")
        .success();
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.starts_with("-----BEGIN X509 CRL-----\n"), "{text}");
    let list = pem::parse(text).unwrap();
    assert_eq!(list.contents(), machine.collateral().pck_crl);
}

#[test]
fn requests_that_no_provisioning_service_answers_are_refused_with_a_reason() {
    let (_machine, directory) = machine();
    let service = Service::start(directory.path());
    for (target, status) in [
        ("/", 404),
        ("/sgx/certification/v3/qe/identity", 404),
        ("/sgx/certification/v4/qve/identity", 404),
        ("/tdx/certification/v4/pckcrl?ca=platform", 404),
        ("/sgx/certification/v4/pckcrl", 400),
        ("/sgx/certification/v4/pckcrl?ca=processor", 404),
        ("/sgx/certification/v4/pckcrl?ca=platform&encoding=x", 400),
        ("/sgx/certification/v4/tcb", 400),
        ("/sgx/certification/v4/tcb?fmspc=00906EA10000", 404),
        (
            "/sgx/certification/v4/qe/identity?tcbEvaluationDataNumber=7",
            404,
        ),
    ] {
        let answer = service.get(target);
        assert_eq!(answer.status(), status, "{target}");
        assert!(!answer.body.is_empty(), "{target}");
    }
    let posted = service.send(
        "POST /sgx/certification/v4/qe/identity HTTP/1.1\r\nhost: pccs\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(posted.status(), 405);
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let (_machine, directory) = machine();
    let service = Service::start(directory.path());
    // Exactly as much as the service takes before it gives up, so that nothing is left unread when it closes.
    let start = "GET / HTTP/1.1\r\nhost: pccs\r\nx: ";
    let request = format!("{start}{}", "x".repeat(MAX_HEAD_BYTES - start.len()));
    assert_eq!(service.send(&request).status(), 431);
}

#[test]
fn silent_connections_give_their_places_up_to_others() {
    let (_machine, directory) = machine();
    let service = Service::start(directory.path());
    let silent: Vec<TcpStream> = (0..MAX_CONNECTIONS).map(|_| service.connect()).collect();
    let answer = service.get("/sgx/certification/v4/qe/identity");
    assert_eq!(answer.status(), 200);
    // The service hung up on every one of them before, or does now.
    for mut stream in silent {
        let _ = stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn sigterm_ends_the_service_in_peace() {
    let (_machine, directory) = machine();
    let mut service = Service::start(directory.path());
    let id = Pid::from_raw(service.simtee.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(service.simtee.wait().unwrap().code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let (_machine, directory) = machine();
    let service = Service::start(directory.path());
    let output = Command::new(env!("CARGO_BIN_EXE_simtee"))
        .args(["serve", "--state", directory.path().to_str().unwrap()])
        .args(["--listen", &service.address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("cannot listen on {}", service.address)),
        "{said}"
    );
}
