//! A real rsync daemon on loopback with its own configuration, modules and port.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::is_root;
use super::port::free_port;
use super::processes::{Family, pid_of, reap, signal};
use super::rsync::{Side, rsync};
use super::wait::{secs, try_for};

#[derive(Debug)]
struct Module {
    name: String,
    path: PathBuf,
    options: Vec<(String, String)>,
}

/// A server. rsyncd reads its configuration anew for each connection, so modules, options and secrets may be changed while it
/// runs: call [`Rsyncd::write_conf`].
#[derive(Debug)]
pub struct Rsyncd {
    dir: PathBuf,
    pub address: String,
    pub port: u16,
    /// Whether the server runs as `nobody`.
    pub as_nobody: bool,
    globals: Vec<(String, String)>,
    modules: Vec<Module>,
    secrets: Vec<(String, String)>,
    child: Option<Child>,
    family: Family,
}

impl Rsyncd {
    /// Makes a server that keeps its files in `dir`, on a free port of 127.0.0.1. Does not start it.
    pub fn new(dir: &Path) -> Self {
        Self::at(dir, "127.0.0.1", free_port())
    }

    /// Makes a server on a given loopback address: several servers on one port look like several hosts.
    pub fn at(dir: &Path, address: &str, port: u16) -> Self {
        fs::create_dir_all(dir).unwrap_or_else(|e| panic!("cannot create {}: {e}", dir.display()));
        Self {
            dir: dir.to_owned(),
            address: address.to_owned(),
            port,
            as_nobody: false,
            globals: Vec::new(),
            modules: Vec::new(),
            secrets: Vec::new(),
            child: None,
            family: Family::new(),
        }
    }

    pub fn global(&mut self, key: &str, value: &str) -> &mut Self {
        self.globals.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a writable module.
    pub fn module(&mut self, name: &str, path: &Path) -> &mut Self {
        self.modules.push(Module { name: name.to_owned(), path: path.to_owned(), options: Vec::new() });
        self
    }

    pub fn module_option(&mut self, module: &str, key: &str, value: &str) -> &mut Self {
        let found = self.modules.iter_mut().find(|known| known.name == module);
        found.unwrap_or_else(|| panic!("no module {module}")).options.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the users and passwords.
    pub fn secret(&mut self, user: &str, password: &str) -> &mut Self {
        self.secrets = vec![(user.to_owned(), password.to_owned())];
        self
    }

    pub fn write_conf(&self) {
        let mut conf = String::new();
        let mut line = |text: String| writeln!(conf, "{text}").expect("writing to a string");
        line(format!("pid file = {}", self.dir.join("rsyncd.pid").display()));
        line(format!("lock file = {}", self.dir.join("rsyncd.lock").display()));
        line(format!("log file = {}", self.log().display()));
        line("read only = no".to_owned());
        line("socket options = TCP_NODELAY".to_owned());
        if is_root() && !self.as_nobody {
            // Only with chroot does rsyncd store all symbolic links unchanged.
            line("uid = root\ngid = root\nuse chroot = yes".to_owned());
        } else {
            line("use chroot = no\nmunge symlinks = no".to_owned());
        }
        if !self.secrets.is_empty() {
            line(format!("secrets file = {}", self.secrets_file().display()));
        }
        for (key, value) in &self.globals {
            line(format!("{key} = {value}"));
        }
        for Module { name, path, options } in &self.modules {
            line(format!("[{name}]\npath = {}", path.display()));
            for (key, value) in options {
                line(format!("{key} = {value}"));
            }
        }
        // A connection that is made meanwhile must not read half a file.
        let fresh = self.dir.join("rsyncd.conf.new");
        fs::write(&fresh, conf).expect("cannot write rsyncd.conf");
        fs::rename(&fresh, self.dir.join("rsyncd.conf")).expect("cannot replace rsyncd.conf");
        if !self.secrets.is_empty() {
            let text: String = self.secrets.iter().map(|(user, password)| format!("{user}:{password}\n")).collect();
            fs::write(self.secrets_file(), text).expect("cannot write the secrets file");
            fs::set_permissions(self.secrets_file(), Permissions::from_mode(0o600)).expect("cannot chmod the secrets");
        }
    }

    fn secrets_file(&self) -> PathBuf {
        self.dir.join("rsyncd.secrets")
    }

    /// The file in which the server logs its connections.
    pub fn log(&self) -> PathBuf {
        self.dir.join("rsyncd.log")
    }

    /// The bytes that clients have sent so far in completed runs, by the server's log.
    pub fn received_bytes(&self) -> u64 {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let received = log.lines().filter_map(|line| {
            line.split_once(" received ")?.1.split_once(" bytes")?.0.replace(',', "").parse::<u64>().ok()
        });
        received.sum()
    }

    /// Starts the server and waits for its greeting. A start after [`Rsyncd::stop`] takes the same port.
    pub fn start(&mut self) {
        if let Err(reason) = self.try_start() {
            panic!("rsyncd on {}:{} does not answer: {reason}\n{}", self.address, self.port, self.output());
        }
    }

    /// Like [`Rsyncd::start`], but returns the reason instead of failing.
    pub fn try_start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "rsyncd runs already");
        self.write_conf();
        let mut command = if self.as_nobody && is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(rsync(Side::Server));
            command
        } else {
            Command::new(rsync(Side::Server))
        };
        let output = File::create(self.dir.join("rsyncd.out")).expect("cannot create rsyncd.out");
        command
            .args(["--daemon", "--no-detach"])
            .arg(format!("--config={}", self.dir.join("rsyncd.conf").display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--address={}", self.address))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("cannot clone a file"))
            .stderr(output)
            .process_group(0);
        self.family.mark(&mut command);
        // The pid file of a killed server would keep the next server from starting.
        let _ = fs::remove_file(self.dir.join("rsyncd.pid"));
        self.child = Some(command.spawn().expect("cannot start rsync --daemon"));
        self.family.lead(self.child.as_ref());
        // A server that has ended will never send a greeting.
        let mut ended = None;
        try_for(secs(20), || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.map_or_else(|| self.greeting(), |_| Ok(()))
        })?;
        ended.map_or(Ok(()), |status| Err(format!("it ended with {status}")))
    }

    /// The server's own process.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(pid_of)
    }

    fn greeting(&self) -> Result<(), String> {
        let stream = TcpStream::connect((self.address.as_str(), self.port)).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting).map_err(|e| e.to_string())?;
        if greeting.starts_with("@RSYNCD:") { Ok(()) } else { Err(format!("greeted with {greeting:?}")) }
    }

    fn output(&self) -> String {
        [self.dir.join("rsyncd.out"), self.log()]
            .iter()
            // Names in the output need not be UTF-8.
            .map(|path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Kills the server and all its connections, whatever they are doing.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.family.end();
        reap(&mut child, secs(10), "the end of rsyncd");
        self.family.lead(None);
    }

    /// Sends a signal to the server and to all its connections.
    pub fn signal(&self, which: Signal) {
        self.family.members().into_iter().for_each(|pid| signal(pid, which));
    }

    /// The processes that serve connections.
    pub fn connections(&self) -> Vec<i32> {
        self.family.members().into_iter().filter(|pid| Some(*pid) != self.pid()).collect()
    }

    /// The host and module as a client names them.
    pub fn remote(&self, module: &str) -> String {
        format!("{}::{module}", self.address)
    }
}

impl Drop for Rsyncd {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<_> = output.lines().rev().take(15).collect();
            eprintln!("--- last lines of rsyncd's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
