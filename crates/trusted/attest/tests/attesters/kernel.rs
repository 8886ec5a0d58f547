//! A kernel that offers configfs-tsm, and can be told what goes wrong.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex};

use sesemi_attest::tee::files::Files;

pub(crate) const EIO: i32 = 5;
pub(crate) const ENXIO: i32 = 6;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EROFS: i32 = 30;

/// The number of a fault that never ends.
pub(crate) const FOR_EVER: u32 = u32::MAX;

type Make = Box<dyn Fn(&[u8; 64]) -> Vec<u8> + Send>;

/// What the kernel does, and how often it fails first.
pub(crate) struct Behaviour {
    /// The driver's name each time it is read; the last one stays.
    pub(crate) providers: Vec<&'static str>,
    /// The report about these data.
    pub(crate) report: Make,
    /// The file `auxblob`, if there is one.
    pub(crate) certificates: Option<Vec<u8>>,
    /// The files `privlevel` and `privlevel_floor`, if there are such: the latter's content.
    pub(crate) privilege_floor: Option<&'static str>,
    /// Gives one byte with each read.
    pub(crate) short_reads: bool,
    /// Operations (`mkdir`, or the name of a file) that fail: with which number, and how often.
    pub(crate) errors: HashMap<&'static str, (i32, u32)>,
    /// How often a write of `inblob` is lost when the file is closed, about which nobody is told.
    pub(crate) lost_writes: u32,
    /// How often another program writes to the entry after our write and before the report is made.
    pub(crate) races_before: u32,
    /// How often another program writes to the entry while the report is read.
    pub(crate) races_during: u32,
    /// Reading the report hangs until the other end sends something or is gone.
    pub(crate) hang: Option<Receiver<()>>,
    /// What `generation` says instead of the number.
    pub(crate) generation: Option<&'static str>,
    /// What the counter of writes begins with.
    pub(crate) first_generation: u64,
}

impl Behaviour {
    pub(crate) fn tdx() -> Self {
        Self {
            providers: vec!["tdx_guest"],
            report: Box::new(|data| crate::tdx_quote(4, data)),
            certificates: None,
            privilege_floor: None,
            short_reads: false,
            errors: HashMap::new(),
            lost_writes: 0,
            races_before: 0,
            races_during: 0,
            hang: None,
            generation: None,
            first_generation: 0,
        }
    }

    pub(crate) fn snp() -> Self {
        Self {
            providers: vec!["sev_guest"],
            report: Box::new(crate::snp_report),
            certificates: Some(crate::certificate_table(crate::VCEK, b"the chip's")),
            privilege_floor: Some("0"),
            ..Self::tdx()
        }
    }

    pub(crate) fn failing(mut self, operation: &'static str, errno: i32, times: u32) -> Self {
        self.errors.insert(operation, (errno, times));
        self
    }
}

#[derive(Default)]
struct Entry {
    data: Option<[u8; 64]>,
    privilege_level: Option<Vec<u8>>,
    generation: u64,
}

/// The kernel. It knows one folder, in which entries are made.
pub(crate) struct Kernel {
    state: Mutex<State>,
    removed: Condvar,
}

struct State {
    behaviour: Behaviour,
    entries: BTreeMap<PathBuf, Entry>,
    names: Vec<PathBuf>,
    privilege_levels: Vec<Vec<u8>>,
}

impl Kernel {
    pub(crate) fn new(behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                behaviour,
                entries: BTreeMap::new(),
                names: Vec::new(),
                privilege_levels: Vec::new(),
            }),
            removed: Condvar::new(),
        })
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// The entries that were ever made.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        self.state.lock().unwrap().names.clone()
    }

    /// The privilege levels that reports were made for.
    pub(crate) fn privilege_levels(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().privilege_levels.clone()
    }

    /// Whether every entry is gone again, now.
    pub(crate) fn is_clean(&self) -> bool {
        self.state.lock().unwrap().entries.is_empty()
    }

    /// Waits until every entry is gone again.
    pub(crate) fn wait_until_clean(&self) {
        let state = self.state.lock().unwrap();
        let (_state, waited) = self
            .removed
            .wait_timeout_while(state, crate::PATIENCE, |state| !state.entries.is_empty())
            .unwrap();
        assert!(!waited.timed_out(), "an entry was left behind");
    }
}

impl State {
    fn fail(&mut self, operation: &str) -> io::Result<()> {
        match self.behaviour.errors.get_mut(operation) {
            Some((errno, times)) if *times > 0 => {
                *times -= 1;
                Err(io::Error::from_raw_os_error(*errno))
            }
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &Path) -> io::Result<&mut Entry> {
        self.entries
            .get_mut(path.parent().unwrap())
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn content(&mut self, path: &Path, file: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::from(ErrorKind::NotFound);
        let line = |text: &str| format!("{text}\n").into_bytes();
        match file {
            "provider" => {
                let names = &mut self.behaviour.providers;
                let name = if names.len() > 1 {
                    names.remove(0)
                } else {
                    names[0]
                };
                Ok(line(name))
            }
            "generation" => {
                let number = self.entry(path)?.generation.to_string();
                Ok(line(self.behaviour.generation.unwrap_or(&number)))
            }
            "privlevel_floor" => self.behaviour.privilege_floor.map(line).ok_or_else(missing),
            "auxblob" => self.behaviour.certificates.clone().ok_or_else(missing),
            "outblob" => {
                if take(&mut self.behaviour.races_before) {
                    let entry = self.entry(path)?;
                    entry.data = Some([0xee; 64]);
                    entry.generation = entry.generation.wrapping_add(1);
                }
                let entry = self.entry(path)?;
                let level = entry.privilege_level.clone();
                let data = entry
                    .data
                    .ok_or_else(|| io::Error::from_raw_os_error(EINVAL))?;
                self.privilege_levels.extend(level);
                if take(&mut self.behaviour.races_during) {
                    let entry = self.entry(path)?;
                    entry.generation = entry.generation.wrapping_add(1);
                }
                Ok((self.behaviour.report)(&data))
            }
            _ => Err(missing()),
        }
    }
}

/// Counts a fault down; whether it happens now.
fn take(times: &mut u32) -> bool {
    let now = *times > 0;
    *times = times.saturating_sub(1);
    now
}

impl Files for Kernel {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.fail("mkdir")?;
        let entry = Entry {
            generation: state.behaviour.first_generation,
            ..Entry::default()
        };
        state.names.push(path.to_owned());
        match state.entries.insert(path.to_owned(), entry) {
            None => Ok(()),
            Some(_) => panic!("{} exists already", path.display()),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let removed = self.state.lock().unwrap().entries.remove(path);
        self.removed.notify_all();
        removed.map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let file = path.file_name().unwrap().to_str().unwrap();
        let mut state = self.state.lock().unwrap();
        state.fail(file)?;
        let hang = match file {
            "outblob" => state.behaviour.hang.take(),
            _ => None,
        };
        if let Some(hang) = hang {
            // The kernel waits for the host; everybody else goes on.
            drop(state);
            let _ = hang.recv();
            state = self.state.lock().unwrap();
        }
        let content = io::Cursor::new(state.content(path, file)?);
        Ok(match state.behaviour.short_reads {
            true => Box::new(Short(content)),
            false => Box::new(content),
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = path.file_name().unwrap().to_str().unwrap();
        let mut state = self.state.lock().unwrap();
        state.fail(file)?;
        if file == "inblob" && take(&mut state.behaviour.lost_writes) {
            return Ok(());
        }
        let has_level = state.behaviour.privilege_floor.is_some();
        let entry = state.entry(path)?;
        match file {
            "inblob" => entry.data = Some(bytes.try_into().expect("64 bytes")),
            "privlevel" if has_level => entry.privilege_level = Some(bytes.to_vec()),
            _ => return Err(ErrorKind::NotFound.into()),
        }
        entry.generation = entry.generation.wrapping_add(1);
        Ok(())
    }
}

/// Gives one byte at a time.
struct Short(io::Cursor<Vec<u8>>);

impl Read for Short {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let one = buf.len().min(1);
        self.0.read(&mut buf[..one])
    }
}
