//! The simulated TEE, seen from inside: a socket to `simtee`, which measured and started this process.
//!
//! The socket is standard input, so that no descriptor number has to be believed and no unsafe code is needed to own it.
//! The protocol (spec/simtee.md) is that of a device: one byte for the operation, four for the length, then the payload.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sesemi_protocol::SecretKey;
use zeroize::Zeroizing;

use crate::attester::{Attester, AttesterError};
use crate::evidence::{Evidence, MAX_QUOTE};

const HELLO: u8 = 0;
const QUOTE: u8 = 1;
const SEAL_KEY: u8 = 2;
const STATUS_OK: u8 = 0;
const GREETING: &[u8] = b"simtee/1";
/// Sealing policy: bound to the measurement.
const BY_MEASUREMENT: u8 = 0;
/// Longest a device may take; a device that hangs must not hang us.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The device of the simulated TEE.
#[derive(Debug)]
pub struct SimulatedTee {
    device: Mutex<UnixStream>,
}

impl SimulatedTee {
    /// Looks for the device at standard input; `None` if standard input is no socket.
    ///
    /// # Errors
    /// [`AttesterError`] if there is a socket, but not one that speaks for a simulated TEE.
    pub fn detect() -> Result<Option<Self>, AttesterError> {
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        match stream.local_addr() {
            Ok(_) => Self::over(stream).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Uses a socket to a simulator.
    ///
    /// # Errors
    /// [`AttesterError`] if the other side is no simulator.
    pub fn over(stream: UnixStream) -> Result<Self, AttesterError> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let tee = Self {
            device: Mutex::new(stream),
        };
        if tee.ask(HELLO, &[])?.as_slice() != GREETING {
            return Err(AttesterError::Contract("another greeting than simtee/1"));
        }
        Ok(tee)
    }

    fn ask(&self, operation: u8, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, AttesterError> {
        let length = u32::try_from(payload.len())
            .map_err(|_| AttesterError::Contract("request too long"))?;
        let mut request = vec![operation];
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(payload);

        // A panic elsewhere cannot leave a half-written request behind: the lock covers only what follows.
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.write_all(&request)?;
        let mut status = [0; 1];
        device.read_exact(&mut status)?;
        let mut length = [0; 4];
        device.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_QUOTE)
            .ok_or(AttesterError::Contract("answer too long"))?;
        let mut answer = Zeroizing::new(vec![0; length]);
        device.read_exact(&mut answer)?;
        drop(device);
        match status {
            [STATUS_OK] => Ok(answer),
            _ => Err(AttesterError::Refused(
                String::from_utf8_lossy(&answer).into_owned(),
            )),
        }
    }
}

impl Attester for SimulatedTee {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let quote = self.ask(QUOTE, report_data)?;
        Ok(Evidence::from_quote(quote.to_vec())?)
    }

    fn sealing_key(&self) -> Result<SecretKey, AttesterError> {
        let key = self.ask(SEAL_KEY, &[BY_MEASUREMENT])?;
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(
            key.as_slice()
                .try_into()
                .map_err(|_| AttesterError::Contract("sealing key has another length"))?,
        );
        Ok(SecretKey::from_bytes(*bytes))
    }
}
