//! The `http` plugin: one POST per notice, in the form that sersync's sources contain but never sent:
//! `watchroot=W&isdir=0&inotifyPath=PATH&mask=N`. The values are encoded as in HTML forms, which sersync left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::exchange::{Peer, Timeouts};
use super::notice::Watch;
use super::{Delivery, Failure, Notice};
use crate::config::{HttpPlugin, HttpUrl};
use crate::mirror::Operation;

/// The characters of a form's value that are not encoded. The slash need not be, and paths stay readable.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// inotify's numbers for the events that most likely happened.
const IN_CLOSE_WRITE: u32 = 0x8;
const IN_CREATE: u32 = 0x100;
const IN_DELETE: u32 = 0x200;
const IN_ISDIR: u32 = 0x4000_0000;

pub(super) struct Http {
    watch: Option<Watch>,
    url: HttpUrl,
    peer: Peer,
}

impl Http {
    pub(super) fn new(config: &HttpPlugin) -> Self {
        Self {
            watch: config.watch.as_deref().map(Watch::new),
            url: config.url.clone(),
            peer: Peer::new(&config.url.host, config.url.port, Timeouts::default()),
        }
    }

    fn request(&self, notice: &Notice) -> Option<Vec<u8>> {
        let path = Watch::spell(self.watch.as_ref(), notice)?;
        let root = self.watch.as_ref().map_or(&notice.source.spelled, |watch| &watch.spelled);
        let mask = match (notice.operation, notice.directory) {
            (Operation::Update, false) => IN_CLOSE_WRITE,
            (Operation::Update, true) => IN_CREATE | IN_ISDIR,
            (Operation::Delete, false) => IN_DELETE,
            (Operation::Delete, true) => IN_DELETE | IN_ISDIR,
        };
        let body = format!(
            "watchroot={}&isdir={}&inotifyPath={}&mask={mask}",
            percent_encode(root.as_os_str().as_encoded_bytes(), FORM),
            u8::from(notice.directory),
            percent_encode(&path, FORM)
        );
        let HttpUrl { host, port, credentials, target } = &self.url;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authorization = match credentials {
            Some(credentials) => format!("Authorization: Basic {}\r\n", STANDARD.encode(credentials.reveal())),
            None => String::new(),
        };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}Connection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            target.reveal(),
            body.len()
        );
        Some((head + &body).into_bytes())
    }
}

impl Delivery for Http {
    fn wants(&self, notice: &Notice) -> bool {
        Watch::spell(self.watch.as_ref(), notice).is_some()
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        let Some(request) = self.request(notice) else { return Ok(()) };
        self.peer.judge(&self.peer.ask(&request)?)
    }

    fn stop(&self) {
        self.peer.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::tests::notice;
    use super::*;

    #[test]
    fn the_request_is_a_form() {
        let config = crate::plugin::tests::plugin(
            "http",
            r#"<localpath watch="/d/"><deshost url="http://u:p%40w@h:81/x?y=1"/></localpath>"#,
        );
        let crate::config::Plugin::Http(config) = config else { panic!("http") };
        let text = |notice: &Notice| String::from_utf8(Http::new(&config).request(notice).unwrap()).unwrap();
        assert_eq!(
            text(&notice("/d", b"a b&c=\r\n.txt")),
            "POST /x?y=1 HTTP/1.1\r\nHost: h:81\r\nAuthorization: Basic dTpwQHc=\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 76\r\n\r\n\
             watchroot=/d/&isdir=0&inotifyPath=/d//a%20b%26c%3D%0D%0A.txt&mask=8"
                .replace("Content-Length: 76", "Content-Length: 67")
        );
        let deleted = Notice { operation: Operation::Delete, directory: true, ..notice("/d", b"x") };
        assert!(text(&deleted).ends_with("isdir=1&inotifyPath=/d//x&mask=1073742336"));
    }
}
