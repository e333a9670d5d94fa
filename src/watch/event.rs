//! The kernel's events: the bytes that a read returns, and what each event means.
//!
//! Pure: bytes in, values out, nothing looked up. Damaged bytes end the reading early and never panic.

use rustix::fs::inotify::ReadFlags;

use super::table::Wd;

/// Bytes of `struct inotify_event` before the name: descriptor, mask, cookie, length of the name.
const HEADER_BYTES: usize = 16;

/// One event as the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent<'a> {
    pub wd: Wd,
    pub mask: ReadFlags,
    pub cookie: u32,
    /// Without the padding; empty if the event is about the watched directory itself.
    pub name: &'a [u8],
}

/// Reads the events of one buffer.
pub fn parse(mut bytes: &[u8]) -> impl Iterator<Item = RawEvent<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| -> u32 {
            let word = header.get(at..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
            u32::from_ne_bytes(word)
        };
        let (padded, rest) = rest.split_at_checked(usize::try_from(word(12)).ok()?)?;
        bytes = rest;
        let name = padded.split(|&b| b == 0).next().unwrap_or_default();
        Some(RawEvent {
            wd: Wd(word(0).cast_signed()),
            mask: ReadFlags::from_bits_retain(word(4)),
            cookie: word(8),
            name,
        })
    })
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The kernel's queue was full: events are lost, nobody knows which.
    Overflow,
    /// Something about the watched directory itself.
    Itself { wd: Wd, what: Itself },
    /// Something about a name in the watched directory.
    Entry { dir: Wd, name: &'a [u8], is_dir: bool, what: What },
    /// Nothing of interest.
    Nothing,
}

/// What can happen to a watched directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Itself {
    /// Mode, owner, times or extended attributes changed.
    Attributes,
    Deleted,
    Moved,
    /// Its file system was unmounted.
    Unmounted,
    /// The watch is no more.
    Unwatched,
}

/// What can happen to a name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Created,
    Deleted,
    /// The name is gone; whoever was called so may turn up with the same cookie.
    MovedFrom(u32),
    MovedTo(u32),
    /// Was open for writing and has been closed.
    Written,
    /// Content changed; more may follow.
    Modified,
    Attributes,
}

impl<'a> RawEvent<'a> {
    /// Tells what the event says.
    pub fn decode(self) -> Event<'a> {
        let Self { wd, mask, cookie, name } = self;
        if mask.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Event::Overflow;
        }
        if name.is_empty() {
            let meanings = [
                (ReadFlags::UNMOUNT, Itself::Unmounted),
                (ReadFlags::DELETE_SELF, Itself::Deleted),
                (ReadFlags::MOVE_SELF, Itself::Moved),
                (ReadFlags::IGNORED, Itself::Unwatched),
                (ReadFlags::ATTRIB, Itself::Attributes),
            ];
            let found = meanings.into_iter().find(|(flag, _)| mask.contains(*flag));
            return found.map_or(Event::Nothing, |(_, what)| Event::Itself { wd, what });
        }
        let meanings = [
            (ReadFlags::CREATE, What::Created),
            (ReadFlags::DELETE, What::Deleted),
            (ReadFlags::MOVED_FROM, What::MovedFrom(cookie)),
            (ReadFlags::MOVED_TO, What::MovedTo(cookie)),
            (ReadFlags::CLOSE_WRITE, What::Written),
            (ReadFlags::MODIFY, What::Modified),
            (ReadFlags::ATTRIB, What::Attributes),
        ];
        let found = meanings.into_iter().find(|(flag, _)| mask.contains(*flag));
        let is_dir = mask.contains(ReadFlags::ISDIR);
        found.map_or(Event::Nothing, |(_, what)| Event::Entry { dir: wd, name, is_dir, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(wd: i32, mask: ReadFlags, cookie: u32, name: &[u8], padding: usize) -> Vec<u8> {
        let length = u32::try_from(name.len() + padding).unwrap();
        let mut bytes = wd.to_ne_bytes().to_vec();
        for word in [mask.bits(), cookie, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(name);
        bytes.extend(std::iter::repeat_n(0, padding));
        bytes
    }

    #[test]
    fn reads_each_event_of_a_buffer() {
        let mut buffer = bytes(3, ReadFlags::CREATE | ReadFlags::ISDIR, 0, b"d\n\xff", 13);
        buffer.extend(bytes(-1, ReadFlags::QUEUE_OVERFLOW, 0, b"", 0));
        buffer.extend(bytes(4, ReadFlags::MOVED_TO, 77, b"f", 15));
        let events: Vec<_> = parse(&buffer).map(|e| (e.wd.0, e.cookie, e.name.to_vec())).collect();
        assert_eq!(events, [(3, 0, b"d\n\xff".to_vec()), (-1, 0, vec![]), (4, 77, b"f".to_vec())]);
    }

    #[test]
    fn damaged_bytes_end_the_reading() {
        let whole = bytes(3, ReadFlags::CREATE, 0, b"name", 12);
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).count(), 0);
        }
        assert_eq!(parse(&bytes(3, ReadFlags::CREATE, 0, b"", 0)).count(), 1);
    }

    #[test]
    fn meanings() {
        let entry = |is_dir, what| Event::Entry { dir: Wd(1), name: b"n", is_dir, what };
        let itself = |what| Event::Itself { wd: Wd(1), what };
        for (mask, name, meaning) in [
            (ReadFlags::CREATE, &b"n"[..], entry(false, What::Created)),
            (ReadFlags::CREATE | ReadFlags::ISDIR, b"n", entry(true, What::Created)),
            (ReadFlags::DELETE | ReadFlags::ISDIR, b"n", entry(true, What::Deleted)),
            (ReadFlags::MOVED_FROM, b"n", entry(false, What::MovedFrom(9))),
            (ReadFlags::MOVED_TO | ReadFlags::ISDIR, b"n", entry(true, What::MovedTo(9))),
            (ReadFlags::CLOSE_WRITE, b"n", entry(false, What::Written)),
            (ReadFlags::MODIFY, b"n", entry(false, What::Modified)),
            (ReadFlags::ATTRIB | ReadFlags::ISDIR, b"n", entry(true, What::Attributes)),
            (ReadFlags::ATTRIB | ReadFlags::ISDIR, b"", itself(Itself::Attributes)),
            (ReadFlags::DELETE_SELF, b"", itself(Itself::Deleted)),
            (ReadFlags::MOVE_SELF, b"", itself(Itself::Moved)),
            (ReadFlags::UNMOUNT, b"", itself(Itself::Unmounted)),
            (ReadFlags::IGNORED, b"", itself(Itself::Unwatched)),
            (ReadFlags::QUEUE_OVERFLOW, b"", Event::Overflow),
            (ReadFlags::OPEN, b"n", Event::Nothing),
            (ReadFlags::empty(), b"", Event::Nothing),
        ] {
            assert_eq!(RawEvent { wd: Wd(1), mask, cookie: 9, name }.decode(), meaning, "{mask:?}");
        }
    }
}
