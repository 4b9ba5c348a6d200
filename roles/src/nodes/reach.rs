//! Whether a template source's node answers, found out without asking it for anything.
//!
//! Bounds: [`ADDRESSES_MAX`] addresses of a name are tried, each for [`CONNECT_PATIENCE`].

use std::fs::File;
use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::config::{Chain, SourceKind, TemplateSourceSettings};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// How long each may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Tries whether the source's node can be reached: connects, and closes again. Says what was found.
///
/// # Errors
/// What stands in the way, and what to do.
pub fn reach(source: &TemplateSourceSettings) -> Result<String, String> {
    match source.kind {
        SourceKind::Embedded => {
            Ok(format!("a node in this process keeps its chain in {}", source.embedded_dir().display()))
        }
        SourceKind::CoreIpc => {
            let socket = source.socket_path().ok_or("no socket is named")?;
            connect_socket(&socket, source.chain)?;
            Ok(format!("a node listens on {}", socket.display()))
        }
        SourceKind::CoreRpc => {
            let address = source.rpc_address();
            connect(&address).map_err(|wrong| {
                format!("{wrong}; is the node running, with server=1 and on {}?", source.chain)
            })?;
            if source.rpc_user.is_none() {
                read_cookie(&source.cookie_path().ok_or("no cookie is named")?)?;
            }
            Ok(format!("a node listens on {address}"))
        }
        SourceKind::Sv2 => {
            let provider = source.provider().map_err(|error| error.to_string())?;
            let host = match provider.host.contains(':') {
                true => format!("[{}]", provider.host),
                false => provider.host,
            };
            let address = format!("{host}:{}", provider.port);
            connect(&address).map_err(|wrong| format!("{wrong}; is the template provider running?"))?;
            Ok(format!("a template provider listens on {address}"))
        }
        SourceKind::Synthetic => Ok("work without a node, for measurements".to_owned()),
    }
}

fn connect_socket(socket: &Path, chain: Chain) -> Result<(), String> {
    let Err(error) = UnixStream::connect(socket) else { return Ok(()) };
    let path = socket.display();
    Err(match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no socket {path}: start Bitcoin Core as `bitcoin-node -ipcbind=unix` on {chain} (bitcoind has no \
             such interface), or set socket or data_dir to where it is"
        ),
        ErrorKind::ConnectionRefused => {
            format!("nobody listens on {path}: the node that made the socket has ended; start it again")
        }
        ErrorKind::PermissionDenied => {
            format!(
                "{path} may not be used by this user: run the pool as the node's user, or give it the right"
            )
        }
        _ => format!("{path}: {error}"),
    })
}

fn connect(address: &str) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| format!("{address} is not found: {error}"))?;
    let mut failed = format!("{address} has no address");
    for candidate in resolved.take(ADDRESSES_MAX) {
        match TcpStream::connect_timeout(&candidate, CONNECT_PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => failed = format!("{candidate} does not answer: {error}"),
        }
    }
    Err(failed)
}

fn read_cookie(path: &Path) -> Result<(), String> {
    match File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "the cookie {} cannot be read: {error}; set cookie_file or data_dir to where the node keeps it and run the pool \
             as a user who may read it, or set rpc_user and rpc_password",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn source(kind: SourceKind) -> TemplateSourceSettings {
        TemplateSourceSettings { kind, ..TemplateSourceSettings::default() }
    }

    #[test]
    fn a_socket_is_missing_or_deserted_or_served() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            TemplateSourceSettings { data_dir: Some(dir.path().to_owned()), ..source(SourceKind::CoreIpc) };
        let missing = reach(&settings).unwrap_err();
        assert!(missing.contains("there is no socket") && missing.contains("regtest/node.sock"), "{missing}");
        std::fs::create_dir(dir.path().join("regtest")).unwrap();
        let listener = UnixListener::bind(dir.path().join("regtest/node.sock")).unwrap();
        assert!(reach(&settings).unwrap().contains("a node listens on"));
        drop(listener);
        let deserted = reach(&settings).unwrap_err();
        assert!(deserted.contains("start it again"), "{deserted}");
    }

    #[test]
    fn an_address_answers_and_a_cookie_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = TemplateSourceSettings {
            address: Some(listener.local_addr().unwrap().to_string()),
            cookie_file: Some(dir.path().join("cookie")),
            ..source(SourceKind::CoreRpc)
        };
        let missing = reach(&settings).unwrap_err();
        assert!(missing.contains("/cookie cannot be read"), "{missing}");
        std::fs::write(dir.path().join("cookie"), "__cookie__:1").unwrap();
        assert!(reach(&settings).is_ok());
        drop(listener);
        let away = reach(&settings).unwrap_err();
        assert!(away.contains("does not answer") && away.contains("server=1"), "{away}");
    }
}
