//! A pool's address with its authority key (spec 4.7): `stratum2+tcp://host:port/KEY`.
//!
//! Bounds: a URL longer than [`URL_LEN_MAX`] is refused unread.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};
use core::{fmt, net::Ipv6Addr, str::FromStr};

use crate::keys::{AuthorityPublicKey, KeyError};

/// The longest URL that is read, in bytes. A DNS name has at most 253.
pub const URL_LEN_MAX: usize = 512;

const SCHEME: &str = "stratum2+tcp";
const HOST_LEN_MAX: usize = 253;

/// Where a pool listens, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUrl {
    /// A DNS name or an IP address; IPv6 without its brackets.
    pub host: String,
    /// TCP port; never 0.
    pub port: u16,
    /// The key that signs the server's certificate.
    pub authority: AuthorityPublicKey,
}

/// Why a text is no pool URL.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Longer than [`URL_LEN_MAX`].
    TooLong {
        /// Bytes of the text.
        len: usize,
    },
    /// It does not begin with `stratum2+tcp://`.
    Scheme,
    /// The host is empty or holds what no host has.
    Host {
        /// What stands where the host should.
        found: String,
    },
    /// An IPv6 address without brackets, or brackets around something else.
    Ipv6 {
        /// What stands where the address should.
        found: String,
    },
    /// There is no port.
    PortMissing,
    /// The port is no number from 1 to 65535.
    Port {
        /// What stands where the port should.
        found: String,
    },
    /// There is no authority key after the port.
    KeyMissing,
    /// What follows the port is no authority key.
    Key(KeyError),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => write!(f, "the URL has {len} bytes, at most {URL_LEN_MAX}"),
            Self::Scheme => write!(f, "the URL does not begin with {SCHEME}://"),
            Self::Host { found } => write!(f, "`{found}` is no host name or IP address"),
            Self::Ipv6 { found } => {
                write!(f, "`{found}` is no IPv6 address in brackets, like [2001:db8::1]:34254")
            }
            Self::PortMissing => f.write_str("the URL has no port: write host:port, for example :34254"),
            Self::Port { found } => write!(f, "`{found}` is no port from 1 to 65535"),
            Self::KeyMissing => f.write_str("the URL has no authority key: write it after the port, as /KEY"),
            Self::Key(error) => write!(f, "the URL's authority key is wrong: {error}"),
        }
    }
}

impl core::error::Error for UrlError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Key(error) => Some(error),
            _ => None,
        }
    }
}

impl FromStr for PoolUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let ServerUrl { host, port, authority } = text.parse()?;
        Ok(Self { host, port, authority: authority.ok_or(UrlError::KeyMissing)? })
    }
}

/// Where a server listens, and who vouches for it, where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// As [`PoolUrl::host`].
    pub host: String,
    /// TCP port; never 0.
    pub port: u16,
    /// The key that signs the server's certificate; without it nobody can tell who answers.
    pub authority: Option<AuthorityPublicKey>,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_LEN_MAX {
            return Err(UrlError::TooLong { len: text.len() });
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(UrlError::Scheme);
        }
        let (address, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = parse_address(address)?;
        let authority = if key.is_empty() { None } else { Some(key.parse().map_err(UrlError::Key)?) };
        Ok(Self { host, port, authority })
    }
}

impl fmt::Display for PoolUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, authority } = self;
        if host.contains(':') {
            write!(f, "{SCHEME}://[{host}]:{port}/{authority}")
        } else {
            write!(f, "{SCHEME}://{host}:{port}/{authority}")
        }
    }
}

fn parse_address(address: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
        let wrong = || UrlError::Ipv6 { found: address.to_owned() };
        let (inside, after) = bracketed.split_once(']').ok_or_else(wrong)?;
        let ip: Ipv6Addr = inside.parse().map_err(|_| wrong())?;
        let port = match after.strip_prefix(':') {
            Some(port) => port,
            None if after.is_empty() => return Err(UrlError::PortMissing),
            None => return Err(wrong()),
        };
        (ip.to_string(), port)
    } else {
        let (host, port) = match address.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err(UrlError::Ipv6 { found: address.to_owned() });
            }
            Some(parts) => parts,
            None if is_host(address) => return Err(UrlError::PortMissing),
            None => (address, ""),
        };
        if !is_host(host) {
            return Err(UrlError::Host { found: host.to_owned() });
        }
        (host.to_owned(), port)
    };
    if port.is_empty() {
        return Err(UrlError::PortMissing);
    }
    // `u16::from_str` would take a plus sign.
    let digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits_only && number != 0 => Ok((host, number)),
        _ => Err(UrlError::Port { found: port.to_owned() }),
    }
}

/// Letters, digits, `-`, `_` and dots between non-empty labels: names, and IPv4 addresses.
fn is_host(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= HOST_LEN_MAX
        && labels.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}
