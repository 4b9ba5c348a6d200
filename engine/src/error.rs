//! Why an engine does not start, and what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::transport::{RINGS_MAX, TABLE_LEN_MAX};

/// Why [`Engine::start`](crate::Engine::start) failed. Nothing is left running.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// No CPU, or more than a shard's number can name.
    Shards {
        /// How many were asked for.
        found: usize,
        /// How many there can be.
        max: usize,
    },
    /// The kernel is older than Linux 6.0.
    KernelTooOld {
        /// Its version.
        major: u32,
        /// Its version.
        minor: u32,
    },
    /// The kernel refuses io_uring.
    IoUringForbidden(io::Error),
    /// Ring memory does not fit under RLIMIT_MEMLOCK.
    MemlockTooSmall(io::Error),
    /// The limit on open files is too low for the connections asked for.
    OpenFilesTooFew {
        /// `connections_max`.
        connections_max: u32,
        /// The soft limit.
        open_files_max: u32,
    },
    /// File descriptors ran out while the rings were made.
    DescriptorsExhausted(io::Error),
    /// Limits with which the Template Distribution server cannot work.
    Distribution(adit_proto::distribution::server::ServerConfigError),
    /// The address cannot be listened on.
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A thread or an executor could not be made; the text is the cause's.
    Executor {
        /// Which shard.
        shard: usize,
        /// Why.
        cause: String,
    },
    /// Something else that the system refused.
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl StartError {
    /// Sorts what making a shard's rings can fail with.
    pub(crate) fn from_ring(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Self::IoUringForbidden(error),
            Some(libc::ENOMEM) => Self::MemlockTooSmall(error),
            Some(libc::EMFILE | libc::ENFILE) => Self::DescriptorsExhausted(error),
            _ => Self::System { what: "make an io_uring", error },
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shards { found: 0, .. } => f.write_str("no CPU was given: name at least one for a shard"),
            Self::Shards { found, max } => write!(f, "{found} CPUs were given: there can be {max} shards"),
            Self::KernelTooOld { major, minor } => {
                write!(
                    f,
                    "the kernel is Linux {major}.{minor}: 6.0 or newer is needed (multishot receives of io_uring)"
                )
            }
            Self::IoUringForbidden(error) => write!(
                f,
                "the kernel refuses io_uring ({error}): set `sysctl kernel.io_uring_disabled=0`; in a container, let its \
                 seccomp profile allow io_uring_setup, io_uring_enter and io_uring_register"
            ),
            Self::MemlockTooSmall(error) => write!(
                f,
                "the memory of io_uring does not fit under the limit on locked memory ({error}): raise it with \
                 `ulimit -l 65536` (root only, if `ulimit -Hl` is less; for other users by `memlock` in \
                 /etc/security/limits.conf and a new login) or, in a systemd unit, `LimitMEMLOCK=64M`"
            ),
            Self::OpenFilesTooFew { connections_max, open_files_max } => {
                // With room for those that are closing, rounded up to what looks like a choice.
                let needed = (connections_max / RINGS_MAX + 1).next_multiple_of(1024);
                if needed > TABLE_LEN_MAX {
                    let most = u64::from(TABLE_LEN_MAX) * u64::from(RINGS_MAX);
                    return write!(
                        f,
                        "{connections_max} connections are more than the rings of a shard can hold: lower connections_max \
                         below {most}"
                    );
                }
                write!(
                    f,
                    "{connections_max} connections need a limit on open files of {needed}, and it is {open_files_max}: \
                     lower connections_max, or raise the limit with `ulimit -n {needed}` (root only, if `ulimit -Hn` is \
                     less) or, in a systemd unit, `LimitNOFILE={needed}`"
                )
            }
            Self::DescriptorsExhausted(error) => write!(
                f,
                "the rings of the shards need more file descriptors ({error}): raise the limit with `ulimit -n 65536` (root \
                 only, if `ulimit -Hn` is less) or, in a systemd unit, `LimitNOFILE=65536`"
            ),
            Self::Distribution(error) => write!(f, "template distribution: {error}"),
            Self::Listen { address, error } => {
                write!(f, "cannot listen on {address} ({error})")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        write!(
                            f,
                            ": another program has the port; see `ss -ltnp 'sport = :{}'`",
                            address.port()
                        )
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str(": no interface of this machine has the address")
                    }
                    io::ErrorKind::PermissionDenied => {
                        f.write_str(": ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one")
                    }
                    _ => Ok(()),
                }
            }
            Self::Executor { shard, cause } => write!(f, "shard {shard} does not start: {cause}"),
            Self::System { what, error } => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::IoUringForbidden(error)
            | Self::MemlockTooSmall(error)
            | Self::DescriptorsExhausted(error)
            | Self::Listen { error, .. }
            | Self::System { error, .. } => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let forbidden = StartError::from_ring(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(forbidden.contains("kernel.io_uring_disabled=0") && forbidden.contains("seccomp"));
        let missing = StartError::from_ring(io::Error::from_raw_os_error(libc::ENOSYS)).to_string();
        assert!(missing.contains("kernel.io_uring_disabled=0"));
        let memlock = StartError::from_ring(io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(memlock.contains("ulimit -l") && memlock.contains("limits.conf"));
        let too_few = |connections_max| {
            StartError::OpenFilesTooFew { connections_max, open_files_max: 1024 }.to_string()
        };
        assert!(too_few(100_000).contains("`ulimit -n 2048`"), "{}", too_few(100_000));
        assert!(too_few(5_000_000).contains("LimitNOFILE=78848"), "{}", too_few(5_000_000));
        assert!(
            too_few(10_000_000).contains("lower connections_max below 8388608"),
            "{}",
            too_few(10_000_000)
        );
        for code in [libc::EMFILE, libc::ENFILE] {
            let descriptors = StartError::from_ring(io::Error::from_raw_os_error(code)).to_string();
            assert!(descriptors.contains("ulimit -n"), "{descriptors}");
        }
    }
}
