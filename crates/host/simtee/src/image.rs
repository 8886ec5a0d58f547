//! A program as it will run: copied into a memory file, sealed against change, and hashed after that.
//!
//! Hashing the file on disk and then starting it would leave a moment in between in which it can be exchanged. Here
//! the bytes that are hashed are the bytes that run, whatever happens to the file.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::digest;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::elf::{self, ReadAt};
use crate::measurement::{Named, digest_array, with_libraries};
use crate::{Measured, Measurement, SimteeError, TdMeasurement, Tee};

/// The largest program that is copied into memory.
pub const MAX_IMAGE_BYTES: u64 = 1024 * 1024 * 1024;
/// How often sealing is tried again, and after how long: five seconds in all.
const SEAL_ATTEMPTS: u32 = 250;
const SEAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// The most libraries that one program is given.
pub const MAX_LIBRARIES: usize = 8;

/// The name under which the memory file appears in `/proc`.
const MEMORY_FILE_NAME: &str = "simtee-enclave";

/// A measured program, ready to be launched any number of times.
#[derive(Debug)]
pub struct Image {
    pub(crate) sealed: File,
    pub(crate) path: PathBuf,
    measurement: Measurement,
    /// The program's own, without libraries.
    program: [u8; 32],
    interpreter: Option<String>,
    pub(crate) libraries: Vec<Library>,
}

/// A shared library as it will be loaded: copied and sealed as the program is, and measured with it.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) sealed: File,
    path: PathBuf,
    name: String,
    sha256: [u8; 32],
}

impl Library {
    fn load(path: &Path) -> Result<Self, SimteeError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| name.len() <= usize::from(u8::MAX));
        let name = name.ok_or_else(|| SimteeError::Library {
            path: path.to_owned(),
            reason: "a library needs a name of at most 255 bytes",
        })?;
        let sealed = sealed_copy(path)?;
        let sha256 = hash(&sealed, &digest::SHA256)
            .map_err(SimteeError::io("measure the sealed copy of", path))?;
        Ok(Self {
            sealed,
            path: path.to_owned(),
            name: name.to_owned(),
            sha256: digest_array(&sha256),
        })
    }
}

impl Image {
    /// Copies, seals and measures the program at `path`.
    pub fn load(path: &Path) -> Result<Self, SimteeError> {
        let sealed = sealed_copy(path)?;
        let interpreter =
            elf::interpreter(&Sealed(&sealed)).map_err(|reason| SimteeError::NotAnEnclave {
                path: path.to_owned(),
                reason,
            })?;
        let mr_enclave = hash(&sealed, &digest::SHA256)
            .map_err(SimteeError::io("measure the sealed copy of", path))?;
        let program = digest_array(&mr_enclave);
        Ok(Self {
            sealed,
            path: path.to_owned(),
            measurement: Measurement::with_mr_enclave(program),
            program,
            interpreter,
            libraries: Vec::new(),
        })
    }

    /// Gives the program a shared library, which is copied, sealed and measured with it. The program finds it as an open
    /// file: the first library at descriptor 3, the second at 4, and so on.
    ///
    /// # Errors
    ///
    /// Those of [`Image::load`], or if there are [`MAX_LIBRARIES`] already.
    pub fn with_library(mut self, path: &Path) -> Result<Self, SimteeError> {
        if self.libraries.len() >= MAX_LIBRARIES {
            return Err(SimteeError::Library {
                path: path.to_owned(),
                reason: "a program is given at most 8 libraries",
            });
        }
        self.libraries.push(Library::load(path)?);
        let named: Vec<Named<32>> = self
            .libraries
            .iter()
            .map(|library| (library.name.clone(), library.sha256))
            .collect();
        self.measurement.mr_enclave = with_libraries(&digest::SHA256, self.program, &named);
        Ok(self)
    }

    /// Gives the program a security version other than 1. Nobody signs simulated programs, so the launcher says what the
    /// signer of a real enclave writes into the SIGSTRUCT.
    #[must_use]
    pub fn with_isv_svn(mut self, isv_svn: u16) -> Self {
        self.measurement.isv_svn = isv_svn;
        self
    }

    /// The measurement of the sealed bytes, as an SGX enclave.
    pub fn measurement(&self) -> &Measurement {
        &self.measurement
    }

    /// The measurement of the sealed bytes, as a TDX trust domain. It is taken when it is asked for, because hashing is most
    /// of what the start of an enclave takes.
    pub fn td_measurement(&self) -> Result<TdMeasurement, SimteeError> {
        let mr_td = hash(&self.sealed, &digest::SHA384)
            .map_err(SimteeError::io("measure the sealed copy of", &self.path))?;
        let mut named: Vec<Named<48>> = Vec::with_capacity(self.libraries.len());
        for library in &self.libraries {
            let digest = hash(&library.sealed, &digest::SHA384)
                .map_err(SimteeError::io("measure the sealed copy of", &library.path))?;
            named.push((library.name.clone(), digest_array(&digest)));
        }
        let mr_td = with_libraries(&digest::SHA384, digest_array(&mr_td), &named);
        Ok(TdMeasurement::with_mr_td(mr_td))
    }

    /// The measurement of the sealed bytes in one kind of TEE.
    pub fn measured(&self, tee: Tee) -> Result<Measured, SimteeError> {
        match tee {
            Tee::Sgx => Ok(Measured::from(&self.measurement)),
            Tee::Tdx => Ok(Measured::from(&self.td_measurement()?)),
        }
    }

    /// The interpreter (dynamic linker) that the program asks for. It is **not measured**, nor are the libraries that
    /// it loads by itself: a program that has one can run other code under the same measurement.
    pub fn interpreter(&self) -> Option<&str> {
        self.interpreter.as_deref()
    }
}

fn sealed_copy(path: &Path) -> Result<File, SimteeError> {
    let file = File::open(path).map_err(SimteeError::io("open", path))?;
    let metadata = file
        .metadata()
        .map_err(SimteeError::io("read the size of", path))?;
    if !metadata.is_file() {
        return Err(SimteeError::NotAnEnclave {
            path: path.to_owned(),
            reason: "it is not a regular file",
        });
    }
    let too_large = || SimteeError::ImageTooLarge {
        path: path.to_owned(),
        limit: MAX_IMAGE_BYTES,
    };
    if metadata.len() > MAX_IMAGE_BYTES {
        return Err(too_large());
    }
    let mut memory =
        memory_file().map_err(|e| SimteeError::io("create a memory file for", path)(e.into()))?;
    // The file may grow while it is copied; what counts is what arrived.
    let copied = std::io::copy(&mut file.take(MAX_IMAGE_BYTES + 1), &mut memory)
        .map_err(SimteeError::io("copy into memory", path))?;
    if copied > MAX_IMAGE_BYTES {
        return Err(too_large());
    }
    seal(&memory).map_err(|e| SimteeError::io("seal the copy of", path)(e.into()))?;
    Ok(memory)
}

/// Takes the right to change the file from everybody. The kernel refuses while anything of its own looks at the file's pages, which
/// does not take long.
fn seal(memory: &File) -> rustix::io::Result<()> {
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    for _ in 0..SEAL_ATTEMPTS {
        match fcntl_add_seals(memory, seals) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(SEAL_PAUSE),
            sealed => return sealed,
        }
    }
    fcntl_add_seals(memory, seals)
}

fn memory_file() -> rustix::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since Linux 6.3 a system may be configured to make memory files not executable unless asked; older kernels do
    // not know the question.
    match memfd_create(MEMORY_FILE_NAME, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => memfd_create(MEMORY_FILE_NAME, flags),
        created => created,
    }
    .map(File::from)
}

/// The digest of the sealed bytes.
fn hash(sealed: &File, algorithm: &'static digest::Algorithm) -> std::io::Result<digest::Digest> {
    let mut hash = digest::Context::new(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0u64;
    loop {
        match sealed.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(hash.finish()),
            Ok(read) => {
                hash.update(buffer.get(..read).unwrap_or_default());
                offset = offset.saturating_add(read as u64);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Sealed<'a>(&'a File);

impl ReadAt for Sealed<'_> {
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        self.0.read_exact_at(buffer, offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_cannot_be_changed_nor_the_seal_removed() {
        let image = Image::load(&std::env::current_exe().unwrap()).unwrap();
        assert!(image.sealed.write_at(b"x", 0).is_err());
        assert!(image.sealed.set_len(0).is_err());
        assert!(image.sealed.set_len(1 << 32).is_err());
        assert!(fcntl_add_seals(&image.sealed, SealFlags::FUTURE_WRITE).is_err());
    }

    #[test]
    fn the_measurement_is_the_one_of_the_file() {
        let path = std::env::current_exe().unwrap();
        let image = Image::load(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(image.measurement(), &Measurement::of_elf(&bytes));
        assert_eq!(
            image.td_measurement().unwrap(),
            TdMeasurement::of_elf(&bytes)
        );
    }

    #[test]
    fn a_directory_is_not_a_program() {
        assert!(matches!(
            Image::load(Path::new("/")),
            Err(SimteeError::NotAnEnclave { .. })
        ));
    }
}
