//! Serves [`Operate`] on a Unix socket, from one thread with its own small runtime. `tcp` does the same on TCP; the answers are
//! in `routes`.
//!
//! Bounds: the number of connections, the time for a request's header, one request per connection, and the time in which a
//! client takes no byte of an answer. A connection that asks nothing makes room for the next that comes. Only root and the
//! daemon's own user are answered. Mirroring never waits for anything here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::answer::{Patience, Stopping};
use super::routes::router;
use super::stall::Unstalled;
use super::{Operate, SOCKET_PATH_BYTES_MAX, socket_path};

/// Further connections take the places of those that have asked nothing yet, or wait in the socket's backlog.
const CONNECTIONS_MAX: u32 = 64;
/// How long answers may still take after a stop; unfinished ones are cut off.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Threads for questions to the daemon. More would only wait for the same locks.
const HELPERS_MAX: usize = 4;

/// Why the control socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the control socket's path {} has {bytes} bytes, at most {SOCKET_PATH_BYTES_MAX} are possible", .path.display())]
    PathTooLong { path: PathBuf, bytes: usize },
    #[error("cannot listen on {}", .path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    ListenTcp { address: SocketAddr, source: io::Error },
    #[error("cannot start the control thread")]
    Start { source: io::Error },
}

pub(super) const PATIENCE: Patience =
    Patience { header: Duration::from_secs(5), body: Duration::from_secs(5), stall: Duration::from_secs(30) };

/// The running server. Dropping it stops the server.
#[derive(Debug)]
pub struct ControlServer {
    socket: PathBuf,
    running: Running,
}

/// A server's thread. Dropping it stops the server.
#[derive(Debug)]
pub(super) struct Running(Mutex<Option<Thread>>);

#[derive(Debug)]
struct Thread {
    /// Dropping the sender is the signal to stop.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Starts to answer the connections of `listener`.
    pub(super) fn start<L: Listener>(
        name: &str,
        router: Router,
        patience: Patience,
        stopping: Stopping,
        listener: impl FnOnce() -> io::Result<L>,
    ) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(HELPERS_MAX)
            .build()
            .map_err(|source| ControlError::Start { source })?;
        let listener = {
            let _entered = runtime.enter();
            listener().map_err(|source| ControlError::Start { source })?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(runtime, listener, router, patience, stopping, stopped))
            .map_err(|source| ControlError::Start { source })?;
        Ok(Self(Mutex::new(Some(Thread { stop, thread }))))
    }

    /// Ends the server. Returns `false` if it had been ended before.
    pub(super) fn end(&self) -> bool {
        let running = self.0.lock().take();
        let Some(Thread { stop, thread }) = running else { return false };
        drop(stop);
        if thread.join().is_err() {
            log::error!("the control thread panicked");
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl ControlServer {
    /// Listens on the control socket of `state_dir`. An existing socket file is taken for a dead daemon's and replaced, so the
    /// caller must hold the lock of the state directory.
    pub fn start(state_dir: &Path, operate: Arc<dyn Operate>) -> Result<Self, ControlError> {
        Self::start_with(state_dir, operate, PATIENCE)
    }

    fn start_with(state_dir: &Path, operate: Arc<dyn Operate>, patience: Patience) -> Result<Self, ControlError> {
        let socket = socket_path(state_dir);
        let listener = listen(&socket)?;
        let stopping = Stopping::default();
        let router = router(operate, patience, Arc::clone(&stopping));
        let running = Running::start("control", router, patience, stopping, || UnixListener::from_std(listener))?;
        Ok(Self { socket, running })
    }

    /// Whether the socket file still exists; somebody may have removed the state directory.
    pub fn is_reachable(&self) -> bool {
        self.socket.exists()
    }

    /// Ends the server: no new connections, a moment for answers in progress, then the socket file is removed. Further calls do
    /// nothing.
    pub fn stop(&self) {
        if !self.running.end() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            log::debug!(path:% = self.socket.display(), error:%; "the control socket was gone already");
        }
    }

    /// Ends the server, and leaves the socket file alone: it may belong to a new server by now.
    pub fn abandon(self) {
        self.running.end();
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(socket: &Path) -> Result<std::os::unix::net::UnixListener, ControlError> {
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(ControlError::PathTooLong { path: socket.to_owned(), bytes });
    }
    let set_up = || {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(socket)?;
        // A client that connects before this line, under a careless umask, is still checked by its user id.
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    set_up().map_err(|source| ControlError::Listen { path: socket.to_owned(), source })
}

/// A source of connections.
pub(super) trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection; `None` for a peer that is not to be answered.
    fn next(&self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<Option<UnixStream>> {
        let own_uid = rustix::process::geteuid().as_raw();
        let (stream, _) = self.accept().await?;
        if stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid(), own_uid)) {
            return Ok(Some(stream));
        }
        log::warn!("refused a control connection of another user");
        Ok(None)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<Option<TcpStream>> {
        Ok(Some(self.accept().await?.0))
    }
}

fn serve(
    runtime: tokio::runtime::Runtime,
    listener: impl Listener,
    router: Router,
    patience: Patience,
    stopping: Stopping,
    stopped: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    runtime.block_on(async {
        let accepting = tokio::spawn(accept(listener, router, patience, Arc::clone(&places)));
        // Nothing is ever sent: this returns when the sender is dropped.
        let _ = stopped.await;
        stopping.store(true, Ordering::Relaxed);
        accepting.abort();
        let _ = accepting.await;
        // Every connection holds one place, so all places are free once all have ended.
        if tokio::time::timeout(STOP_DEADLINE, places.acquire_many(CONNECTIONS_MAX)).await.is_err() {
            log::debug!("control connections were cut off at the stop");
        }
    });
    // A helper thread that hangs in the daemon must not hold up the daemon's stop.
    runtime.shutdown_timeout(Duration::from_millis(100));
}

async fn accept(listener: impl Listener, router: Router, patience: Patience, places: Arc<Semaphore>) {
    let idle = Idle::default();
    for number in 0_u64.. {
        let stream = match listener.next().await {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                // Most likely there are no file descriptors left: without a pause this loop would spin.
                log::warn!(error:%; "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                // Yield first: a connection that has arrived has most likely asked already, and then it is not idle.
                tokio::task::yield_now().await;
                idle.end_oldest();
                // Acquiring cannot fail: the semaphore is never closed, since it lives as long as this task.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                place
            }
        };
        let (router, known) = (router.clone(), idle.clone());
        let task = tokio::spawn(async move {
            answer(stream, router, patience, || known.leave(number)).await;
            known.leave(number);
            drop(place);
        });
        // The task runs only after this line, so it cannot leave `idle` before it has joined.
        idle.join(number, task.abort_handle());
    }
}

/// The connections that have asked nothing yet, in the order of their arrival.
#[derive(Debug, Clone, Default)]
struct Idle(Arc<Mutex<BTreeMap<u64, AbortHandle>>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.0.lock()
    }

    fn join(&self, number: u64, task: AbortHandle) {
        self.lock().insert(number, task);
    }

    fn leave(&self, number: u64) {
        self.lock().remove(&number);
    }

    fn end_oldest(&self) {
        if let Some((_, task)) = self.lock().pop_first() {
            task.abort();
        }
    }
}

/// Whether a peer of user `peer_uid` is answered by a daemon of user `own_uid`.
fn may_ask(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == 0 || peer_uid == own_uid
}

/// Answers one request. `asked` is called when the request has arrived.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    patience: Patience,
    asked: impl Fn() + Send,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        asked();
        router.call(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.header)
        // One request per connection: an idle connection would hold its place for nothing.
        .keep_alive(false)
        .serve_connection(TokioIo::new(Unstalled::new(stream, patience.stall)), service)
        .await;
    if let Err(error) = served {
        log::debug!(error:%; "a control connection ended early");
    }
}

#[cfg(test)]
mod tests;
