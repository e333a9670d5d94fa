//! Remembers directories that others take the place of again and again, to let them rest. Pure; bounded.
//!
//! Each time such a directory is taken away from the target, with all that is in it, and sent anew. Who swaps one with a link
//! in order to catch rsync between its look and its reading needs many tries, and gets few.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{RelPath, Timestamp};

/// So many in a row are nothing special: a release, and back.
const FREE: u32 = 3;
/// What is further apart is no row.
const WITHIN: Duration = Duration::from_secs(3);
/// The directory goes once it has been left alone for so long,
const QUIET: Duration = Duration::from_secs(1);
/// or after so long, and then it is free again.
const REST_MAX: Duration = Duration::from_secs(30);
/// So many are watched at a time.
const PATHS_MAX: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Row {
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

impl Row {
    fn until(&self) -> Option<Timestamp> {
        (self.count > FREE).then(|| self.last.after(QUIET).min(self.first.after(REST_MAX)))
    }
}

#[derive(Debug, Default)]
pub struct Flips(BTreeMap<RelPath, Row>);

impl Flips {
    /// Notes that another directory has come to this path, and returns until when it should rest, if it should.
    pub fn note(&mut self, path: &RelPath, now: Timestamp) -> Option<Timestamp> {
        if self.0.len() >= PATHS_MAX {
            self.0.retain(|_, row| now.since(row.last) < WITHIN);
            if self.0.len() >= PATHS_MAX {
                return None;
            }
        }
        let fresh = Row { first: now, last: now, count: 1 };
        let row = match self.0.get(path) {
            Some(row) if now.since(row.last) < WITHIN && now.since(row.first) < REST_MAX => {
                Row { last: now, count: row.count.saturating_add(1), ..*row }
            }
            _ => fresh,
        };
        self.0.insert(path.clone(), row);
        row.until()
    }

    /// Until when what is at or below this path should rest.
    pub fn until(&self, path: &RelPath, now: Timestamp) -> Option<Timestamp> {
        if self.0.is_empty() {
            return None;
        }
        let rows = path.ancestor_bytes().chain([path.as_bytes()]).filter_map(|path| self.0.get(path));
        rows.filter_map(Row::until).max().filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_swapped_again_and_again_rests_until_it_is_left_alone_but_not_for_ever() {
        let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
        let (dir, inside) = (path("d"), path("d/e"));
        let mut flips = Flips::default();
        for at in [100, 200, 300] {
            assert_eq!((flips.note(&dir, Timestamp(at)), flips.until(&inside, Timestamp(at))), (None, None));
        }
        assert_eq!(flips.note(&dir, Timestamp(400)), Some(Timestamp(1_400)));
        assert_eq!(flips.until(&inside, Timestamp(500)), Some(Timestamp(1_400)));
        assert_eq!((flips.until(&path("d2"), Timestamp(500)), flips.until(&dir, Timestamp(1_400))), (None, None));
        let mut at = 500;
        let until = loop {
            at += 100;
            match flips.note(&dir, Timestamp(at)) {
                Some(until) if until > Timestamp(at) => assert!(until <= Timestamp(30_100)),
                other => break other,
            }
        };
        assert_eq!((at, until), (30_100, None), "free again");
        // Releases, once in a while.
        for at in (40_000..90_000).step_by(3_000) {
            assert_eq!(flips.note(&path("www"), Timestamp(at)), None);
        }
    }

    #[test]
    fn no_more_than_a_few_are_watched() {
        let mut flips = Flips::default();
        for n in 0..1_000u32 {
            flips.note(&RelPath::new(format!("d{n}").as_bytes()).unwrap(), Timestamp(0));
        }
        assert_eq!(flips.0.len(), PATHS_MAX);
        flips.note(&RelPath::new(b"x").unwrap(), Timestamp(10_000));
        assert_eq!(flips.0.len(), 1);
    }
}
