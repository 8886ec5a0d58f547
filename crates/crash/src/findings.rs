//! What a run found.

use serde::Serialize;

/// Findings that are told in words, at most.
const TOLD: usize = 20;

/// Where a kill fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Commands were under way.
    Load,
    /// A snapshot was being written.
    Snapshot,
    /// A backup was being read.
    Backup,
    /// The service was starting: founding, verifying, replaying.
    Start,
    /// Custodians were handing in their shares, or had just done so.
    Recovery,
}

/// Kills by moment.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Kills {
    /// Under load.
    pub load: u64,
    /// While a snapshot was being written.
    pub snapshot: u64,
    /// While a backup was being read.
    pub backup: u64,
    /// During a start.
    pub start: u64,
    /// During a recovery.
    pub recovery: u64,
}

impl Kills {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.load + self.snapshot + self.backup + self.start + self.recovery
    }

    /// One more.
    pub fn add(&mut self, moment: Moment) {
        *match moment {
            Moment::Load => &mut self.load,
            Moment::Snapshot => &mut self.snapshot,
            Moment::Backup => &mut self.backup,
            Moment::Start => &mut self.start,
            Moment::Recovery => &mut self.recovery,
        } += 1;
    }
}

/// What a run found. All counts but those of the last three fields only say how much was looked at.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Findings {
    /// The seed that the run's choices follow from.
    pub seed: u64,
    /// Services that were founded.
    pub rounds: u64,
    /// Kills.
    pub kills: Kills,
    /// Commands that were sent.
    pub sent: u64,
    /// Receipts that clients got.
    pub acknowledged: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Commands without an answer, which were sent again after the restart.
    pub repeated: u64,
    /// Entries of the log that were read back and verified.
    pub entries: u64,
    /// Lists of grants, models, people and keys that were compared.
    pub compared: u64,
    /// Starts that came to a service that serves.
    pub restarts: u64,
    /// Recoveries on a new machine.
    pub recovered: u64,
    /// How long it took.
    pub seconds: f64,
    /// What was acknowledged and is not there.
    pub lost: u64,
    /// What is there and was never sent, was refused, or is there twice.
    pub phantom: u64,
    /// Logs that do not go on where they were.
    pub chain_breaks: u64,
    /// The first of them in words.
    pub told: Vec<String>,
}

impl Findings {
    /// Something acknowledged is missing.
    pub fn lost(&mut self, what: impl core::fmt::Display) {
        self.lost += 1;
        self.tell(format!("lost: {what}"));
    }

    /// Something is there that must not be.
    pub fn phantom(&mut self, what: impl core::fmt::Display) {
        self.phantom += 1;
        self.tell(format!("phantom: {what}"));
    }

    /// The log is another one.
    pub fn chain_break(&mut self, what: impl core::fmt::Display) {
        self.chain_breaks += 1;
        self.tell(format!("chain break: {what}"));
    }

    fn tell(&mut self, what: String) {
        eprintln!("{what}");
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.lost == 0 && self.phantom == 0 && self.chain_breaks == 0
    }
}
