//! The `refreshCDN` plugin: tells ChinaCache which URL is out of date, in sersync's request.
//!
//! The request is `HEAD /index.jsp?user=U&pswd=P&ok=ok&urls=URL HTTP/1.0` with a `Host` line; a directory has `dirs=URL/`.
//! Every byte of a name that means something in a URL is percent-encoded, so no name can add a parameter or a header line.
//! The password goes over the wire unencrypted: the service knows no other way.

use std::os::unix::ffi::OsStrExt;

use log::debug;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};

use super::exchange::{Answer, Peer, Timeouts};
use super::notice::Watch;
use super::{Delivery, Failure, Notice, PluginError};
use crate::config::RefreshCdnPlugin;
use crate::filter::Pattern;

/// The characters of a path that are not encoded.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// The characters of a user's name or password that are not encoded.
const VALUE: &AsciiSet = &PATH.add(b'/');
/// The base is a URL already: only characters that would end it, or begin another parameter, are encoded.
const BASE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'&').add(b'#');

/// How many characters of the answer's own line are logged.
const ANSWER_CHARS_MAX: usize = 200;

pub(super) struct RefreshCdn {
    watch: Option<Watch>,
    peer: Peer,
    config: RefreshCdnPlugin,
    path_match: Option<Pattern>,
}

impl RefreshCdn {
    pub(super) fn new(config: &RefreshCdnPlugin) -> Result<Self, PluginError> {
        let path_match =
            config.path_match.as_deref().map(|expression| crate::filter::compile(expression, false)).transpose()?;
        Ok(Self {
            watch: config.watch.as_deref().map(Watch::new),
            peer: Peer::new(&config.host, config.port, Timeouts::default()),
            config: config.clone(),
            path_match,
        })
    }

    /// The URL of a notice. `None` if the CDN is not to be told of its path.
    fn url(&self, notice: &Notice) -> Option<String> {
        let below = match &self.watch {
            Some(watch) => notice.below(watch)?,
            None => notice.path.as_bytes().to_vec(),
        };
        let rest = match &self.path_match {
            None => [b"/", below.as_slice()].concat(),
            Some(regex) => {
                let absolute = notice.absolute();
                let subject = absolute.as_os_str().as_bytes();
                let found = regex.find(subject)?;
                let after = subject.get(found.end..).unwrap_or_default();
                [found.first_group.unwrap_or_default(), after].concat()
            }
        };
        let slash = if notice.directory { "/" } else { "" };
        Some(format!("{}{}{slash}", utf8_percent_encode(&self.config.base, BASE), percent_encode(&rest, PATH)))
    }

    fn request(&self, notice: &Notice) -> Option<Vec<u8>> {
        let url = self.url(notice)?;
        let what = if notice.directory { "dirs" } else { "urls" };
        let RefreshCdnPlugin { host, user, password, .. } = &self.config;
        let user = utf8_percent_encode(user, VALUE);
        let password = utf8_percent_encode(password.reveal(), VALUE);
        let line = format!("HEAD /index.jsp?user={user}&pswd={password}&ok=ok&{what}={url} HTTP/1.0\r\n");
        Some(format!("{line}Host: {host}\r\n\r\n").into_bytes())
    }

    /// The line in which ChinaCache says what it did. A password in it is blotted out, so that no answer puts it into the
    /// log.
    fn whatsup(&self, answer: &Answer) -> String {
        let text = String::from_utf8_lossy(&answer.head).replace(self.config.password.reveal(), "***");
        let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("whatsup")).unwrap_or_default();
        line.chars().take(ANSWER_CHARS_MAX).collect()
    }
}

impl Delivery for RefreshCdn {
    fn wants(&self, notice: &Notice) -> bool {
        self.url(notice).is_some()
    }

    fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        let Some(request) = self.request(notice) else { return Ok(()) };
        let answer = self.peer.ask(&request)?;
        debug!("plugin refreshCDN: {}: HTTP {} {}", notice.path, answer.status, self.whatsup(&answer));
        self.peer.judge(&answer)
    }

    fn stop(&self) {
        self.peer.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice::tests::notice;
    use super::*;
    use crate::config::Plugin;

    fn cdn(watch: &str, base: &str, regex: &str) -> RefreshCdn {
        let section = format!(
            r#"<localpath watch="{watch}"><cdninfo domainname="cdn.example.com" port="80" username="u&amp;1" passwd="p w"/>
               <sendurl base="{base}"/>{regex}</localpath>"#
        );
        let Plugin::RefreshCdn(config) = crate::plugin::tests::plugin("refreshCDN", &section) else { panic!("a CDN") };
        RefreshCdn::new(&config).unwrap()
    }

    fn text(cdn: &RefreshCdn, notice: &Notice) -> Option<String> {
        cdn.request(notice).map(|request| String::from_utf8(request).unwrap())
    }

    #[test]
    fn the_request_has_sersyncs_form() {
        let cdn = cdn("/data/site/", "http://pic.example.com/cms", "");
        assert_eq!(
            text(&cdn, &notice("/data/site", b"a/b.jpg")).unwrap(),
            "HEAD /index.jsp?user=u%261&pswd=p%20w&ok=ok&urls=http://pic.example.com/cms/a/b.jpg HTTP/1.0\r\n\
             Host: cdn.example.com\r\n\r\n"
        );
        let directory = Notice { directory: true, ..notice("/data/site", b"a/b") };
        assert!(text(&cdn, &directory).unwrap().contains("&ok=ok&dirs=http://pic.example.com/cms/a/b/ HTTP/1.0\r\n"));
        assert_eq!(text(&cdn, &notice("/data/other", b"x")), None);
    }

    #[test]
    fn s4_no_name_can_add_a_parameter_or_a_header_line() {
        let cdn = cdn("/d", "http://x", "");
        let odd = text(&cdn, &notice("/d", b"a b&urls=y\r\nHost: evil#?%+\xff")).unwrap();
        assert!(
            odd.contains("urls=http://x/a%20b%26urls%3Dy%0D%0AHost%3A%20evil%23%3F%25%2B%FF HTTP/1.0\r\n"),
            "{odd}"
        );
        assert_eq!(odd.lines().count(), 3);
    }

    #[test]
    fn an_expression_picks_what_the_url_is_made_of() {
        let regex = r#"<regexurl regex="true" match="site([/a-zA-Z0-9]*)/images"/>"#;
        let cdn = cdn("/data/site", "http://pic.example.com", regex);
        let url = |path: &[u8]| cdn.url(&notice("/data/site", path));
        assert_eq!(url(b"cms/x/images/a.jpg").unwrap(), "http://pic.example.com/cms/x/a.jpg");
        assert_eq!(url(b"cms/other/a.jpg"), None);
    }

    #[test]
    fn an_answer_cannot_bring_the_password_into_the_log() {
        let cdn = cdn("/d", "http://x", "");
        let answer = Answer { status: 200, head: b"HTTP/1.0 200 OK\r\nwhatsup: bad password p w\r\n\r\n".to_vec() };
        assert_eq!(cdn.whatsup(&answer), "whatsup: bad password ***");
    }
}
