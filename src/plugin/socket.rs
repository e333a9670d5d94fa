//! The `socket` plugin: one TCP connection per notice, which carries the bytes of the absolute path and nothing else: no
//! length, no end mark, no operation. This is sersync's form, and its listeners expect it.

use std::io::Write;

use super::exchange::{Peer, Timeouts};
use super::notice::Watch;
use super::{Delivery, Failure, Notice};
use crate::config::SocketPlugin;

pub(super) struct Socket {
    watch: Option<Watch>,
    peer: Peer,
}

impl Socket {
    pub(super) fn new(config: &SocketPlugin) -> Self {
        Self {
            watch: config.watch.as_deref().map(Watch::new),
            peer: Peer::new(&config.host, config.port, Timeouts::default()),
        }
    }
}

impl Delivery for Socket {
    fn wants(&self, notice: &Notice) -> bool {
        Watch::spell(self.watch.as_ref(), notice).is_some()
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        let Some(path) = Watch::spell(self.watch.as_ref(), notice) else { return Ok(()) };
        let mut stream = self.peer.connect()?;
        stream.write_all(&path).map_err(|failure| self.peer.broken(&failure))?;
        // The end of the stream tells the listener that the path is complete, even if a child that is just starting holds
        // the socket.
        stream.shutdown(std::net::Shutdown::Write).map_err(|failure| self.peer.broken(&failure))
    }

    fn stop(&self) {
        self.peer.stop();
    }
}
