//! The device: what a simulated enclave asks its processor, over a Unix stream socket that is its standard input.
//!
//! A request is an operation (one byte), a length (32 bits, big-endian) and that many bytes of payload, at most
//! [`MAX_PAYLOAD`]. A response is a status (one byte), a length (32 bits, big-endian) and a payload. Requests are
//! answered one at a time, in their order.
//!
//! | operation | payload | response |
//! |---|---|---|
//! | 0 HELLO | none | the ASCII text [`VERSION`] |
//! | 1 QUOTE | 64 bytes of report data | an SGX DCAP quote, version 3 |
//! | 2 SEAL_KEY | one byte: the policy, 0 by measurement, 1 by signer | 32 bytes |
//!
//! Status 0 is success; status 1 is a refusal, its payload a reason in UTF-8. After an unknown operation or a payload
//! of the wrong length the connection goes on. A broken frame (a payload that is announced too long, or that ends too
//! early) ends it, because nobody can say where the next one begins.
//!
//! A request carries no measurement: the device answers for the one it was given by the launcher.

use std::io::{self, ErrorKind, Read, Write};

use zeroize::{Zeroize, Zeroizing};

use crate::{Machine, Measurement, SealPolicy};

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

/// Serves one enclave with this measurement until it closes the connection.
pub fn serve(
    machine: &Machine,
    measurement: &Measurement,
    mut connection: impl Read + Write,
) -> Result<(), DeviceError> {
    while let Some(request) = read_request(&mut connection)? {
        let response = match request {
            Request::Complete { operation, payload } => {
                answer(machine, measurement, operation, &payload)
            }
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

fn answer(machine: &Machine, measurement: &Measurement, operation: u8, payload: &[u8]) -> Response {
    match operation {
        OP_HELLO if payload.is_empty() => Response::ok(VERSION),
        OP_HELLO => wrong_length("HELLO", 0, payload),
        OP_QUOTE => match payload.try_into() {
            Ok(report_data) => quote(machine, measurement, report_data),
            Err(_) => wrong_length("QUOTE", 64, payload),
        },
        OP_SEAL_KEY => match *payload {
            [policy] => seal_key(machine, measurement, policy),
            _ => wrong_length("SEAL_KEY", 1, payload),
        },
        unknown => Response::Refused(format!("unknown operation {unknown}")),
    }
}

fn quote(machine: &Machine, measurement: &Measurement, report_data: &[u8; 64]) -> Response {
    match machine.quote(measurement, report_data) {
        Ok(quote) => Response::ok(quote),
        Err(error) => Response::Refused(error.to_string()),
    }
}

fn seal_key(machine: &Machine, measurement: &Measurement, policy: u8) -> Response {
    match SealPolicy::try_from(policy) {
        Ok(policy) => {
            let mut key = machine.seal_key(measurement, policy);
            let response = Response::ok(key);
            key.zeroize();
            response
        }
        Err(unknown) => Response::Refused(format!("unknown sealing policy {unknown}")),
    }
}

fn wrong_length(operation: &str, expected: usize, payload: &[u8]) -> Response {
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
