//! A real sshd on loopback with keys, configuration and port of its own, and the configuration of an ssh client that knows this
//! server. It lets in the user who runs the tests. No user's `~/.ssh` is read or written. As root, sshd needs the empty
//! directory /run/sshd, which its service would create.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::processes::{pid_of, reap, signal};
use super::rsync::{Side, path_with};

use super::wait::{secs, try_for};
use super::{free_port, is_root, skipped};

const SSHD: &str = "/usr/sbin/sshd";

#[derive(Debug)]
pub struct Sshd {
    dir: PathBuf,
    pub port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Sshd {
    /// Starts a server that keeps its files in `dir`, with further lines of configuration. `None` if there is no sshd here, or
    /// if nobody can log in; the reason is printed.
    pub fn start_with(dir: &Path, options: &[&str]) -> Option<Self> {
        if !Path::new(SSHD).is_file() || Command::new("ssh").arg("-V").output().is_err() {
            skipped("no sshd or no ssh");
            return None;
        }
        fs::create_dir_all(dir).expect("cannot create sshd's directory");
        if is_root() {
            fs::create_dir_all("/run/sshd").expect("cannot create /run/sshd");
        }
        let options = options.iter().map(|&line| line.to_owned()).collect();
        let mut sshd = Self { dir: dir.to_owned(), port: free_port(), options, child: None };
        sshd.make_key("host_key");
        sshd.make_key("user_key");
        fs::copy(dir.join("user_key.pub"), dir.join("authorized_keys")).expect("cannot authorize the key");
        sshd.trust_host();
        sshd.write_client("");
        sshd.start();
        let tried = sshd.login("true");
        if tried.is_empty() {
            return Some(sshd);
        }
        skipped(&format!("nobody can log in to a private sshd here: {tried}"));
        None
    }

    fn make_key(&self, name: &str) {
        let file = self.dir.join(name);
        let _ = fs::remove_file(&file);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).output();
        assert!(made.expect("cannot start ssh-keygen").status.success(), "ssh-keygen failed");
    }

    /// The error text of a login that runs `command`; empty if it succeeds.
    fn login(&self, command: &str) -> String {
        let output = Command::new("ssh")
            .arg("-F")
            .arg(self.client())
            .args(["-p", &self.port.to_string(), "-o", "BatchMode=yes", "127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .expect("cannot start ssh");
        if output.status.success() { String::new() } else { String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Makes the present host key known to the client.
    pub fn trust_host(&self) {
        let key = fs::read_to_string(self.dir.join("host_key.pub")).expect("cannot read the host key");
        fs::write(self.dir.join("known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).expect("cannot trust");
    }

    /// Makes the client forget the host.
    pub fn forget_host(&self) {
        fs::write(self.dir.join("known_hosts"), "").expect("cannot write known_hosts");
    }

    /// Gives the server another host key, which counts from the next start.
    pub fn change_host_key(&self) {
        self.make_key("host_key");
    }

    /// Withdraws the client's key.
    pub fn refuse_key(&self) {
        fs::write(self.dir.join("authorized_keys"), "").expect("cannot write authorized_keys");
    }

    pub fn accept_key(&self) {
        fs::copy(self.dir.join("user_key.pub"), self.dir.join("authorized_keys")).expect("cannot authorize the key");
    }

    /// The client's configuration file, for `ssh -F`.
    pub fn client(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// Writes the client's configuration, with further lines.
    pub fn write_client(&self, more: &str) {
        let text = format!(
            "Host *\nIdentityFile {0}/user_key\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile \
             {0}/known_hosts\nGlobalKnownHostsFile /dev/null\n{more}\n",
            self.dir.display()
        );
        fs::write(self.client(), text).expect("cannot write the client's configuration");
    }

    /// The ssh command in the form of rsync's `-e`.
    pub fn shell(&self) -> String {
        format!("ssh -F {}", self.client().display())
    }

    /// The user who is let in.
    pub fn user() -> String {
        let output = Command::new("id").arg("-un").output().expect("cannot start id");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("sshd.log")
    }

    /// How many logins there were since [`Sshd::forget_log`].
    pub fn logins(&self) -> usize {
        let mut text = String::new();
        File::open(self.log()).and_then(|mut log| log.read_to_string(&mut text)).expect("cannot read sshd's log");
        text.matches("Accepted publickey for").count()
    }

    pub fn forget_log(&self) {
        // The server has the log open for appending, so that it goes on at the new end.
        File::create(self.log()).expect("cannot empty sshd's log");
    }

    /// Starts the server, and waits until it sends its greeting.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "sshd runs already");
        let conf = self.dir.join("sshd_config");
        let mut file = File::create(&conf).expect("cannot write sshd_config");
        let dir = self.dir.display();
        // With SHLVL above 1 a shell does not take itself for a login shell, and reads no profile.
        write!(
            file,
            "Port {}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nSetEnv SHLVL=2 PATH={}\nMaxStartups 100\n{}\n",
            self.port,
            path_with(Side::Server).display(),
            self.options.join("\n")
        )
        .expect("cannot write sshd_config");
        fs::set_permissions(&conf, Permissions::from_mode(0o600)).expect("cannot chmod sshd_config");
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("cannot open sshd's log");
        let child = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(&conf)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn();
        self.child = Some(child.expect("cannot start sshd"));
        let greeting = try_for(secs(20), || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|e| e.to_string())?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).map_err(|e| e.to_string())?;
            if greeting == *b"SSH-" { Ok(()) } else { Err(format!("greeted with {greeting:?}")) }
        });
        if let Err(reason) = greeting {
            panic!("sshd does not answer: {reason}\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }

    /// Kills the server and all its sessions.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Kill the listener first, since it makes further sessions. Sessions have process groups of their own, but are its
        // children.
        let sessions = descendants(pid_of(&child));
        signal(pid_of(&child), Signal::KILL);
        reap(&mut child, secs(10), "the end of sshd");
        sessions.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("--- last lines of sshd's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// All descendants of a process.
fn descendants(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<i32> = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    children.into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}
