//! What a configuration wants of this machine, tried without leaving anything behind.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Says whether an address can be listened on, and what to do where it cannot.
pub(super) fn listens(address: SocketAddr) -> Result<(), String> {
    let Err(error) = TcpListener::bind(address) else { return Ok(()) };
    Err(match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "{address} is in use: by this very pool if it runs already; else end the other program, or take another port"
            )
        }
        ErrorKind::AddrNotAvailable => {
            format!("{address} is no address of this machine: take one that it has, or 0.0.0.0 for all")
        }
        ErrorKind::PermissionDenied => {
            format!(
                "{address} may not be listened on by this user: ports below 1024 need CAP_NET_BIND_SERVICE; take a higher one"
            )
        }
        _ => format!("{address} cannot be listened on: {error}"),
    })
}

/// Says whether files can be made in a directory, which may be yet to be made itself.
pub(super) fn takes_files(directory: &Path) -> Result<(), String> {
    let path = directory.display();
    // An empty path is the working directory.
    let parents = directory.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let mut found = parents.filter(|it| it.symlink_metadata().is_ok());
    let Some(existing) = found.next() else { return Err(format!("{path}: no part of this path exists")) };
    if !existing.is_dir() {
        return Err(format!("{path}: {} is a file; name a directory", existing.display()));
    }
    match tempfile::tempfile_in(existing) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "{path}: no file can be made in {}: {error}; give this user the right, or name another directory",
            existing.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_free_or_not() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = taken.local_addr().expect("it is bound");
        assert!(listens(address).is_err_and(|wrong| wrong.contains("in use")));
        drop(taken);
        assert_eq!(listens(address), Ok(()));
        let elsewhere = "192.0.2.1:3333".parse().expect("an address");
        assert!(listens(elsewhere).is_err_and(|wrong| wrong.contains("no address of this machine")));
    }

    #[test]
    fn a_directory_takes_files_or_not() {
        let here = tempfile::tempdir().expect("a directory");
        assert_eq!(takes_files(here.path()), Ok(()));
        assert_eq!(takes_files(&here.path().join("yet/to/come")), Ok(()));
        assert_eq!(std::fs::read_dir(here.path()).expect("it is there").count(), 0, "nothing is left behind");
        let file = here.path().join("file");
        std::fs::write(&file, b"").expect("it can be written");
        assert!(takes_files(&file.join("below")).is_err_and(|wrong| wrong.contains("is a file")));
        assert!(takes_files(Path::new("/proc/1/journal")).is_err());
    }
}
