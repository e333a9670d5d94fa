//! The control API on TCP, for operators who ask for it.
//!
//! On a loopback address every client may read. On other addresses a client needs the token to read, since names of files are
//! read. Requests that change anything or start work, which are all but GET, always need the token; without a token file TCP is
//! read-only. Two rules keep a browser on the same machine from being misused. The host that a request names has to be an
//! address or `localhost`, so that no foreign name leads here. And a request that comes from a web page changes nothing.
//!
//! There is no TLS: across a network the connection needs a tunnel.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use std::sync::Arc;

use super::Operate;
use super::answer::{Patience, Stopping};
use super::routes::router;
use super::server::{ControlError, PATIENCE, Running};

/// The address to listen on, and the token that clients need.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    pub address: SocketAddr,
    /// Without a token nothing can be changed.
    pub token: Option<Token>,
}

/// The secret that a client has to know. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The fewest characters of a token.
const TOKEN_CHARS_MIN: usize = 16;

impl Token {
    /// Takes the text without surrounding white space, if it is one word of printable ASCII of at least `TOKEN_CHARS_MIN`
    /// characters.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_token = text.len() >= TOKEN_CHARS_MIN && text.bytes().all(|b| b.is_ascii_graphic());
        is_token.then(|| Self(text.to_owned()))
    }

    /// Whether `given` is the token. The comparison takes the same time however many characters are right.
    fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b));
        own.len() == given.len() && std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The running server. Dropping it stops the server.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    running: Running,
}

impl TcpServer {
    pub fn start(options: TcpOptions, operate: Arc<dyn Operate>) -> Result<Self, ControlError> {
        Self::start_with(options, operate, PATIENCE)
    }

    pub(super) fn start_with(
        options: TcpOptions,
        operate: Arc<dyn Operate>,
        patience: Patience,
    ) -> Result<Self, ControlError> {
        let listen = || {
            let listener = std::net::TcpListener::bind(options.address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) =
            listen().map_err(|source| ControlError::ListenTcp { address: options.address, source })?;
        let guard = Arc::new(Guard { token: options.token, reads_need_token: !address.ip().is_loopback() });
        let stopping = Stopping::default();
        let guarded = from_fn(move |request, next| admit(Arc::clone(&guard), request, next));
        let router = router(operate, patience, Arc::clone(&stopping)).layer(guarded);
        let running =
            Running::start("control-tcp", router, patience, stopping, || tokio::net::TcpListener::from_std(listener))?;
        Ok(Self { address, running })
    }

    /// The address that the server listens on, with the port that the kernel assigned.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server as the control socket's is ended: no new connections, a moment for answers in progress.
    pub fn stop(&self) {
        self.running.end();
    }
}

#[derive(Debug)]
struct Guard {
    token: Option<Token>,
    reads_need_token: bool,
}

async fn admit(guard: Arc<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((code, error, hint)) => {
            let answer = (code, axum::Json(serde_json::json!({ "error": error, "hint": hint }))).into_response();
            if code != StatusCode::UNAUTHORIZED {
                return answer;
            }
            ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response()
        }
    }
}

/// A status, the fault, and the hint.
type Refused = (StatusCode, &'static str, &'static str);

impl Guard {
    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        if !names_this_machine(headers) {
            let error = "the request names a host that is neither an address nor localhost";
            return Err((StatusCode::FORBIDDEN, error, "ask by address, like http://127.0.0.1:PORT/v1/status"));
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !reads && headers.contains_key(header::ORIGIN) {
            let error = "a request from a web page changes nothing";
            return Err((StatusCode::FORBIDDEN, error, "ask without the Origin header"));
        }
        if reads && !self.reads_need_token {
            return Ok(());
        }
        let Some(token) = &self.token else {
            let error = "this address is read-only";
            let hint = "use the control socket (syncq on that machine), or start syncq with --token-file FILE (tokenFile in \
                        the configuration)";
            return Err((StatusCode::FORBIDDEN, error, hint));
        };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| value.split_at_checked(BEARER.len()));
        match given {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(BEARER) && token.is(given.trim_ascii()) => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "the token is wrong", TOKEN_HINT)),
            None => Err((StatusCode::UNAUTHORIZED, "this needs the token", TOKEN_HINT)),
        }
    }
}

const BEARER: &[u8] = b"Bearer ";
const TOKEN_HINT: &str = "send the header Authorization: Bearer TOKEN, with what the token file holds";

/// Whether the request names an address, and not a foreign name that was made to lead here.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for (host, ours) in [
            ("127.0.0.1", true),
            ("127.0.0.1:7878", true),
            ("10.1.2.3:1", true),
            ("localhost", true),
            ("LocalHost:80", true),
            ("[::1]", true),
            ("[::1]:80", true),
            ("evil.example", false),
            ("evil.example:7878", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:80", false),
            ("", false),
            ("::1", false),
            ("[::1", false),
            ("127.0.0.1:", false),
        ] {
            assert_eq!(names_this_machine(&headers(&[("host", host)])), ours, "{host}");
        }
        assert!(!names_this_machine(&headers(&[])));
        let mut two = headers(&[("host", "127.0.0.1")]);
        two.append("host", HeaderValue::from_static("evil.example"));
        assert!(!names_this_machine(&two));
    }

    #[test]
    fn who_may_do_what() {
        const SECRET: &str = "0123456789abcdef";
        let (own, far) = (("host", "127.0.0.1:1"), ("host", "evil.example"));
        let right = ("authorization", "Bearer 0123456789abcdef");
        let page = ("origin", "http://127.0.0.1:1");
        let (ok, no, who) = (None, Some(StatusCode::FORBIDDEN), Some(StatusCode::UNAUTHORIZED));
        // The expected results: without a token, with a token, and with a token on an address that others can reach.
        for (method, given, expected) in [
            (Method::GET, &[own][..], [ok, ok, who]),
            (Method::GET, &[own, right], [ok, ok, ok]),
            (Method::GET, &[own, page], [ok, ok, who]),
            (Method::GET, &[far, right], [no, no, no]),
            (Method::GET, &[], [no, no, no]),
            (Method::POST, &[own], [no, who, who]),
            (Method::POST, &[own, right], [no, ok, ok]),
            (Method::POST, &[own, right, page], [no, no, no]),
            (Method::POST, &[own, ("authorization", "bearer 0123456789abcdef")], [no, ok, ok]),
            (Method::POST, &[own, ("authorization", "Bearer 0123456789abcdeg")], [no, who, who]),
            (Method::POST, &[own, ("authorization", "Bearer 0123456789abcde")], [no, who, who]),
            (Method::POST, &[own, ("authorization", "Bearer 0123456789abcdef0")], [no, who, who]),
            (Method::POST, &[own, ("authorization", "Basic 0123456789abcdef")], [no, who, who]),
            (Method::POST, &[own, ("authorization", "Bearer ")], [no, who, who]),
            (Method::DELETE, &[own], [no, who, who]),
            (Method::OPTIONS, &[own, page], [no, no, no]),
        ] {
            let guards = [(false, false), (true, false), (true, true)];
            for ((with_token, reads_need_token), expected) in guards.into_iter().zip(expected) {
                let guard = Guard { token: Token::new(SECRET).filter(|_| with_token), reads_need_token };
                let refused = guard.check(&method, &headers(given)).err();
                assert_eq!(refused.map(|refused| refused.0), expected, "{method} {given:?} {guard:?}");
            }
        }
    }

    #[test]
    fn a_token_is_one_word_that_cannot_be_guessed_and_is_never_shown() {
        let token = Token::new(" 0123456789abcdef\n").expect("a token");
        assert!(token.is(b"0123456789abcdef") && !token.is(b"") && !format!("{token:?}").contains("0123"));
        for text in ["", "short", "two words of a token", "0123456789abcde\u{e9}"] {
            assert_eq!(Token::new(text), None, "{text}");
        }
    }
}
