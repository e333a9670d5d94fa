//! Machines with a network of their own. Each has a network namespace, a mount namespace and a root directory in memory, with
//! the system's programs and with an `/etc`, `/var` and `/data` that nobody else sees. So a scenario may use literal addresses,
//! ports and paths.
//!
//! No namespace has a name. Each lives by one process that reads from a pipe of the test and ends with that pipe. So all
//! namespaces go away, with their mounts and connections, however the test ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use rustix::process::Signal;

use super::processes::{pid_of, signal};
use super::wait::{secs, try_for, wait_until};
use super::{is_root, skipped};

/// Makes the root directory in `$1`, and stays in it until the pipe closes.
const MACHINE: &str = r#"
set -e
root=$1
mount -t tmpfs -o mode=755 syncq "$root"
cd "$root"
mkdir -p usr proc dev sys run tmp root etc data var/lib var/log
chmod 1777 tmp
for dir in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$dir" ]; then cp -P "/$dir" .
    elif [ -d "/$dir" ]; then mkdir "$dir"; mount --bind "/$dir" "$dir"; fi
done
mount --bind /usr usr
mount -t tmpfs -o mode=755 syncq usr/local
mount --rbind /proc proc
mount --rbind /dev dev
ln -s /run var/run
for file in passwd group nsswitch.conf ld.so.cache ld.so.conf ld.so.conf.d; do
    [ ! -e "/etc/$file" ] || cp -r "/etc/$file" etc/
done
ip link set lo up
echo ready
exec chroot "$root" cat
"#;

/// A switch with machines plugged into it.
#[derive(Debug)]
pub struct Network {
    dir: PathBuf,
    switch: Machine,
    plugs: u8,
}

/// One machine. Dropping it ends every process that runs in it.
#[derive(Debug)]
pub struct Machine {
    holder: Child,
    /// Closing the pipe ends the holder.
    _pipe: Option<ChildStdin>,
    plug: String,
}

impl Network {
    /// Makes a network without machines, with mount points in `dir`. `None` if that is impossible here; the reason is printed.
    pub fn new(dir: &Path) -> Option<Self> {
        if !is_root() {
            skipped("no root to make namespaces with");
            return None;
        }
        let Some(switch) = Machine::new(dir, "switch") else {
            skipped("namespaces cannot be made here (unshare, mount or ip fails)");
            return None;
        };
        if !switch.try_sh("ip link add hub type bridge && ip link set hub up").status.success() {
            skipped("a network bridge cannot be made here");
            return None;
        }
        Some(Self { dir: dir.to_owned(), switch, plugs: 0 })
    }

    /// Adds a machine with an address in 192.168.40.0/24, of which `last` is the last number.
    pub fn machine(&mut self, last: u8) -> Machine {
        self.plugs += 1;
        let mut machine = Machine::new(&self.dir, &format!("machine{last}")).expect("the switch could be made");
        machine.plug = format!("plug{}", self.plugs);
        let (plug, pid) = (&machine.plug, machine.pid());
        self.switch.sh(&format!(
            "ip link add name {plug} type veth peer name eth0 address 02:00:c0:a8:28:{last:02x} netns {pid}
             ip link set {plug} master hub && ip link set {plug} up"
        ));
        machine.sh(&format!("ip addr add 192.168.40.{last}/24 dev eth0 && ip link set eth0 up"));
        machine
    }

    /// Tells each of the machines the link addresses of the others. A machine that is cut off is then silent, like a machine
    /// behind a router. Without this its neighbours would report that it has gone.
    pub fn introduce(&self, machines: &[(&Machine, u8)]) {
        for (machine, own) in machines {
            for (_, last) in machines.iter().filter(|(_, last)| last != own) {
                machine.sh(&format!(
                    "ip neigh replace 192.168.40.{last} lladdr 02:00:c0:a8:28:{last:02x} dev eth0 nud permanent"
                ));
            }
        }
    }

    /// Cuts the machine off: no packet reaches it or comes from it, and nobody is told.
    pub fn cut(&self, machine: &Machine) {
        self.switch.sh(&format!("ip link set {} down", machine.plug));
    }

    /// Undoes [`Network::cut`].
    pub fn join(&self, machine: &Machine) {
        self.switch.sh(&format!("ip link set {} up", machine.plug));
    }
}

impl Machine {
    fn new(dir: &Path, name: &str) -> Option<Self> {
        let root = dir.join(name);
        fs::create_dir_all(&root).expect("cannot create a mount point");
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", MACHINE, "machine"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        let read = holder.stdout.take().map(|stdout| BufReader::new(stdout).read_line(&mut said));
        let machine = Self { _pipe: holder.stdin.take(), holder, plug: String::new() };
        (matches!(read, Some(Ok(_))) && said == "ready\n").then_some(machine)
    }

    fn pid(&self) -> i32 {
        pid_of(&self.holder)
    }

    /// A path of the machine, as a path of this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid()))
    }

    /// Runs a script on the machine, and returns its output whether it succeeded or not.
    pub fn try_sh(&self, script: &str) -> Output {
        let output = Command::new("nsenter")
            .arg(format!("--target={}", self.pid()))
            .args(["--net", "--mount", "--root", "--wd", "--", "sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/sersync/bin")
            .env("HOME", "/root")
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output();
        output.expect("cannot start nsenter")
    }

    /// Runs a script on the machine that has to succeed, and returns its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script}\nfailed: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// Waits until a process on the machine listens on a port.
    #[track_caller]
    pub fn wait_listening(&self, port: u16) {
        let address = format!(":{port:04X} ");
        let listens = |table: &str| {
            let lines = fs::read_to_string(format!("/proc/{}/net/{table}", self.pid())).unwrap_or_default();
            // 0A is the state LISTEN.
            lines.lines().any(|line| line.contains(&address) && line.split_ascii_whitespace().nth(3) == Some("0A"))
        };
        wait_until(secs(20), "a server", || listens("tcp") || listens("tcp6"));
    }

    /// The processes of the machine, as `ps` shows them.
    pub fn command_lines(&self) -> Vec<String> {
        let line = |pid| {
            let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
        };
        self.processes().into_iter().map(line).filter(|line| !line.is_empty()).collect()
    }

    /// The ids of all processes of the machine.
    fn processes(&self) -> Vec<i32> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let Some(own) = namespace(self.pid()).filter(|own| Some(own) != namespace(1).as_ref()) else {
            return Vec::new();
        };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|&pid| pid != self.pid() && namespace(pid).as_ref() == Some(&own)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let ended = try_for(secs(10), || {
            let left = self.processes();
            left.iter().for_each(|&pid| signal(pid, Signal::KILL));
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        if let Err(left) = ended {
            eprintln!("processes outlived SIGKILL: {left}");
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
