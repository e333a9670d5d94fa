//! The TCP address of the control API: `--listen` and `--token-file`, or `<control>` in the configuration.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{CliError, quoted};
use crate::control::{TcpOptions, Token};
use crate::model::Endpoint;
use crate::trust;

/// The most bytes that are read of a token file: a token is one word.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Answer on TCP too; a bare port is on 127.0.0.1. Read-only without --token-file
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// File with the token (mode 600) that clients have to send to change anything; needed for an address that others
    /// reach, where reading takes it as well
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    Endpoint::parse_address(text)
        .ok_or_else(|| "give a port, or an address with a port, like 127.0.0.1:7878".to_owned())
}

impl ListenArgs {
    /// The TCP options, if there is an address. Reads the token, so the file has to exist at the start only.
    pub fn options(&self) -> Result<Option<TcpOptions>, CliError> {
        let Some(address) = self.listen else { return Ok(None) };
        let endpoint = Endpoint { address, token_file: self.token_file.clone() };
        if endpoint.is_open() {
            return Err(CliError::usage(format!("others can reach {address}, and there is no token"))
                .hint("add --token-file FILE, or listen on 127.0.0.1 and use a tunnel (ssh -L)"));
        }
        options(&endpoint).map(Some)
    }
}

/// Reads the token of an endpoint.
pub fn options(endpoint: &Endpoint) -> Result<TcpOptions, CliError> {
    let token = endpoint.token_file.as_deref().map(read_token).transpose()?;
    Ok(TcpOptions { address: endpoint.address, token })
}

fn read_token(path: &Path) -> Result<Token, CliError> {
    let shown = path.display();
    let make = || format!("umask 077; openssl rand -hex 32 > {}", quoted(path));
    let text = trust::open_secret(path).and_then(|file| std::io::read_to_string(file.take(TOKEN_FILE_BYTES_MAX)));
    let text = text.map_err(|error| {
        let hint = trust::Untrusted::of(&error).map_or_else(make, |untrusted| match untrusted.why {
            trust::Why::Owner(_) => format!("chown {} {}", rustix::process::geteuid().as_raw(), quoted(path)),
            trust::Why::Readable(_) | trust::Why::Writable(_) => format!("chmod 600 {}", quoted(path)),
            _ => make(),
        });
        CliError::config(anyhow::Error::new(error).context(format!("cannot use the token file {shown}"))).hint(hint)
    })?;
    Token::new(&text).ok_or_else(|| {
        let error = anyhow::anyhow!("the token file {shown} does not hold one word of 16 printable characters or more");
        CliError::config(error).hint(make())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn a_token_file_is_private_and_an_address_for_others_has_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let exit = |address: &str, token_file: Option<&PathBuf>| {
            let args = ListenArgs { listen: Endpoint::parse_address(address), token_file: token_file.cloned() };
            args.options().map(|options| options.is_some()).map_err(|error| error.exit)
        };
        let write = |text: &str, mode| {
            std::fs::write(&file, text).expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
        };
        assert_eq!(exit("7878", None), Ok(true));
        assert_eq!(exit("0.0.0.0:7878", None), Err(Exit::Usage));
        assert_eq!(exit("7878", Some(&file)), Err(Exit::Config));
        for (text, mode, expected) in [
            ("0123456789abcdef\n", 0o600, Ok(true)),
            ("0123456789abcdef\n", 0o640, Err(Exit::Config)),
            ("0123456789abcdef\n", 0o604, Err(Exit::Config)),
            ("short", 0o600, Err(Exit::Config)),
        ] {
            write(text, mode);
            assert_eq!(exit("0.0.0.0:7878", Some(&file)), expected, "{text} {mode:o}");
        }
        assert!(ListenArgs { listen: None, token_file: None }.options().expect("none").is_none());
    }
}
