//! Reading and writing small files that matter: secrets, and files that are replaced while the pool runs.
//!
//! Invariants: a secret file is readable by its owner only, from the moment it exists; no existing file is overwritten.
//! Bounds: files of at most [`FILE_LEN_MAX`] bytes.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The longest key or certificate file, in bytes.
pub const FILE_LEN_MAX: u64 = 4096;

/// Why a key or certificate file cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// The system refuses.
    Io {
        /// Which file.
        path: PathBuf,
        /// "read" or "written".
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of that name exists.
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// Others than the owner can read or change a secret.
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// It is longer than [`FILE_LEN_MAX`].
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// It does not hold what it should.
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, action, source } => write!(f, "{} cannot be {action}: {source}", path.display()),
            Self::Exists { path } => {
                write!(
                    f,
                    "{} exists already and is left as it is: a key that was lost cannot be made again. Give \
                     another name, or move the file away first",
                    path.display()
                )
            }
            Self::Exposed { path, mode } => {
                let path = path.display();
                write!(
                    f,
                    "{path} holds a secret, but others than its owner may use it (mode {mode:04o}): run \
                     `chmod 600 {path}`; if others could have read it, make a new key"
                )
            }
            Self::TooLong { path } => {
                write!(
                    f,
                    "{} has more than {FILE_LEN_MAX} bytes: it is no key and no certificate",
                    path.display()
                )
            }
            Self::Content { path, wrong } => write!(f, "{}: {wrong}", path.display()),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Text that is wiped when dropped.
pub type SecretText = Zeroizing<String>;

/// Reads a file that may hold a secret or not; says whether others than its owner may use it.
///
/// # Errors
/// [`FileError::Io`], [`FileError::TooLong`], [`FileError::Content`] for what is not UTF-8.
pub fn read(path: &Path) -> Result<(SecretText, Option<FileError>), FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), action: "read", source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let mode = metadata.mode() & 0o7777;
    let exposed = (mode & 0o077 != 0).then(|| FileError::Exposed { path: path.to_owned(), mode });
    // Room for everything from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX as usize + 1));
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| FileError::Content { path: path.to_owned(), wrong: "it is not text".to_owned() })?;
    Ok((Zeroizing::new(text.to_owned()), exposed))
}

/// Reads a file that holds a secret.
///
/// # Errors
/// As [`read`], and [`FileError::Exposed`].
pub fn read_secret(path: &Path) -> Result<SecretText, FileError> {
    match read(path)? {
        (text, None) => Ok(text),
        (_, Some(exposed)) => Err(exposed),
    }
}

/// Writes a new file that its owner alone may read.
///
/// # Errors
/// [`FileError::Exists`], [`FileError::Io`].
pub fn create_secret(path: &Path, text: &str) -> Result<(), FileError> {
    create(path, text, 0o600)
}

/// Writes a new file that everybody may read.
///
/// # Errors
/// [`FileError::Exists`], [`FileError::Io`].
pub fn create_public(path: &Path, text: &str) -> Result<(), FileError> {
    create(path, text, 0o644)
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => FileError::Exists { path: path.to_owned() },
        _ => FileError::Io { path: path.to_owned(), action: "written", source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_alone_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        create_secret(&path, "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create_secret(&path, "two"), Err(FileError::Exists { .. })));
        assert_eq!(read_secret(&path).unwrap().as_str(), "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_secret(&path).unwrap_err();
        assert!(
            error.to_string().contains("mode 0640") && error.to_string().contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(FileError::Io { .. })));
        assert!(matches!(read(&dir.path().join("missing")), Err(FileError::Io { .. })));
        let path = dir.path().join("k");
        fs::write(&path, vec![b'x'; FILE_LEN_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLong { .. })));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(read(&path), Err(FileError::Content { .. })));
    }
}
