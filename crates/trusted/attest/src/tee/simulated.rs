//! The simulated TEE, seen from inside: a socket to `simtee`, which measured and started this process.
//!
//! The socket is standard input, so that no descriptor number has to be believed and no unsafe code is needed to own it.
//! The protocol (spec/simtee.md) is that of a device: one byte for the operation, four for the length, then the payload.
//!
//! Requests and answers carry no number. After an exchange that broke off half-way nobody could say which request the next
//! answer is for, so the socket is closed then and every later call says so. An inherited socket cannot be opened again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sesemi_protocol::SecretKey;
use zeroize::Zeroizing;

use crate::attester::{Attester, AttesterError, SealBinding};
use crate::code_identity::TeeKind;
use crate::evidence::{Evidence, MAX_EVIDENCE};

const HELLO: u8 = 0;
const QUOTE: u8 = 1;
const SEAL_KEY: u8 = 2;
const STATUS_OK: u8 = 0;
const GREETING: &[u8] = b"simtee/1";
/// Sealing policy: bound to the measurement.
const BY_MEASUREMENT: u8 = 0;
/// Sealing policy: bound to the signer and a security version.
const BY_SIGNER: u8 = 1;
/// Longest an exchange may take; a device that hangs must not hang us.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The device of the simulated TEE.
#[derive(Debug)]
pub struct SimulatedTee {
    /// `None` once an exchange broke off.
    device: Mutex<Option<UnixStream>>,
    deadline: Duration,
    tee: TeeKind,
}

impl SimulatedTee {
    /// Looks for the device at `input`; `None` if that is no Unix socket.
    ///
    /// # Errors
    /// [`AttesterError`] if there is a socket, but not one that speaks for a simulated TEE.
    pub fn detect(input: BorrowedFd<'_>) -> Result<Option<Self>, AttesterError> {
        let stream = UnixStream::from(input.try_clone_to_owned()?);
        match stream.local_addr() {
            Ok(_) => Self::over(stream, DEADLINE).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Uses a socket to a simulator. No exchange with it takes longer than `deadline`.
    ///
    /// # Errors
    /// [`AttesterError`] if the other side is no simulator.
    pub fn over(stream: UnixStream, deadline: Duration) -> Result<Self, AttesterError> {
        let mut tee = Self {
            device: Mutex::new(Some(stream)),
            deadline,
            tee: TeeKind::Sgx,
        };
        if tee.ask(HELLO, &[])?.as_slice() != GREETING {
            return Err(AttesterError::Contract("another greeting than simtee/1"));
        }
        // The simulator plays more than one kind of TEE; what it plays shows in what it gives.
        tee.tee = tee.evidence(&[0; 64])?.tee();
        Ok(tee)
    }

    fn ask(&self, operation: u8, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, AttesterError> {
        let length = u32::try_from(payload.len())
            .map_err(|_| AttesterError::Contract("request too long"))?;
        let mut request = vec![operation];
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(payload);

        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever ends the exchange early, also a panic, leaves nothing behind that could be asked again.
        let stream = device.take().ok_or(AttesterError::OutOfService(
            "an earlier exchange with the simulator broke off; start this program anew",
        ))?;
        let until = Instant::now().checked_add(self.deadline).ok_or(TIMED_OUT)?;
        let exchange = Exchange {
            stream: &stream,
            until,
        };
        let (status, answer) = exchange.run(&request)?;
        *device = Some(stream);
        drop(device);
        match status {
            STATUS_OK => Ok(answer),
            _ => Err(AttesterError::Refused(
                String::from_utf8_lossy(&answer).into_owned(),
            )),
        }
    }
}

const TIMED_OUT: AttesterError = AttesterError::TimedOut("answer");

/// One request and its answer.
struct Exchange<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl Exchange<'_> {
    fn run(&self, request: &[u8]) -> Result<(u8, Zeroizing<Vec<u8>>), AttesterError> {
        self.send(request)?;
        let mut head = [0; 5];
        self.receive(&mut head)?;
        let [status, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_EVIDENCE)
            .ok_or(AttesterError::Contract("answer too long"))?;
        let mut answer = Zeroizing::new(vec![0; length]);
        self.receive(&mut answer)?;
        Ok((status, answer))
    }

    fn send(&self, mut bytes: &[u8]) -> Result<(), AttesterError> {
        let mut stream = self.stream;
        while !bytes.is_empty() {
            stream.set_write_timeout(Some(self.left()?))?;
            match stream.write(bytes) {
                Ok(0) => return Err(AttesterError::Device(ErrorKind::WriteZero.into())),
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) => retry(error)?,
            }
        }
        Ok(())
    }

    /// Fills `bytes`. The deadline is for all of them: a device that gives one at a time gains nothing.
    fn receive(&self, mut bytes: &mut [u8]) -> Result<(), AttesterError> {
        let mut stream = self.stream;
        while !bytes.is_empty() {
            stream.set_read_timeout(Some(self.left()?))?;
            match stream.read(bytes) {
                Ok(0) => return Err(AttesterError::Device(ErrorKind::UnexpectedEof.into())),
                Ok(got) => bytes = bytes.get_mut(got..).unwrap_or_default(),
                Err(error) => retry(error)?,
            }
        }
        Ok(())
    }

    fn left(&self) -> Result<Duration, AttesterError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(TIMED_OUT)
        } else {
            Ok(left)
        }
    }
}

fn retry(error: std::io::Error) -> Result<(), AttesterError> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(TIMED_OUT),
        _ => Err(error.into()),
    }
}

impl Attester for SimulatedTee {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let quote = self.ask(QUOTE, report_data)?;
        Ok(Evidence::from_bytes(quote.to_vec())?)
    }

    fn tee(&self) -> TeeKind {
        self.tee
    }

    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError> {
        let request = match binding {
            SealBinding::Measurement => vec![BY_MEASUREMENT],
            SealBinding::Signer {
                security_version: None,
            } => vec![BY_SIGNER],
            SealBinding::Signer {
                security_version: Some(version),
            } => {
                let [high, low] = version.to_be_bytes();
                vec![BY_SIGNER, high, low]
            }
        };
        let key = self.ask(SEAL_KEY, &request)?;
        SecretKey::from_slice(&key).ok_or(AttesterError::Contract("sealing key has another length"))
    }
}
