//! Plugins of a running daemon: their notices (`told`, `sockets`, `web`), that they hold up no mirror (`no_delay`), and that
//! their faults are found before they are needed (`found_at_start`).

mod found_at_start;
mod no_delay;
mod sockets;
mod told;
mod web;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::world::soon;
use crate::harness::{World, make_dir, wait_for, write};

/// A command plugin that appends its notices to a file, NUL-separated: operation, kind, path, told path.
struct Recorder {
    log: PathBuf,
}

impl Recorder {
    fn install(world: &mut World, more: &str) -> Self {
        let dir = world.side("recorder");
        let (script, log) = (dir.join("tell me"), dir.join("log"));
        write(&log, "");
        let text = format!(
            "#!/bin/sh\n{more}\nexec 9>>'{0}.lock'; flock 9\n\
             printf '%s\\0%s\\0%s\\0%s\\0' \"$SYNCQ_OPERATION\" \"$SYNCQ_KIND\" \"$SYNCQ_PATH\" \"$1\" >> '{0}'\n",
            log.display()
        );
        write(&script, text);
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("cannot chmod");
        world.conf.plugin = Some("command".to_owned());
        world.conf.plugin_sections = format!(
            "<plugin name=\"command\"><param prefix=\"'{}'\" suffix=\"\" ignoreError=\"true\"/></plugin>",
            script.display()
        );
        Self { log }
    }

    /// Operation, kind, path, and the path that was passed as the argument, for each notice.
    fn told(&self) -> Vec<[Vec<u8>; 4]> {
        let bytes = fs::read(&self.log).expect("the recorder's log");
        let mut fields = bytes.split(|&b| b == 0).map(<[u8]>::to_vec);
        std::iter::from_fn(|| Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])).collect()
    }

    /// The notices as texts like `update file a/b`, each once.
    fn lines(&self) -> BTreeSet<String> {
        let line =
            |told: &[Vec<u8>; 4]| told[..3].iter().map(|f| String::from_utf8_lossy(f)).collect::<Vec<_>>().join(" ");
        self.told().iter().map(line).collect()
    }

    #[track_caller]
    fn wait_told(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|&line| line.to_owned()).collect();
        wait_for(soon(), "the plugin to be told", || {
            let missing: Vec<String> = expected.difference(&self.lines()).cloned().collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:#?} in {:#?}", self.lines())) }
        });
    }

    fn forget(&self) {
        write(&self.log, "");
    }
}

/// Writes a file, and makes the directories above it.
fn put(path: impl AsRef<Path>, content: &str) {
    make_dir(path.as_ref().parent().expect("a file is in a directory"));
    write(path, content);
}

fn plugin_status(world: &World) -> serde_json::Value {
    world.cli.status().json["plugins"][0].clone()
}
