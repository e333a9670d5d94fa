//! A sersync `confxml.xml`, written as sersync's own file is laid out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct LocalPath {
    pub watch: String,
    /// Host and module.
    pub remotes: Vec<(String, String)>,
}

/// The settings that a test may change; the defaults are those of the file that sersync ships.
#[derive(Debug, Clone)]
pub struct Conf {
    pub file: PathBuf,
    pub local_paths: Vec<LocalPath>,
    pub port: u16,
    pub params: String,
    /// User and password file.
    pub auth: Option<(String, PathBuf)>,
    pub timeout_s: Option<u32>,
    /// Whether the targets are directories behind ssh; the port is then sshd's.
    pub ssh: bool,
    pub excludes: Vec<String>,
    pub delete: bool,
    pub create_folder: bool,
    pub create_file: bool,
    pub close_write: bool,
    pub move_from: bool,
    pub move_to: bool,
    pub attrib: bool,
    pub modify: bool,
    pub fail_log: PathBuf,
    /// Upper bound on how long a failing job waits, in minutes.
    pub fail_log_minutes: u32,
    pub xfs: bool,
    /// When the whole tree is compared: minutes, or a cron expression; `None`: never.
    pub schedule: Option<String>,
    /// syncq's own elements, inside `<syncq>`.
    pub syncq: String,
    pub debug: bool,
    /// The plugin in use, if any.
    pub plugin: Option<String>,
    /// The sections of plugins, as they stand in the file.
    pub plugin_sections: String,
}

impl Conf {
    /// A configuration in `dir` without any root.
    pub fn new(dir: &Path, name: &str, port: u16) -> Self {
        Self {
            file: dir.join(name),
            local_paths: Vec::new(),
            port,
            params: "-artuz".to_owned(),
            auth: None,
            timeout_s: None,
            ssh: false,
            excludes: Vec::new(),
            delete: true,
            create_folder: true,
            create_file: false,
            close_write: true,
            move_from: true,
            move_to: true,
            attrib: false,
            modify: false,
            fail_log: dir.join("rsync_fail_log.sh"),
            fail_log_minutes: 60,
            xfs: false,
            schedule: None,
            syncq: String::new(),
            debug: false,
            plugin: None,
            plugin_sections: String::new(),
        }
    }

    pub fn root(&mut self, watch: &Path, remotes: &[(&str, &str)]) -> &mut Self {
        self.local_paths.push(LocalPath {
            watch: watch.to_str().expect("a UTF-8 root").to_owned(),
            remotes: remotes.iter().map(|&(host, module)| (host.to_owned(), module.to_owned())).collect(),
        });
        self
    }

    /// Writes the file and returns its path.
    pub fn save(&self) -> PathBuf {
        fs::write(&self.file, self.xml()).unwrap_or_else(|e| panic!("cannot write {}: {e}", self.file.display()));
        self.file.clone()
    }

    pub fn xml(&self) -> String {
        let mut xml = String::new();
        let mut line = |text: String| writeln!(xml, "{text}").expect("writing to a string");
        line("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<head version=\"2.5\">".to_owned());
        line(format!("  <host hostip=\"localhost\" port=\"8008\"></host>\n  <debug start=\"{}\"/>", self.debug));
        line(format!("  <fileSystem xfs=\"{}\"/>", self.xfs));
        line(format!("  <filter start=\"{}\">", !self.excludes.is_empty()));
        for expression in &self.excludes {
            line(format!("    <exclude expression=\"{}\"></exclude>", escaped(expression)));
        }
        line("  </filter>\n  <inotify>".to_owned());
        for (name, start) in [
            ("delete", self.delete),
            ("createFolder", self.create_folder),
            ("createFile", self.create_file),
            ("closeWrite", self.close_write),
            ("moveFrom", self.move_from),
            ("moveTo", self.move_to),
            ("attrib", self.attrib),
            ("modify", self.modify),
        ] {
            line(format!("    <{name} start=\"{start}\"/>"));
        }
        line("  </inotify>\n  <sersync>".to_owned());
        for local in &self.local_paths {
            line(format!("    <localpath watch=\"{}\">", escaped(&local.watch)));
            for (host, module) in &local.remotes {
                line(format!("      <remote ip=\"{}\" name=\"{}\"/>", escaped(host), escaped(module)));
            }
            line("    </localpath>".to_owned());
        }
        line(format!("    <rsync>\n      <commonParams params=\"{}\"/>", escaped(&self.params)));
        let (start, user, file) = match &self.auth {
            Some((user, file)) => (true, user.as_str(), file.display().to_string()),
            None => (false, "root", "/etc/rsync.pas".to_owned()),
        };
        line(format!("      <auth start=\"{start}\" users=\"{user}\" passwordfile=\"{}\"/>", escaped(&file)));
        line(format!("      <userDefinedPort start=\"true\" port=\"{}\"/>", self.port));
        let timeout = self.timeout_s;
        line(format!("      <timeout start=\"{}\" time=\"{}\"/>", timeout.is_some(), timeout.unwrap_or(100)));
        line(format!("      <ssh start=\"{}\"/>\n    </rsync>", self.ssh));
        let fail_log = escaped(&self.fail_log.display().to_string());
        line(format!("    <failLog path=\"{fail_log}\" timeToExecute=\"{}\"/>", self.fail_log_minutes));
        let schedule = self.schedule.as_deref();
        line(format!("    <crontab start=\"{}\" schedule=\"{}\">", schedule.is_some(), schedule.unwrap_or("600")));
        line("      <crontabfilter start=\"false\">".to_owned());
        line("        <exclude expression=\"*.php\"></exclude>\n      </crontabfilter>\n    </crontab>".to_owned());
        let (start, name) = (self.plugin.is_some(), self.plugin.as_deref().unwrap_or("command"));
        line(format!("    <plugin start=\"{start}\" name=\"{name}\"/>\n  </sersync>"));
        if !self.syncq.is_empty() {
            line(format!("  <syncq>{}</syncq>", self.syncq));
        }
        line(format!("{}\n</head>", self.plugin_sections));
        xml
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
