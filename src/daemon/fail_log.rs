//! `failLog`: a readable list of failing paths, in the file where sersync kept a script.
//!
//! The list is for reading only: nothing in it is ever executed or read back. Every line is a comment, so that no harm comes to
//! a user who still runs the file as a script. The jobs are in the queue, whatever becomes of this file. A file that is not
//! such a list is left alone, since it may be an old script with work in it. A symbolic link is not followed. A new list
//! replaces an untrusted predecessor in one step, with mode 600.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, after, never, select, unbounded};
use log::{error, info, warn};
use parking_lot::Mutex;

use super::named_target::NamedTarget;
use crate::clock::Clock;
use crate::control::socket_path;
use crate::dispatch::Executor;
use crate::model::{Job, JobState, Timestamp, plain};
use crate::queue::{Queue, TargetStats};
use crate::trust;

/// The least time between two updates of the lists, and the time after which a list is checked (it may have been deleted)
/// although nothing has happened.
const INTERVAL: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(60);
/// The most failing paths that are listed for a target; the rest is only counted.
const PATHS_MAX: usize = 200;
/// The first line, by which a list is recognised.
const FIRST_LINE: &str = "# syncq: what is failing. This list is only to be read.";
const STATE_DIR: &str = "# state directory: ";
/// How much of an existing file is read to find out whether it is such a list.
const HEAD_BYTES_MAX: u64 = 8192;

/// Why a list was not written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("it is a symbolic link")]
    Link,
    #[error("it is no file")]
    NoFile,
    #[error("it is no list of syncq's")]
    NotOurs,
    #[error("the syncq in {} writes its list there", .0.display())]
    Others(PathBuf),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl NotWritten {
    fn hint(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Self::Link => "give <failLog path=\"...\"> the name of a file".to_owned(),
            Self::NoFile => "give <failLog path=\"...\"> another name".to_owned(),
            Self::NotOurs => format!("take over what sersync left: syncq import-faillog {shown}; then move it away"),
            Self::Others(_) => "give each configuration a failLog of its own".to_owned(),
            Self::Io(_) => format!("create the directory of {shown}, or name another; retries do not need the list"),
        }
    }
}

/// The targets of each list, by its path.
pub(super) type Lists = BTreeMap<PathBuf, Vec<NamedTarget>>;

/// The thread that writes the failLogs.
#[derive(Debug)]
pub(super) struct FailLog {
    /// Hands the thread the lists to keep. Dropping the sender ends the thread.
    lists: Mutex<Option<Sender<Lists>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The parts of the daemon that a list is made from.
pub(super) struct Sources {
    pub(super) queue: Arc<Queue>,
    pub(super) executor: Arc<Executor>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) state_dir: PathBuf,
}

impl FailLog {
    /// Starts the thread. No list is written before the first call of [`keep`](Self::keep).
    pub(super) fn start(sources: Sources) -> io::Result<Self> {
        let (lists, wanted) = unbounded::<Lists>();
        let run = move || {
            let mut kept: Vec<List> = Vec::new();
            let (changed, nothing) = (sources.queue.subscribe(), never());
            let mut is_current = false;
            loop {
                let (changed, pause) = match (kept.is_empty(), is_current) {
                    (true, _) => (&nothing, never()),
                    (false, true) => (&changed, after(REST)),
                    // Changes are ignored until the pause is over, however many there are.
                    (false, false) => (&nothing, after(INTERVAL)),
                };
                select! {
                    recv(wanted) -> lists => match lists {
                        Ok(lists) => keep(&mut kept, lists, &sources),
                        Err(_) => {
                            kept.iter_mut().for_each(|list| list.update(&sources, STOPPED));
                            return;
                        }
                    },
                    recv(changed) -> _ => is_current = false,
                    recv(pause) -> _ => {
                        kept.iter_mut().for_each(|list| list.update(&sources, ""));
                        is_current = true;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("fail-log".into()).spawn(run)?;
        Ok(Self { lists: Mutex::new(Some(lists)), thread: Mutex::new(Some(thread)) })
    }

    /// Keeps these lists from now on. A list that is no longer among them says so in its last line.
    pub(super) fn keep(&self, lists: Lists) {
        if let Some(sender) = &*self.lists.lock() {
            // Sending fails only if the thread has panicked, which `stop` reports.
            let _ = sender.send(lists);
        }
    }

    /// Writes the lists a last time and ends the thread. May be called twice.
    pub(super) fn stop(&self) {
        drop(self.lists.lock().take());
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the thread of the failLog ended in a panic");
        }
    }
}

/// The last line of a list.
const STOPPED: &str = "# syncq has been stopped. What is listed is tried again when it is started.\n";
const LEFT: &str = "# This list is no longer kept: the configuration names another one, or none.\n";

fn keep(kept: &mut Vec<List>, mut lists: Lists, sources: &Sources) {
    kept.retain_mut(|list| match lists.remove(&list.path) {
        Some(targets) => {
            list.targets = targets;
            true
        }
        None => {
            list.update(sources, LEFT);
            false
        }
    });
    kept.extend(lists.into_iter().map(|(path, targets)| List { path, targets, written: None, trouble: None }));
}

/// One list, and the text that was written to it last.
struct List {
    path: PathBuf,
    targets: Vec<NamedTarget>,
    written: Option<String>,
    /// Why the list could not be written the last time, if so.
    trouble: Option<String>,
}

impl List {
    fn update(&mut self, sources: &Sources, last_words: &str) {
        let mut body = String::new();
        for target in &self.targets {
            let Some(stats) = sources.queue.stats(target.id) else { continue };
            let failing = sources.queue.failing(target.id, PATHS_MAX);
            let command = |job: &Job| sources.executor.command_line(target.id, &job.path, job.scope);
            write_target(&mut body, target, &stats, &failing, &command);
        }
        if body.is_empty() {
            body.push_str("# Nothing is failing.\n");
        }
        body.push_str(last_words);
        if self.written.as_ref() == Some(&body) && is_there(&self.path) {
            return;
        }
        let text = format!(
            "{FIRST_LINE}\n# Nothing in it is ever run, and what is listed is tried again without it.\n{STATE_DIR}{}\n\
             # written: {}\n#\n{body}",
            sources.state_dir.display(),
            sources.clock.now()
        );
        match replace(&self.path, &text, &sources.state_dir) {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!("failLog {}: it is written again", self.path.display());
                }
                self.written = Some(body);
            }
            Err(reason) => {
                let shown = reason.to_string();
                if self.trouble.as_ref() != Some(&shown) {
                    let hint = reason.hint(&self.path);
                    warn!("failLog {} is not written: {shown}; hint: {hint}", self.path.display());
                    self.trouble = Some(shown);
                }
                self.written = None;
            }
        }
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Writes a target's trouble, and the paths that fail there for reasons of their own.
fn write_target(
    text: &mut String,
    target: &NamedTarget,
    stats: &TargetStats,
    (failing, count): &(Vec<Job>, usize),
    command: &dyn Fn(&Job) -> Option<String>,
) {
    let (name, root) = (line(&target.name), line(&target.root.display().to_string()));
    // Writing to a String cannot fail.
    if let Some(trouble) = &stats.trouble {
        let _ = writeln!(text, "# {root} -> {name}: nothing can be sent: {}", line(&trouble.message));
        if let Some(hint) = &trouble.hint {
            let _ = writeln!(text, "#   hint: {}", line(hint));
        }
        let _ = writeln!(text, "#   since {}, tried {} times", shown(stats.trouble_since), stats.trouble_failures);
        let _ = writeln!(text, "#   {} paths wait, next try {}", stats.counts.total(), shown(stats.retry_at));
        if let Some(command) = &trouble.command {
            let _ = writeln!(text, "#   {}", line(command));
        }
    }
    for job in failing {
        let error = job.last_error.as_ref().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "# {root} -> {name}: {}: {}", job.path, line(&error));
        let next = match job.state {
            JobState::Failed => "given up until it changes".to_owned(),
            _ => format!("next try {}", job.due_at),
        };
        let _ = writeln!(text, "#   since {}, tried {} times, {next}", job.queued_at, job.attempts);
        if let Some(command) = command(job) {
            let _ = writeln!(text, "#   {}", line(&command));
        }
    }
    if let Some(more) = count.checked_sub(failing.len()).filter(|&more| more > 0) {
        let _ = writeln!(text, "# {root} -> {name}: {more} more paths are failing; see syncq list");
    }
}

fn shown(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "soon".to_owned(), |time| time.to_string())
}

/// A text as part of one comment line. Line breaks are made harmless, so that no part of the text leaves the comment.
fn line(text: &str) -> String {
    plain(text)
}

/// Puts `text` in place of the list at `path`, if the file there may be replaced. An existing list is rewritten in place, so
/// that a reader who follows it (`tail -f`) sees each state.
fn replace(path: &Path, text: &str, state_dir: &Path) -> Result<(), NotWritten> {
    check_ours(path, state_dir)?;
    // A file with rights for group or others may be open elsewhere, so such a file is replaced and not rewritten.
    if let Ok(mut file) = trust::open(path, OpenOptions::new().write(true))
        && file.metadata()?.mode() & 0o077 == 0
    {
        file.set_len(0)?;
        return Ok(file.write_all(text.as_bytes())?);
    }
    let name = path.file_name().unwrap_or_default();
    let mut fresh = name.to_owned();
    fresh.push(format!(".{:08x}", fastrand::u32(..)));
    let fresh = path.with_file_name(fresh);
    // `create_new`: in a directory where others may write, no file of theirs must be opened.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    Ok(written?)
}

/// Refuses unless `path` is free, holds a list that no other running syncq writes, or holds an empty file of ours, as sersync
/// left it.
fn check_ours(path: &Path, state_dir: &Path) -> Result<(), NotWritten> {
    let found = match fs::symlink_metadata(path) {
        Err(failure) if failure.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_symlink() {
        return Err(NotWritten::Link);
    }
    if !found.is_file() {
        return Err(NotWritten::NoFile);
    }
    if found.len() == 0 && found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let file = trust::open_plain(path, OpenOptions::new().read(true))?;
    let mut head = Vec::new();
    file.take(HEAD_BYTES_MAX).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    if lines.next() != Some(FIRST_LINE) || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(NotWritten::NotOurs);
    }
    match lines.find_map(|line| line.strip_prefix(STATE_DIR)).map(Path::new) {
        Some(other) if other != state_dir && UnixStream::connect(socket_path(other)).is_ok() => {
            Err(NotWritten::Others(other.to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_a_list_of_our_own_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (list, state) = (dir.path().join("list"), dir.path().join("state"));
        let text = |body: &str| format!("{FIRST_LINE}\n{STATE_DIR}{}\n{body}\n", state.display());
        replace(&list, &text("one"), &state).unwrap();
        replace(&list, &text("two"), &state).unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), text("two"));
        // A reader who has the file open sees the next text.
        let mut follows = fs::File::open(&list).unwrap();
        replace(&list, &text("two and a half"), &state).unwrap();
        assert_eq!(io::read_to_string(&mut follows).unwrap(), text("two and a half"));
        replace(&list, &text("2"), &state).unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), text("2"));
        assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        // sersync's empty file is taken over; a file of sersync's with content is left alone.
        fs::write(&list, "").unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o777)).unwrap();
        replace(&list, &text("three"), &state).unwrap();
        assert_eq!(fs::metadata(&list).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&list, "#errno 2560\ncd /x && rsync\n\n").unwrap();
        assert!(matches!(replace(&list, &text("four"), &state), Err(NotWritten::NotOurs)));
        assert_eq!(fs::read_to_string(&list).unwrap(), "#errno 2560\ncd /x && rsync\n\n");

        let link = dir.path().join("link");
        symlink(dir.path().join("victim"), &link).unwrap();
        assert!(matches!(replace(&link, &text("five"), &state), Err(NotWritten::Link)));
        assert!(!dir.path().join("victim").exists());
        assert!(matches!(replace(dir.path(), &text("six"), &state), Err(NotWritten::NoFile)));
        assert!(matches!(replace(&dir.path().join("no/list"), "", &state), Err(NotWritten::Io(_))));
    }

    /// Two daemons with the default path overwrote each other's list in turn (L8c).
    #[test]
    fn l8c_the_list_of_another_running_syncq_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (list, other) = (dir.path().join("list"), dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(socket_path(&other)).unwrap();
        fs::write(&list, format!("{FIRST_LINE}\n{STATE_DIR}{}\n", other.display())).unwrap();
        let ours = dir.path().join("ours");
        assert!(matches!(replace(&list, "x", &ours), Err(NotWritten::Others(found)) if found == other));
        drop(socket);
        replace(&list, "x", &ours).unwrap();
    }

    #[test]
    fn no_text_breaks_out_of_its_comment() {
        assert_eq!(line("a\nrm -rf /\r\x1b[2J"), "a\\nrm -rf /\\r\\u{1b}[2J");
    }
}
