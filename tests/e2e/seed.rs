//! A known write-up of sersync, followed to the letter: three machines with their addresses, modules, users, files and
//! commands. M-sersync (192.168.40.94) mirrors /data/www and /data/blog to the rsync daemons of S1 (.144) and S2 (.147).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::netns::{Machine, Network};
use crate::harness::tree::differences;
use crate::harness::world::soon;
use crate::harness::{Compare, secs, wait_for, wait_until, write};

const RSYNCD_CONF: &str = "\
#Rsync server
#created by wyan 2012-9-19
##rsyncd.conf start##
uid = root
gid = root
use chroot = no
max connections = 200
timeout = 600
pid file = /var/run/rsyncd.pid
lock file = /var/run/rsync.lock
log file = /var/log/rsyncd.log
ignore errors
read only = false
list = false
hosts allow = 192.168.40.94
hosts deny = 0.0.0.0/32
auth users = rsync_backup
secrets file = /etc/rsync.password
#####################################
[www]
path = /data/www
[blog]
path = /data/blog
";

const BLOG: &str = include_str!("../fixtures/configs/tutorial_blog.xml");
const WWW: &str = include_str!("../fixtures/configs/tutorial_www.xml");

const HOSTS: &str = "127.0.0.1 localhost\n192.168.40.94 M-sersync\n192.168.40.144 S1-rsync\n192.168.40.147 S2-rsync\n";

/// The three machines. Fields are dropped in order.
struct Site {
    m: Machine,
    s1: Machine,
    s2: Machine,
    network: Network,
    _dir: TempDir,
}

impl Site {
    /// Does every step up to the start of sersync. `None`: namespaces cannot be made here.
    fn new() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("syncq-seed-").tempdir().expect("cannot create a directory");
        let mut network = Network::new(dir.path())?;
        let (m, s1, s2) = (network.machine(94), network.machine(144), network.machine(147));
        network.introduce(&[(&m, 94), (&s1, 144), (&s2, 147)]);
        let site = Self { m, s1, s2, network, _dir: dir };
        for machine in [&site.m, &site.s1, &site.s2] {
            write(machine.path("/etc/hosts"), HOSTS);
            machine.sh("mkdir -p /data/www /data/blog");
        }
        for server in site.servers() {
            write(server.path("/etc/rsyncd.conf"), RSYNCD_CONF);
            server.sh(r#"echo "rsync_backup:123456" >/etc/rsync.password ; chmod 600 /etc/rsync.password"#);
            server.sh("rsync --daemon");
            server.wait_listening(873);
        }
        site.m.sh("echo 123456 >/etc/rsync.password ; chmod 600 /etc/rsync.password");
        site.m.sh("mkdir -p /usr/local/sersync/bin /usr/local/sersync/conf /usr/local/sersync/logs");
        fs::copy(env!("CARGO_BIN_EXE_syncq"), site.m.path("/usr/local/sersync/bin/syncq")).expect("cannot install");
        site.m.sh("cd /usr/local/sersync/bin && ln -s syncq sersync && ln -s syncq sersync2");
        write(site.m.path("/usr/local/sersync/conf/blog_confxml.xml"), BLOG);
        write(site.m.path("/usr/local/sersync/conf/www_confxml.xml"), WWW);
        Some(site)
    }

    fn servers(&self) -> [&Machine; 2] {
        [&self.s1, &self.s2]
    }

    /// Starts the mirrors of both trees.
    fn start(&self) {
        self.m.sh("sersync -r -d -o /usr/local/sersync/conf/www_confxml.xml");
        self.m.sh("sersync -r -d -o /usr/local/sersync/conf/blog_confxml.xml");
    }

    /// The targets of a configuration, in the output of `status`.
    fn targets(&self, conf: &str) -> Result<Vec<Value>, String> {
        let output = self.m.try_sh(&format!("syncq status --json -o /usr/local/sersync/conf/{conf}_confxml.xml"));
        let status: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
        if status["state"] != "running" {
            return Err(format!("not running: {status}"));
        }
        Ok(status["targets"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a server's directory is equal to M-sersync's.
    #[track_caller]
    fn equal(&self, server: &Machine, dir: &str, deadline: std::time::Duration) {
        let paths = |machine: &Machine| machine.path(dir);
        let (ours, theirs): (PathBuf, PathBuf) = (paths(&self.m), paths(server));
        wait_for(deadline, "equal trees", || {
            let found = differences(&ours, &theirs, Compare::default());
            if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
        });
    }

    /// Waits until `status` shows a reason and a hint for the target with that address.
    #[track_caller]
    fn told(&self, conf: &str, address: &str, reason: &str, hints: &[&str]) {
        wait_for(secs(90), reason, || {
            let targets = self.targets(conf)?;
            let target = targets.iter().find(|target| target["name"].to_string().contains(address));
            let target = target.ok_or_else(|| format!("no target {address}: {targets:?}"))?;
            let (why, what) = (target["reason"].to_string(), target["hint"].to_string());
            let says = why.contains(reason) && hints.iter().all(|hint| what.contains(hint));
            if says { Ok(()) } else { Err(format!("{target:#}")) }
        });
    }

    /// Whether the list of failures contains no command.
    fn nothing_failed(&self, conf: &str) -> bool {
        let list = self.m.path(&format!("/usr/local/sersync/logs/{conf}_rsync_fail_log.sh"));
        !fs::read_to_string(list).unwrap_or_default().lines().any(|line| line.starts_with("cd "))
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn the_write_up_works_as_it_stands() {
    let Some(site) = Site::new() else { return };
    site.m.sh("dd if=/dev/zero of=/data/www/10M.img count=100 bs=1024");
    site.m.sh("dd if=/dev/zero of=/data/blog/1M.img count=10 bs=1024");
    for (dir, server) in [("blog", "192.168.40.144"), ("www", "192.168.40.144"), ("www", "192.168.40.147")] {
        site.m
            .sh(&format!("rsync -avzP /data/{dir}/ rsync_backup@{server}::{dir} --password-file=/etc/rsync.password"));
    }
    assert!(site.s1.path("/data/blog/1M.img").exists() && site.s2.path("/data/www/10M.img").exists());

    site.start();
    for conf in ["www", "blog"] {
        let file = format!("/usr/local/sersync/conf/{conf}_confxml.xml");
        let running = site.m.command_lines();
        assert!(running.iter().any(|line| line.contains("sersync") && line.contains(&file)), "{running:#?}");
    }
    site.m.sh("cd /data/blog && mkdir test && for n in `seq 1000`;do echo aaaa>$n.txt;done");
    for server in site.servers() {
        site.equal(server, "/data/blog", soon());
        site.equal(server, "/data/www", soon());
        // A file that is being sent again has a temporary file beside it, so wait for the exact number.
        wait_until(soon(), "1000 files, 1M.img and test", || count(&server.path("/data/blog")) == 1002);
    }
    assert!(site.nothing_failed("blog") && site.nothing_failed("www"));
    site.m.sh("cd /data/blog && rm 99?.txt && mv test tested && echo bbbb > 1.txt");
    for server in site.servers() {
        site.equal(server, "/data/blog", soon());
    }

    // As at the next boot: started by rc.local, from another directory, without a first comparison.
    for conf in ["www", "blog"] {
        site.m.sh(&format!("kill $(cat /var/lib/syncq/{conf}_confxml/syncq.pid)"));
    }
    wait_until(secs(30), "the end of both", || site.m.command_lines().is_empty());
    site.m.sh("echo meanwhile > /data/www/meanwhile.txt; rm /data/blog/2.txt");
    for conf in ["blog", "www"] {
        site.m.sh(&format!("/usr/local/sersync/bin/sersync2 -d -o /usr/local/sersync/conf/{conf}_confxml.xml"));
    }
    for server in site.servers() {
        site.equal(server, "/data/blog", soon());
        site.equal(server, "/data/www", soon());
    }
}

#[test]
fn a_server_that_is_cut_off_delays_nobody_and_gets_everything_when_it_is_back() {
    let Some(site) = Site::new() else { return };
    site.start();
    write(site.m.path("/data/blog/before"), "cut");
    for server in site.servers() {
        site.equal(server, "/data/blog", soon());
    }
    site.network.cut(&site.s2);
    for n in 0..10 {
        let name = format!("/data/blog/file{n}");
        write(site.m.path(&name), "content");
        // Shorter than the time after which the other target is given up.
        wait_until(secs(15), &name, || site.s1.path(&name).exists());
    }
    site.told("blog", "192.168.40.147", "the host does not answer", &["check host, network and firewall"]);
    site.m.sh("cd /data/blog && for n in `seq 1000`;do echo aaaa>$n.txt;done; rm before");
    site.equal(&site.s1, "/data/blog", soon());
    assert!(!site.s2.path("/data/blog/1.txt").exists(), "it is not cut off");
    site.network.join(&site.s2);
    site.equal(&site.s2, "/data/blog", secs(150));
}

#[test]
fn a_wrong_password_is_explained_on_both_sides() {
    let Some(site) = Site::new() else { return };
    let chmod = |machine: &Machine, mode: u32| {
        let file = machine.path("/etc/rsync.password");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("cannot chmod");
    };
    write(site.m.path("/data/www/file"), "content");
    // S1 has another password. S2's password file is readable for others, so that its rsync daemon does not use the file.
    write(site.s1.path("/etc/rsync.password"), "rsync_backup:654321\n");
    chmod(&site.s2, 0o644);
    site.m.sh("sersync -r -d -o /usr/local/sersync/conf/www_confxml.xml");
    let hints = ["user name", "password file", "mode 600", "auth users", "secrets file"];
    for address in ["192.168.40.144", "192.168.40.147"] {
        site.told("www", address, "refuses user or password", &hints);
    }
    write(site.s1.path("/etc/rsync.password"), "rsync_backup:123456\n");
    chmod(&site.s2, 0o600);
    site.m.sh("syncq retry -o /usr/local/sersync/conf/www_confxml.xml");
    for server in site.servers() {
        site.equal(server, "/data/www", secs(150));
    }
    // M-sersync's own password file is readable for others too.
    chmod(&site.m, 0o644);
    let refused = site.m.try_sh("sersync -r -d -o /usr/local/sersync/conf/blog_confxml.xml");
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    if refused.status.success() {
        site.told("blog", "192.168.40.144", "readable by others", &["chmod 600"]);
    } else {
        assert!(said.contains("/etc/rsync.password") && said.contains("600"), "{said}");
    }
}
