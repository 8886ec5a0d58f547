//! The device: what a simulated enclave asks its processor, over a Unix stream socket that is its standard input.
//!
//! A request is an operation (one byte), a length (32 bits, big-endian) and that many bytes of payload, at most
//! [`MAX_PAYLOAD`]. A response is a status (one byte), a length (32 bits, big-endian) and a payload. Requests are
//! answered one at a time, in their order.
//!
//! | operation | payload | response |
//! |---|---|---|
//! | 0 HELLO | none | the ASCII text [`VERSION`] |
//! | 1 QUOTE | 64 bytes of report data | a DCAP quote: SGX version 3, or TDX version 4 |
//! | 2 SEAL_KEY | one byte: the policy, 0 by measurement, 1 by signer; for 1 optionally two bytes, big-endian: a security version, at most the program's own, which is meant if they are absent | 32 bytes |
//!
//! Status 0 is success; status 1 is a refusal, its payload a reason in UTF-8. After an unknown operation or a payload
//! of the wrong length the connection goes on. A broken frame (a payload that is announced too long, or that ends too
//! early) ends it, because nobody can say where the next one begins.
//!
//! A request carries no measurement: the device answers for the one it was given by the launcher. A trust domain gets no
//! sealing key, because TDX 1.5 has none. Each quote shows the machine as its file has it at that moment, so that faults
//! which another process applies take effect.

use std::io::{self, ErrorKind, Read, Write};

use zeroize::{Zeroize, Zeroizing};

use crate::follow::Follower;
use crate::{Machine, Measured, Measurement, SealPolicy, SimteeError};

/// What HELLO answers: the name of the protocol and its version.
pub const VERSION: &str = "simtee/1";
/// The largest payload of a request, checked before memory is allocated for it.
pub const MAX_PAYLOAD: u32 = 65_536;

/// Operation: which protocol is this?
pub const OP_HELLO: u8 = 0;
/// Operation: a quote over 64 bytes of report data.
pub const OP_QUOTE: u8 = 1;
/// Operation: a sealing key under a policy.
pub const OP_SEAL_KEY: u8 = 2;

/// Status: the payload is the answer.
pub const STATUS_OK: u8 = 0;
/// Status: the payload is the reason of a refusal, in UTF-8.
pub const STATUS_REFUSED: u8 = 1;

/// Why the device stopped serving a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A request announced a payload longer than the protocol allows.
    #[error(
        "a request announced {length} bytes of payload, more than the {MAX_PAYLOAD} that the protocol allows"
    )]
    TooLong {
        /// The length that was announced.
        length: u32,
    },
    /// The connection ended in the middle of a request.
    #[error("the connection ended in the middle of a request")]
    Truncated,
    /// Reading or writing failed.
    #[error("the connection to the simulated enclave failed")]
    Io(#[source] io::Error),
}

/// Serves one enclave or trust domain with this measurement until it closes the connection.
///
/// # Errors
///
/// [`DeviceError`] if the program breaks the protocol or the connection fails.
pub fn serve(
    machine: &Machine,
    measured: impl Into<Measured>,
    mut connection: impl Read + Write,
) -> Result<(), DeviceError> {
    let mut device = Device {
        machine,
        follower: Follower::of(machine),
        measured: measured.into(),
    };
    while let Some(request) = read_request(&mut connection)? {
        let response = match request {
            Request::Complete { operation, payload } => device.answer(operation, &payload),
            Request::TooLong { length } => {
                let error = DeviceError::TooLong { length };
                write_response(&mut connection, &Response::Refused(error.to_string()))?;
                return Err(error);
            }
        };
        write_response(&mut connection, &response)?;
    }
    Ok(())
}

enum Request {
    Complete { operation: u8, payload: Vec<u8> },
    TooLong { length: u32 },
}

enum Response {
    Ok(Zeroizing<Vec<u8>>),
    Refused(String),
}

impl Response {
    fn ok(payload: impl Into<Vec<u8>>) -> Self {
        Self::Ok(Zeroizing::new(payload.into()))
    }
}

impl From<Result<Vec<u8>, SimteeError>> for Response {
    fn from(result: Result<Vec<u8>, SimteeError>) -> Self {
        match result {
            Ok(payload) => Self::ok(payload),
            Err(error) => Self::Refused(with_causes(&error)),
        }
    }
}

/// The device of one running program.
struct Device<'a> {
    machine: &'a Machine,
    follower: Follower<&'a Machine>,
    measured: Measured,
}

impl Device<'_> {
    fn answer(&mut self, operation: u8, payload: &[u8]) -> Response {
        match operation {
            OP_HELLO if payload.is_empty() => Response::ok(VERSION),
            OP_HELLO => wrong_length("HELLO", "0", payload),
            OP_QUOTE => match payload.try_into() {
                Ok(report_data) => self.quote(report_data).into(),
                Err(_) => wrong_length("QUOTE", "64", payload),
            },
            OP_SEAL_KEY => self.seal_key(payload),
            unknown => Response::Refused(format!("unknown operation {unknown}")),
        }
    }

    fn quote(&mut self, report_data: &[u8; 64]) -> Result<Vec<u8>, SimteeError> {
        let machine = self.follower.current()?;
        match &self.measured {
            Measured::Sgx(measurement) => machine.quote(measurement, report_data),
            Measured::Tdx(measurement) => machine.td_quote(measurement, report_data),
        }
    }

    fn seal_key(&self, payload: &[u8]) -> Response {
        let (policy, version) = match *payload {
            [policy] => (policy, None),
            [policy, high, low] => (policy, Some(u16::from_be_bytes([high, low]))),
            _ => return wrong_length("SEAL_KEY", "1 or 3", payload),
        };
        let Measured::Sgx(measurement) = &self.measured else {
            return Response::Refused(
                "TDX 1.5 has no sealing keys; a trust domain gets its keys from a key service or from peers".to_owned(),
            );
        };
        match (SealPolicy::try_from(policy), version) {
            (Ok(policy), None) => sealed(self.machine.seal_key(measurement, policy)),
            (Ok(SealPolicy::Signer), Some(version)) => self.older_key(measurement, version),
            (Ok(SealPolicy::Measurement), Some(_)) => Response::Refused(
                "a sealing key by measurement has no security version; leave it out".to_owned(),
            ),
            (Err(unknown), _) => Response::Refused(format!("unknown sealing policy {unknown}")),
        }
    }

    fn older_key(&self, measurement: &Measurement, version: u16) -> Response {
        match self.machine.seal_key_of_version(measurement, version) {
            Ok(key) => sealed(key),
            Err(error) => Response::Refused(error.to_string()),
        }
    }
}

fn sealed(mut key: [u8; 32]) -> Response {
    let response = Response::ok(key);
    key.zeroize();
    response
}

/// The error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn wrong_length(operation: &str, expected: &str, payload: &[u8]) -> Response {
    Response::Refused(format!(
        "{operation} takes {expected} bytes of payload, not {}",
        payload.len()
    ))
}

/// The next request, or `None` if the connection ended between two requests.
fn read_request(connection: &mut impl Read) -> Result<Option<Request>, DeviceError> {
    let Some(operation) = read_operation(connection)? else {
        return Ok(None);
    };
    let mut length = [0; 4];
    connection.read_exact(&mut length).map_err(broken)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_PAYLOAD {
        return Ok(Some(Request::TooLong { length }));
    }
    let mut payload = vec![0; length as usize];
    connection.read_exact(&mut payload).map_err(broken)?;
    Ok(Some(Request::Complete { operation, payload }))
}

fn read_operation(connection: &mut impl Read) -> Result<Option<u8>, DeviceError> {
    let mut operation = [0];
    match connection.read_exact(&mut operation) {
        Ok(()) => Ok(Some(operation[0])),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(DeviceError::Io(error)),
    }
}

fn write_response(connection: &mut impl Write, response: &Response) -> Result<(), DeviceError> {
    let (status, payload) = match response {
        Response::Ok(payload) => (STATUS_OK, payload.as_slice()),
        Response::Refused(reason) => (STATUS_REFUSED, reason.as_bytes()),
    };
    // Answers are quotes, keys and one-line reasons: a few KiB, far from the limit of the length field.
    let mut frame = Zeroizing::new(Vec::with_capacity(payload.len().saturating_add(5)));
    frame.push(status);
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    connection
        .write_all(&frame)
        .and_then(|()| connection.flush())
        .map_err(DeviceError::Io)
}

fn broken(error: io::Error) -> DeviceError {
    match error.kind() {
        ErrorKind::UnexpectedEof => DeviceError::Truncated,
        _ => DeviceError::Io(error),
    }
}
