//! The file systems that are mounted below a root: which are expected, and which are missing.
//!
//! Where a file system has been unmounted, its mount point is there, and empty: all that was in it looks deleted. So the
//! places of mounts are remembered, by the store across restarts. As long as one of these places is no mount point any
//! more, nothing is sent to or deleted from that place on the targets ([`Mounts::missing`]). That ends when somebody
//! mounts the file system again, or agrees to its end. The path itself is always asked whether a mount lies there *now*
//! (`statx`), so that no event has to have been seen.
//!
//! Another file system in the place of the expected one is no better than none: the files of the expected one look
//! deleted. A file system is known by its root directory, as the source is, where that is lasting: on disks, and not
//! where it is made anew with each mount (tmpfs, FUSE).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, CWD, FsWord, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::ctime;
use crate::model::{DirectoryId, Mounted, RelPath};

/// How many bytes of paths are remembered across restarts: all of them are in one record of the store. A place that does
/// not fit looks deleted if it is unmounted while no daemon runs.
pub const REMEMBERED_BYTES_MAX: usize = 1_024;
/// The most bytes that the identity of one file system takes.
const ID_BYTES: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub struct Mounts {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The expected places, each with the identity of its file system, if that is known.
    expected: BTreeMap<RelPath, Option<DirectoryId>>,
    /// Whether `expected` has changed since [`Mounts::take_changed`].
    has_changed: bool,
}

impl Mounts {
    /// `expected` holds the mounts that an earlier run has remembered.
    pub fn new(root: &Path, expected: impl IntoIterator<Item = Mounted>) -> Self {
        let expected = expected.into_iter().map(|Mounted { path, id }| (path, id)).collect();
        let state = State { expected, has_changed: false };
        Self { root: root.to_owned(), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The places where a file system is expected and none, or another one, is mounted. Asks the kernel about each place.
    pub fn missing(&self) -> Vec<RelPath> {
        // The lock is not held while the file system is asked: it may hang.
        let expected = self.lock().expected.clone();
        let is_missing = |(path, known): (RelPath, Option<DirectoryId>)| {
            let is_it = |now| known.is_none_or(|known| known == now) || waits_on_demand(&self.root, &path);
            let lasts = mounted_at(&self.root, &path).is_some_and(is_it);
            (!lasts).then_some(path)
        };
        expected.into_iter().filter_map(is_missing).collect()
    }

    /// Whether any file system is expected at `path` or below.
    pub fn expects_any(&self, path: &RelPath) -> bool {
        self.lock().expected.keys().any(|place| path.covers(place))
    }

    /// Whether a file system is mounted at `path`, the expected one or another.
    pub fn has_any(&self, path: &RelPath) -> bool {
        mounted_at(&self.root, path).is_some()
    }

    /// Expects the file system that is mounted at `path`. Even an empty one is expected: it may be filled before it is
    /// gone. If another one is known there, that one stays expected.
    pub fn found(&self, path: &RelPath) {
        let id = lasting_id(&self.root, path);
        self.change(|expected| {
            let known = expected.entry(path.clone()).or_default();
            *known = known.or(id);
        });
    }

    /// Notes that a directory was moved within the tree, with what is mounted below it.
    pub fn moved(&self, old: &RelPath, new: &RelPath) {
        self.change(|expected| {
            let (along, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(expected).into_iter().partition(|(path, _)| old.covers(path));
            *expected = others;
            expected.extend(along.iter().filter_map(|(path, id)| {
                let below = path.as_bytes().get(old.as_bytes().len()..)?;
                Some((RelPath::new(&[new.as_bytes(), below].concat()).ok()?, *id))
            }));
        });
    }

    /// Notes that a directory was seen to leave the tree, with what is mounted below it.
    pub fn left(&self, old: &RelPath) {
        self.change(|expected| expected.retain(|path, _| !old.covers(path)));
    }

    /// Gives up the missing file systems, expects those that are mounted in their places instead, and returns the places.
    pub fn accept_missing(&self) -> Vec<RelPath> {
        let missing = self.missing();
        let (others, gone): (Vec<&RelPath>, Vec<&RelPath>) = missing.iter().partition(|path| self.has_any(path));
        let others: Vec<_> = others.into_iter().map(|path| (path.clone(), lasting_id(&self.root, path))).collect();
        self.change(|expected| {
            expected.retain(|path, _| !gone.contains(&path));
            expected.extend(others);
        });
        missing
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<RelPath, Option<DirectoryId>>)) {
        let mut state = self.lock();
        let before = state.expected.clone();
        change(&mut state.expected);
        state.has_changed |= state.expected != before;
    }

    /// The mounts that are to be remembered, as many as fit, if they have changed since the last call.
    pub fn take_changed(&self) -> Option<Vec<Mounted>> {
        let mut state = self.lock();
        if !std::mem::take(&mut state.has_changed) {
            return None;
        }
        let mut bytes = 0;
        let fits = |mounted: &Mounted| {
            bytes += mounted.path.as_bytes().len() + 1 + if mounted.id.is_some() { ID_BYTES } else { 0 };
            bytes <= REMEMBERED_BYTES_MAX
        };
        let all = state.expected.iter().map(|(path, id)| Mounted { path: path.clone(), id: *id });
        Some(all.take_while(fits).collect())
    }
}

/// The directory that a mount shows at the path, if one lies there. The question mounts nothing that waits to be mounted
/// on demand.
fn mounted_at(root: &Path, path: &RelPath) -> Option<DirectoryId> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let look = |path: &Path| rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted);
    let found = look(&path.under(root)).ok()?;
    let tells_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = Duration::new(u64::try_from(found.stx_btime.tv_sec).unwrap_or(0), found.stx_btime.tv_nsec);
    let born_ns = tells_birth.then(|| u64::try_from(born.as_nanos()).ok()).flatten();
    let id = DirectoryId { inode: found.stx_ino, born_ns };
    if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT).then_some(id);
    }
    // Before Linux 5.8 the devices are compared: a mount of the same file system at a second place does not show.
    let above = path.parent().unwrap_or_else(RelPath::root);
    let device = |stat: &rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    match look(&above.under(root)) {
        Ok(above) => (device(&above) != device(&found)).then_some(id),
        Err(Errno::NOENT) => None,
        Err(_) => Some(id),
    }
}

/// The same directory, if a later mount of its file system can be known by it.
fn lasting_id(root: &Path, path: &RelPath) -> Option<DirectoryId> {
    let id = mounted_at(root, path)?;
    kind_of(root, path).is_some_and(ctime::is_on_disk).then_some(id)
}

/// Whether the mount at the path stands for another file system, which is mounted over it as soon as somebody looks.
fn waits_on_demand(root: &Path, path: &RelPath) -> bool {
    const AUTOFS: FsWord = 0x0187;
    kind_of(root, path) == Some(AUTOFS)
}

fn kind_of(root: &Path, path: &RelPath) -> Option<FsWord> {
    // The path is held without being opened: to open it would mount what waits to be mounted on demand.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::open(path.under(root), flags, Mode::empty()).ok()?;
    Some(rustix::fs::fstatfs(&held).ok()?.f_type)
}

/// The properties that tell one mount from another for as long as neither is unmounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountKey {
    id: Vec<u8>,
    device: Vec<u8>,
    /// The directory of the file system on that device that the mount shows.
    inside: Vec<u8>,
}

/// The mounts below `root`, a path without links, as `/proc/self/mountinfo` has them; of several at one place the last.
pub fn below(mountinfo: &[u8], root: &Path) -> BTreeMap<RelPath, MountKey> {
    let mut mounts = at_or_below(mountinfo, root);
    mounts.remove(&RelPath::root());
    mounts
}

fn at_or_below(mountinfo: &[u8], root: &Path) -> BTreeMap<RelPath, MountKey> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    lines.filter_map(|line| mount_below(line, root)).collect()
}

/// A line such as `36 35 98:0 /in/it /mnt\040point rw,noatime shared:1 - ext3 /dev/root rw`.
fn mount_below(line: &[u8], root: &Path) -> Option<(RelPath, MountKey)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (id, _parent, device, inside) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let point = PathBuf::from(std::ffi::OsString::from_vec(unescaped(fields.next()?)));
    let below = point.strip_prefix(root).ok()?.as_os_str();
    let path = RelPath::new(OsStr::as_bytes(below)).ok()?;
    Some((path, MountKey { id: id.to_vec(), device: device.to_vec(), inside: unescaped(inside) }))
}

/// The pairs of places below `root` that show the same directory, since one of the two, or both, are mounts of it.
pub fn twins(mountinfo: &[u8], root: &Path) -> Vec<(RelPath, RelPath)> {
    let mounts = below(mountinfo, root);
    if mounts.is_empty() {
        return Vec::new();
    }
    // The mount that shows the root itself: the innermost one at or above it.
    let all = at_or_below(mountinfo, Path::new("/"));
    let above = root.ancestors().filter_map(|above| Some((above, above.strip_prefix("/").ok()?)));
    let own = above.filter_map(|(above, name)| {
        let key = all.get(&RelPath::new(name.as_os_str().as_bytes()).ok()?)?;
        let inside = [key.inside.as_slice(), b"/", root.strip_prefix(above).ok()?.as_os_str().as_bytes()].concat();
        Some((RelPath::root(), MountKey { inside, ..key.clone() }))
    });
    let shown: Vec<(RelPath, MountKey)> = own.take(1).chain(mounts).collect();
    let mut twins = Vec::new();
    for (place, key) in &shown {
        for (other, shows) in shown.iter().filter(|(other, _)| !other.is_root() && other != place) {
            let below = Path::new(OsStr::from_bytes(&shows.inside)).strip_prefix(OsStr::from_bytes(&key.inside));
            if let (true, Ok(below)) = (shows.device == key.device, below)
                && let Ok(first) = RelPath::new(below.as_os_str().as_bytes())
            {
                let first = if place.is_root() {
                    first
                } else if first.is_root() {
                    place.clone()
                } else {
                    place.join(first.as_bytes())
                };
                let pair = (first, other.clone());
                if pair.0 != pair.1 && !twins.contains(&(pair.1.clone(), pair.0.clone())) {
                    twins.push(pair);
                }
            }
        }
    }
    twins
}

/// Blanks and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, more)) = rest.split_first() {
        let digits = more.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    fn unknown(text: &str) -> Mounted {
        Mounted { path: path(text), id: None }
    }

    fn paths(mounts: &Mounts) -> Vec<String> {
        mounts.take_changed().unwrap_or_default().iter().map(|mounted| mounted.path.to_string()).collect()
    }

    #[test]
    fn mounts_below_a_root_are_read_from_the_kernels_table() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /srv/www rw - tmpfs none rw\n\
            31 30 0:41 / /srv/www/a rw,noatime shared:5 master:2 - tmpfs none rw\n\
            32 31 8:1 /data /srv/www/a/with\\040blank\\134and\\012more rw - ext4 /dev/sda1 rw\n\
            33 31 0:42 / /srv/www/a rw - tmpfs none rw\n\
            34 22 0:43 / /srv/www2 rw - tmpfs none rw\n\
            cut short";
        let found = below(table, Path::new("/srv/www"));
        let names: Vec<&[u8]> = found.keys().map(RelPath::as_bytes).collect();
        assert_eq!(names, [&b"a"[..], b"a/with blank\\and\nmore"]);
        assert_eq!(
            found[&path("a")],
            MountKey { id: b"33".to_vec(), device: b"0:42".to_vec(), inside: b"/".to_vec() },
            "the last one is what is seen"
        );
    }

    #[test]
    fn places_that_show_the_same_directory_are_found() {
        let pairs = |table: &str, root: &str| -> Vec<String> {
            let twins = twins(table.as_bytes(), Path::new(root));
            twins.iter().map(|(one, other)| format!("{one} {other}")).collect()
        };
        let system = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 8:2 / /srv rw - ext4 /dev/sdb rw\n";
        // A directory of the tree at a second place, and one from elsewhere at two.
        let table = format!(
            "{system}31 30 8:2 /www/a/b /srv/www/c rw - ext4 /dev/sdb rw\n\
             32 30 8:1 /data /srv/www/d rw - ext4 /dev/sda1 rw\n33 30 8:1 /data/in /srv/www/e rw - ext4 /dev/sda1 rw\n\
             34 30 8:2 /other /srv/www/f rw - ext4 /dev/sdb rw\n"
        );
        assert_eq!(pairs(&table, "/srv/www"), ["a/b c", "d/in e"]);
        assert_eq!(pairs(system, "/srv/www"), [""; 0]);
        assert_eq!(pairs(system, "/"), [""; 0]);
        let table = format!("{system}31 22 8:1 /data/a /data/b rw - ext4 /dev/sda1 rw\n");
        assert_eq!(pairs(&table, "/data"), ["a b"]);
    }

    #[test]
    fn what_is_no_mount_point_any_more_is_missing_until_that_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("was/full")).unwrap();
        let mounts = Mounts::new(dir.path(), ["was", "gone/too"].map(unknown));
        assert_eq!(mounts.missing(), [path("gone/too"), path("was")]);
        assert_eq!(mounts.take_changed(), None, "it was remembered already");
        assert_eq!(mounts.accept_missing().len(), 2);
        assert_eq!((mounts.missing(), mounts.take_changed()), (vec![], Some(vec![])));
        // A mount point that every Linux has.
        let mounts = Mounts::new(Path::new("/"), []);
        mounts.found(&path("proc"));
        assert_eq!((mounts.missing(), paths(&mounts)), (vec![], vec!["proc".to_owned()]));
        // The place is known for another file system.
        let id = Some(DirectoryId { inode: 4_711, born_ns: None });
        let mounts = Mounts::new(Path::new("/"), [Mounted { path: path("proc"), id }]);
        mounts.found(&path("proc"));
        assert_eq!((mounts.missing(), mounts.has_any(&path("proc"))), (vec![path("proc")], true));
        assert_eq!(mounts.accept_missing().len(), 1);
        assert_eq!((mounts.missing(), paths(&mounts)), (vec![], vec!["proc".to_owned()]));
    }

    #[test]
    fn mounts_go_along_with_the_directories_above_them() {
        let mounts = Mounts::new(Path::new("/nowhere"), ["a", "a/b/c", "ab", "d"].map(unknown));
        mounts.moved(&path("a"), &path("e/f"));
        assert_eq!(paths(&mounts), ["ab", "d", "e/f", "e/f/b/c"]);
        mounts.left(&path("e"));
        assert_eq!(paths(&mounts), ["ab", "d"]);
    }

    #[test]
    fn no_more_is_remembered_than_a_record_holds() {
        let mounts =
            Mounts::new(Path::new("/nowhere"), (0..100).map(|n| unknown(&format!("{n:02}{}", "x".repeat(100)))));
        mounts.left(&path("no such"));
        assert_eq!(mounts.take_changed(), None);
        mounts.moved(&path(&format!("99{}", "x".repeat(100))), &path("0"));
        let remembered = mounts.take_changed().unwrap();
        assert!(
            remembered.iter().map(|mounted| mounted.path.as_bytes().len() + 1).sum::<usize>() <= REMEMBERED_BYTES_MAX
        );
        assert_eq!(remembered.len(), 10);
    }
}
