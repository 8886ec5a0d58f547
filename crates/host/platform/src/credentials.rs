//! `UUID:KEY`, by which OpenWhisk knows who asks: Basic authentication (RFC 7617) with the two as user and password. The same type
//! is used by the server ([`rest`](crate::rest)) and by the client ([`openwhisk`](crate::openwhisk)).

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Who asks, and the key that proves it. `Debug` shows neither.
#[derive(Clone)]
pub struct Credentials(Zeroizing<String>);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The text is of another form. It is not repeated: a key may be in it.
    #[error(
        "credentials are UUID:KEY, both of visible ASCII characters and neither empty, {} in all at most",
        Credentials::MAX_LEN
    )]
    Malformed,
    /// The file cannot be used.
    #[error("{path} cannot be used: {cause}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Others than its owner may read the file.
    #[error(
        "{path} holds a key, and others than its owner may read it: chmod 600 it, or better replace the key",
        path = .path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(io::Error),
}

impl Credentials {
    /// Longest credentials, in characters.
    pub const MAX_LEN: usize = 512;

    /// New ones: a random UUID and a random key of 256 bits in hexadecimal.
    ///
    /// # Errors
    /// [`CredentialsError::Random`].
    pub fn generate() -> Result<Self, CredentialsError> {
        let mut random = Zeroizing::new([0; 48]);
        let mut filled = 0;
        while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = getrandom(rest, GetRandomFlags::empty());
            filled += read.map_err(|error| CredentialsError::Random(error.into()))?;
        }
        let mut text = Zeroizing::new(String::with_capacity(Self::MAX_LEN));
        for (at, byte) in random.iter().enumerate() {
            match at {
                4 | 6 | 8 | 10 => text.push('-'),
                16 => text.push(':'),
                _ => {}
            }
            // RFC 9562, section 5.4: a random UUID is of version 4 and variant 10.
            let byte = match at {
                6 => byte & 0x0f | 0x40,
                8 => byte & 0x3f | 0x80,
                _ => *byte,
            };
            let _ = write!(*text, "{byte:02x}");
        }
        Ok(Self(text))
    }

    /// Reads a file that holds them, and nothing else but space around them.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |cause| CredentialsError::File {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Exposed {
                path: path.to_owned(),
            });
        }
        let mut text = Zeroizing::new(String::with_capacity(2 * Self::MAX_LEN));
        let most = 2 * Self::MAX_LEN as u64;
        file.take(most).read_to_string(&mut text).map_err(failed)?;
        text.trim().parse()
    }

    /// Reads the file, or writes new ones to it if there is none. Only its owner can read it.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn read_or_create(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |cause| CredentialsError::File {
            path: path.to_owned(),
            cause,
        };
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let mut file = match created {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Self::read(path),
            Err(error) => return Err(failed(error)),
        };
        let credentials = Self::generate()?;
        let line = Zeroizing::new(format!("{}\n", *credentials.0));
        let written = file.write_all(line.as_bytes());
        written.and_then(|()| file.sync_all()).map_err(|cause| {
            // Half a key would be taken for one at the next start.
            let _ = std::fs::remove_file(path);
            failed(cause)
        })?;
        Ok(credentials)
    }

    /// The header `authorization` that carries them.
    pub(crate) fn header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Basic {}", BASE64.encode(self.0.as_bytes())));
        // Base64 has no character that a header may not have.
        let mut header =
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
        header.set_sensitive(true);
        header
    }

    /// Whether a header `authorization` carries them. How long this takes says nothing about how much of it was right.
    pub(crate) fn accept(&self, header: &HeaderValue) -> bool {
        // One character more than any good one: longer texts are not even decoded.
        const MOST: usize = Credentials::MAX_LEN.div_ceil(3) * 4 + 1;
        let Some((scheme, token)) = header.as_bytes().split_at_checked(6) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case(b"basic ") || token.len() > MOST {
            return false;
        }
        let Ok(presented) = BASE64.decode(token.trim_ascii()).map(Zeroizing::new) else {
            return false;
        };
        presented.as_slice().ct_eq(self.0.as_bytes()).into()
    }
}

impl FromStr for Credentials {
    type Err = CredentialsError;

    fn from_str(text: &str) -> Result<Self, CredentialsError> {
        let visible = text.len() <= Self::MAX_LEN && text.bytes().all(|c| c.is_ascii_graphic());
        match text.split_once(':') {
            Some((uuid, key)) if visible && !uuid.is_empty() && !key.is_empty() => {
                Ok(Self(Zeroizing::new(text.to_owned())))
            }
            _ => Err(CredentialsError::Malformed),
        }
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Credentials {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    #[test]
    fn what_is_not_a_name_and_a_key_is_refused_without_being_repeated() {
        for bad in ["", ":", "a:", ":secret", "secret", "a:sec ret", "a:é"] {
            let error = bad.parse::<Credentials>().unwrap_err().to_string();
            assert!(!error.contains("sec"), "{bad:?}: {error}");
        }
        let longest = format!("a:{}", "k".repeat(Credentials::MAX_LEN - 2));
        assert!(longest.parse::<Credentials>().is_ok());
        assert!(format!("{longest}k").parse::<Credentials>().is_err());
    }

    #[test]
    fn only_the_same_credentials_are_accepted() {
        let credentials: Credentials = "user:key".parse().unwrap();
        assert!(credentials.accept(&credentials.header()));
        assert!(credentials.accept(&header("bAsIc dXNlcjprZXk=")));
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic dXNlcjprZXo=",
            "Basic dXNlcjprZXk",
            "Basic dXNlcjprZXkx",
            "Bearer dXNlcjprZXk=",
            "Basicdxnlcjprzxk=",
            &format!("Basic {}", "A".repeat(10_000)),
        ] {
            assert!(!credentials.accept(&header(bad)), "{bad}");
        }
    }

    #[test]
    fn new_credentials_are_a_uuid_and_a_long_key_and_never_the_same() {
        let [one, other] = [0, 1].map(|_| Credentials::generate().unwrap());
        assert_ne!(one, other);
        let (uuid, key) = one.0.split_once(':').unwrap();
        let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!((groups, key.len()), (vec![8, 4, 4, 4, 12], 64));
        assert!(uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]));
        assert_eq!(one.0.parse::<Credentials>().unwrap(), one);
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth");
        let made = Credentials::read_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Credentials::read_or_create(&path).unwrap(), made);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let refused = Credentials::read(&path);
        assert!(
            matches!(refused, Err(CredentialsError::Exposed { .. })),
            "{refused:?}"
        );
        assert!(!format!("{made:?} {refused:?}").contains(made.0.as_str()));
    }
}
