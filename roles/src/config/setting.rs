//! The types a setting can have, and how each is read from and written as TOML.
//!
//! Bounds: every number has a range and every text and list a longest length, in its [`Kind`].

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// What a key accepts; shown in messages and in the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number from `min` to `max`.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A number, whole or not, from `min` to `max`.
    Number {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// A string of at most `len_max` bytes.
    Text {
        /// Longest, in bytes.
        len_max: usize,
    },
    /// A string that is never shown again.
    Secret {
        /// Longest, in bytes.
        len_max: usize,
    },
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// `"IP:port"`.
    Address,
    /// `"host:port"`, the host a name or an IP address.
    HostPort,
    /// A path; relative ones start at the configuration file's directory.
    Path,
    /// `"auto"`, or a list of CPU numbers.
    Cpus,
    /// A list of at most `len_max` whole numbers from 0 to `max`.
    Integers {
        /// Largest.
        max: i64,
        /// Longest list.
        len_max: usize,
    },
}

/// Longest path that a key takes, in bytes (PATH_MAX).
const PATH_LEN_MAX: usize = 4096;
/// Most CPUs in a list: shards are numbered with one byte.
pub const CPUS_LEN_MAX: usize = 256;
/// Highest CPU number: Linux's CPU sets hold 1,024.
const CPU_MAX: i64 = 1023;

impl Kind {
    /// Checks type and range.
    ///
    /// # Errors
    /// What was found and what is allowed, as words that follow `key = value`.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let fits = match (self, value) {
            (Self::Integer { min, max }, Value::Integer(found)) => (min..=max).contains(found),
            (Self::Number { min, max }, Value::Number(found)) => (min..=max).contains(found),
            (Self::Number { min, max }, Value::Integer(found)) => (min..=max).contains(&(*found as f64)),
            (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Text { len_max } | Self::Secret { len_max }, Value::Text(text)) => text.len() <= len_max,
            (Self::Choice(choices), Value::Text(text)) => choices.contains(&text.as_str()),
            (Self::Address, Value::Text(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::HostPort, Value::Text(text)) => is_host_port(text),
            (Self::Path, Value::Text(text)) => !text.is_empty() && text.len() <= PATH_LEN_MAX,
            (Self::Cpus, Value::Text(text)) => text == "auto",
            (Self::Cpus, Value::Integers(list)) => {
                let mut sorted = list.clone();
                sorted.sort_unstable();
                sorted.dedup();
                !list.is_empty()
                    && list.len() <= CPUS_LEN_MAX
                    && sorted.len() == list.len()
                    && list.iter().all(|cpu| (0..=CPU_MAX).contains(cpu))
            }
            (Self::Integers { max, len_max }, Value::Integers(list)) => {
                list.len() <= len_max && list.iter().all(|item| (0..=max).contains(item))
            }
            (_, found) => return Err(format!("{}, expected {self}", found.type_name())),
        };
        let wrong = match value {
            Value::Integer(_) | Value::Number(_) => "out of range",
            _ => "not accepted",
        };
        if fits { Ok(()) } else { Err(format!("{wrong}, expected {self}")) }
    }
}

/// Whether a text is a host name or an IP address, IPv6 in brackets, and a port other than 0.
fn is_host_port(text: &str) -> bool {
    const HOST_LEN_MAX: usize = 253;
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=HOST_LEN_MAX).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        }
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Number { min, max } => write!(f, "a number from {} to {}", number(min), number(max)),
            Self::Boolean => f.write_str("true or false"),
            Self::Text { len_max } => write!(f, "a string of at most {len_max} bytes"),
            Self::Secret { len_max } => write!(f, "a secret string of at most {len_max} bytes"),
            Self::Choice([one]) => write!(f, "\"{one}\""),
            Self::Choice(choices) => {
                let quoted: Vec<_> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
                write!(f, "one of {}", quoted.join(", "))
            }
            Self::Address => f.write_str("a string \"IP:port\", such as \"0.0.0.0:34254\" or \"[::]:34254\""),
            Self::HostPort => {
                f.write_str("a string \"host:port\", such as \"node.example.org:8332\" or \"[::1]:8332\"")
            }
            Self::Path => f.write_str("a path as a string"),
            Self::Cpus => {
                write!(
                    f,
                    "\"auto\", or 1 to {CPUS_LEN_MAX} different CPU numbers from 0 to {CPU_MAX} such as [2, 3]"
                )
            }
            Self::Integers { max, len_max } => {
                write!(f, "a list of at most {len_max} whole numbers from 0 to {max}")
            }
        }
    }
}

/// A value as TOML holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number with a point or an exponent.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// A string.
    Text(String),
    /// A list of whole numbers.
    Integers(Vec<i64>),
    /// What no key takes; its TOML type.
    Other(&'static str),
}

impl Value {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Text(_) => "a string",
            Self::Integers(_) => "a list of whole numbers",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Value {
    /// As TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{}", toml::Value::String(text.clone())),
            Self::Integers(list) => {
                let items: Vec<_> = list.iter().map(i64::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A number as a person writes it: `6.0`, `0.01`, `1e12`.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e6).contains(&value.abs()) {
        format!("{value:e}")
    } else {
        format!("{value:?}")
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    /// Takes a value that its [`Kind`] has checked.
    ///
    /// # Errors
    /// Why the value is none of this type, for a kind that is wider than the type.
    fn from_value(value: Value) -> Result<Self, String>;
    /// The value as TOML holds it; none if unset.
    fn to_value(&self) -> Option<Value>;
}

macro_rules! integer_setting {
    ($($ty:ty),+) => { $(
        impl Setting for $ty {
            fn from_value(value: Value) -> Result<Self, String> {
                match value {
                    Value::Integer(found) => found.try_into().map_err(|_| format!("at most {}", <$ty>::MAX)),
                    found => Err(found.type_name().to_owned()),
                }
            }

            fn to_value(&self) -> Option<Value> {
                Some(Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )+ };
}
integer_setting!(u16, u32, u64, usize);

impl Setting for f64 {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Number(found) => Ok(found),
            Value::Integer(found) => Ok(found as Self),
            found => Err(found.type_name().to_owned()),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }
}

impl Setting for bool {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Boolean(found) => Ok(found),
            found => Err(found.type_name().to_owned()),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Setting for String {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(found) => Ok(found),
            found => Err(found.type_name().to_owned()),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Text(self.clone()))
    }
}

impl Setting for PathBuf {
    fn from_value(value: Value) -> Result<Self, String> {
        String::from_value(value).map(Self::from)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Text(self.display().to_string()))
    }
}

impl Setting for SocketAddr {
    fn from_value(value: Value) -> Result<Self, String> {
        String::from_value(value)?.parse().map_err(|_| "no address".to_owned())
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Text(self.to_string()))
    }
}

impl Setting for Vec<u16> {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Integers(list) => {
                list.into_iter().map(|item| u16::from_value(Value::Integer(item))).collect()
            }
            found => Err(found.type_name().to_owned()),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Integers(self.iter().map(|item| i64::from(*item)).collect()))
    }
}

impl<T: Setting> Setting for Option<T> {
    fn from_value(value: Value) -> Result<Self, String> {
        T::from_value(value).map(Some)
    }

    fn to_value(&self) -> Option<Value> {
        self.as_ref().and_then(T::to_value)
    }
}

/// A string that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Setting for Secret {
    fn from_value(value: Value) -> Result<Self, String> {
        String::from_value(value).map(Self)
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Text("(set, not shown)".to_owned()))
    }
}

/// Which CPUs shards run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// All that the process may use, but one for everything else if there are more than two.
    Auto,
    /// These, one shard each.
    List(Vec<usize>),
}

impl Setting for Cpus {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(_) => Ok(Self::Auto),
            Value::Integers(list) => list
                .into_iter()
                .map(|cpu| usize::from_value(Value::Integer(cpu)))
                .collect::<Result<_, _>>()
                .map(Self::List),
            found => Err(found.type_name().to_owned()),
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(match self {
            Self::Auto => Value::Text("auto".to_owned()),
            Self::List(list) => {
                Value::Integers(list.iter().map(|cpu| i64::try_from(*cpu).unwrap_or(i64::MAX)).collect())
            }
        })
    }
}

/// An enum whose variants are the strings of a [`Kind::Choice`].
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident: $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            /// Every choice as it is written.
            pub const CHOICES: &'static [&'static str] = &[$($text),+];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl Setting for $name {
            fn from_value(value: Value) -> Result<Self, String> {
                match String::from_value(value)?.as_str() {
                    $($text => Ok(Self::$variant),)+
                    other => Err(format!("\"{other}\" is none of {}", Self::CHOICES.join(", "))),
                }
            }

            fn to_value(&self) -> Option<Value> {
                Some(Value::Text(self.as_str().to_owned()))
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::from_value(Value::Text(text.to_owned()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use choice;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_name_what_was_found_and_what_is_allowed() {
        let kind = Kind::Integer { min: 1, max: 9 };
        assert_eq!(kind.check(&Value::Integer(9)), Ok(()));
        assert_eq!(
            kind.check(&Value::Integer(10)).unwrap_err(),
            "out of range, expected a whole number from 1 to 9"
        );
        assert_eq!(
            kind.check(&Value::Text("x".into())).unwrap_err(),
            "a string, expected a whole number from 1 to 9"
        );
        assert!(Kind::Number { min: 0.0, max: 1.0 }.check(&Value::Number(f64::NAN)).is_err());
    }

    #[test]
    fn a_cpu_stands_once_in_the_list() {
        assert!(Kind::Cpus.check(&Value::Integers(vec![0, 1])).is_ok());
        assert!(Kind::Cpus.check(&Value::Integers(vec![1, 1])).is_err());
        assert!(Kind::Cpus.check(&Value::Integers(vec![])).is_err());
        assert!(Kind::Cpus.check(&Value::Text("all".into())).is_err());
    }

    #[test]
    fn a_host_has_a_port() {
        for good in ["localhost:8332", "127.0.0.1:1", "[::1]:65535", "node-1.example.org:8332"] {
            assert!(Kind::HostPort.check(&Value::Text(good.into())).is_ok(), "{good}");
        }
        for bad in
            ["localhost", ":8332", "::1:8332", "[x]:1", "a b:1", "a:0", "a:65536", "http://a:1", "a:1/"]
        {
            assert!(Kind::HostPort.check(&Value::Text(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_written_as_toml_reads_them() {
        for value in [6.0, 0.01, 1e12, 2.5e-7, 0.0, 30.0] {
            let text = Value::Number(value).to_string();
            let table: toml::Table = format!("x = {text}").parse().unwrap();
            assert_eq!(table["x"].as_float(), Some(value), "{text}");
        }
    }
}
