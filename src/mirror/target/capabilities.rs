//! The options that a target's side was found to lack, and how its runs do without them.
//!
//! Each lack is found out once and remembered in memory until the target has been away. Deliberately absent: how a lack is
//! found out, which `outcome` reads from rsync's words.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::mirror::outcome::diagnosis::Fallback;
use crate::mirror::plan::arguments::{Exactness, Mode, Pass, Withheld};
use crate::mirror::plan::run::Deletion;
use crate::model::Lane;

/// A bit beside those of the lacks: how exactly the target keeps times has been found out.
const TIMES_KNOWN: u32 = 1 << 31;

/// A set of what a target's side was found to lack, remembered so that each lack is found out once.
#[derive(Debug, Default)]
pub struct Capabilities(AtomicU32);

impl Capabilities {
    /// Forgets all lacks, and what is known of times.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Notes a lack. False if it was known already, so that falling back again would change nothing.
    pub(in crate::mirror) fn learn(&self, fallback: Fallback) -> bool {
        self.0.fetch_or(fallback.bit(), Ordering::Relaxed) & fallback.bit() == 0
    }

    /// A copy of the lacks known now.
    pub(in crate::mirror) fn snapshot(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }

    pub(in crate::mirror) fn lacks(&self, fallback: Fallback) -> bool {
        self.0.load(Ordering::Relaxed) & fallback.bit() != 0
    }

    pub(in crate::mirror) fn unlearn(&self, fallback: Fallback) {
        self.0.fetch_and(!fallback.bit(), Ordering::Relaxed);
    }

    /// Notes that it is known how exactly the target keeps times.
    pub(in crate::mirror) fn note_times(&self) {
        self.0.fetch_or(TIMES_KNOWN, Ordering::Relaxed);
    }

    pub(in crate::mirror) fn knows_times(&self) -> bool {
        self.0.load(Ordering::Relaxed) & TIMES_KNOWN != 0
    }

    /// The mode of the target's runs, as far as the target decides it. `deletes`: what is gone from the source is to go
    /// there too.
    pub(in crate::mirror) fn mode(&self, lane: Lane, deletes: bool, pass: Pass) -> Mode<'static> {
        Mode {
            mkpath: self.makes_path(),
            contents: self.compares_contents(),
            withheld: self.withheld(),
            ..Mode::new(lane, self.deletion(deletes), pass)
        }
    }

    /// Which options the target's runs go without.
    fn withheld(&self) -> Withheld {
        let exactness = match (self.lacks(Fallback::EvenSeconds), self.lacks(Fallback::Seconds)) {
            (true, _) => Exactness::EvenSeconds,
            (false, true) => Exactness::Seconds,
            (false, false) => Exactness::Nanoseconds,
        };
        Withheld {
            exactness,
            partial_dir: self.lacks(Fallback::PartialDir),
            force: self.lacks(Fallback::Force),
            ignore_times: self.lacks(Fallback::IgnoreTimes),
        }
    }

    /// Whether a written path may be compared by its content.
    pub(in crate::mirror) fn compares_contents(&self) -> bool {
        !self.lacks(Fallback::Contents)
    }

    pub(in crate::mirror) fn makes_path(&self) -> bool {
        self.lacks(Fallback::MakePath)
    }

    pub(in crate::mirror) fn deletion(&self, wanted: bool) -> Deletion {
        match (wanted, self.lacks(Fallback::DeleteNothing), self.lacks(Fallback::DeleteByLevel)) {
            (false, _, _) => Deletion::Off,
            (true, true, _) => Deletion::Refused,
            (true, false, true) => Deletion::ByLevel,
            (true, false, false) => Deletion::ByName,
        }
    }
}
