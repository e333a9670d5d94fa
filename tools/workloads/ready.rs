//! Hears when a daemon is ready, by systemd's protocol: a datagram with the line `READY=1` to the socket that `NOTIFY_SOCKET`
//! names. A peer without this protocol never counts as ready, and is measured by its mirrors alone.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often the listening thread checks whether the result is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// One start of a daemon.
pub struct Start {
    began: Instant,
    ready: Arc<OnceLock<Instant>>,
}

impl Start {
    /// Listens at `socket`, which must not exist yet. The clock runs from here.
    pub fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixDatagram::bind(socket).with_context(|| format!("cannot make {}", socket.display()))?;
        listener.set_read_timeout(Some(LOOK))?;
        let ready = Arc::new(OnceLock::new());
        let wanted = Arc::downgrade(&ready);
        std::thread::spawn(move || {
            let mut text = [0; 4096];
            // Later datagrams are received too: a full socket would block the daemon.
            while let Some(ready) = wanted.upgrade() {
                match listener.recv(&mut text) {
                    Ok(length) => {
                        let mut lines = text.get(..length).unwrap_or_default().split(|byte| *byte == b'\n');
                        if lines.any(|line| line == b"READY=1") {
                            ready.get_or_init(Instant::now);
                        }
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Self { began: Instant::now(), ready })
    }

    /// Seconds from the start until the daemon was ready; `None` as long as it is not.
    pub fn ready_s(&self) -> Option<f64> {
        self.ready.get().map(|ready| ready.duration_since(self.began).as_secs_f64())
    }
}
