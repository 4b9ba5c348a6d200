//! Keys and certificates as files.
//!
//! Three kinds, all TOML, so that a person can see what a file is and a line can be pasted elsewhere:
//! - the **authority key**: `authority_public_key` and `authority_secret_key`, in the encodings of the reference
//!   implementation. Miners know the public half. A file with nothing but the secret's text is understood as well.
//! - the pool's **static key**: `static_public_key` and `static_secret_key`, 32 bytes each as hex. Handshakes use it.
//! - the **certificate** (specification 4.5.3): by it the authority vouches for a static key for a time. Not secret.
//!
//! Invariants: secrets are wiped from memory when dropped, never shown, and read only from files that nobody else can
//! read. What a file says of itself is compared with what its secret or signature says.

pub mod files;

use std::path::Path;

use adit_codec::keys::{
    AuthorityPublicKey, AuthoritySecretKey, CERTIFICATE_VERSION, Certificate, KeyError, StaticKeyPair,
    StaticPublicKey,
};
use bitcoin::hex::{DisplayHex, FromHex};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::utc::Utc;
use files::FileError;

/// Bytes from the system's generator.
///
/// # Panics
/// If the system has no randomness, without which nothing here may go on.
pub fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut bytes[..]).expect("Linux gives randomness to every process");
    bytes
}

/// A new authority key.
pub fn generate_authority() -> AuthoritySecretKey {
    loop {
        // One in 2^128 is out of range.
        if let Ok(key) = AuthoritySecretKey::from_bytes(&random()) {
            return key;
        }
    }
}

/// The secret of a pool's static key.
#[derive(Clone)]
pub struct StaticSecret(Zeroizing<[u8; 32]>);

impl StaticSecret {
    /// A new one.
    pub fn generate() -> Self {
        loop {
            let secret = Self(random());
            // One in 2^128 is out of range.
            if secret.key_pair().is_ok() {
                return secret;
            }
        }
    }

    /// The key that handshakes use; its encoding is chosen anew with each call.
    ///
    /// # Errors
    /// [`KeyError::SecretOutOfRange`].
    pub fn key_pair(&self) -> Result<StaticKeyPair, KeyError> {
        let mut seed = Zeroizing::new([0; 64]);
        seed[..32].copy_from_slice(&self.0[..]);
        seed[32..].copy_from_slice(&random::<32>()[..]);
        StaticKeyPair::new(&seed)
    }
}

/// A certificate with the keys that it ties together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFile {
    /// Who signed.
    pub authority: AuthorityPublicKey,
    /// What was signed.
    pub static_key: StaticPublicKey,
    /// The signature and its time.
    pub certificate: Certificate,
}

impl CertificateFile {
    /// Reads and verifies the text of a file. Its time is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table = Entries::parse(text)?;
        let file = Self {
            authority: table.public_key("authority_public_key")?,
            static_key: parse_static_public_key(table.text("static_public_key")?)?,
            certificate: Certificate {
                version: CERTIFICATE_VERSION,
                valid_from: table.seconds("valid_from")?,
                not_valid_after: table.seconds("not_valid_after")?,
                signature: from_hex("signature", table.text("signature")?)?,
            },
        };
        let Certificate { valid_from, not_valid_after, .. } = file.certificate;
        if valid_from > not_valid_after {
            return Err("valid_from lies after not_valid_after".to_owned());
        }
        file.certificate
            .verify(&file.static_key, &file.authority, valid_from, 0)
            .map_err(|error| format!("{error}; the file was changed or damaged"))?;
        Ok(file)
    }

    /// The text of a file.
    pub fn to_text(&self) -> String {
        let Certificate { valid_from, not_valid_after, signature, .. } = self.certificate;
        format!(
            "# Certificate of a Stratum V2 pool's static key. Not secret.\n\
             # Valid from {} to {}.\n\
             authority_public_key = \"{}\"\n\
             static_public_key = \"{}\"\n\
             valid_from = {valid_from}\n\
             not_valid_after = {not_valid_after}\n\
             signature = \"{}\"\n",
            Utc(valid_from.into()),
            Utc(not_valid_after.into()),
            self.authority,
            static_public_text(&self.static_key),
            signature.as_hex(),
        )
    }
}

/// The text of an authority key's file.
pub fn authority_text(key: &AuthoritySecretKey) -> Zeroizing<String> {
    let secret = Zeroizing::new(key.to_secret_string());
    Zeroizing::new(format!(
        "# Authority key of a Stratum V2 pool. Miners know the public key.\n\
         # Whoever has the secret can pose as the pool: keep it off line if you can, and keep a copy.\n\
         authority_public_key = \"{}\"\n\
         authority_secret_key = \"{}\"\n",
        key.public_key(),
        secret.as_str(),
    ))
}

/// The text of a static key's file.
///
/// # Errors
/// [`KeyError::SecretOutOfRange`].
pub fn static_text(secret: &StaticSecret) -> Result<Zeroizing<String>, KeyError> {
    let public = *secret.key_pair()?.public_key();
    let hex = Zeroizing::new(format!("{}", secret.0.as_hex()));
    Ok(Zeroizing::new(format!(
        "# Static key of a Stratum V2 pool. The authority signs the public key; the secret stays on this machine.\n\
         static_public_key = \"{}\"\n\
         static_secret_key = \"{}\"\n",
        static_public_text(&public),
        hex.as_str(),
    )))
}

/// A static public key as hex.
pub fn static_public_text(key: &StaticPublicKey) -> String {
    key.to_bytes().to_lower_hex_string()
}

/// A static public key from hex.
///
/// # Errors
/// Why the text is none.
pub fn parse_static_public_key(text: &str) -> Result<StaticPublicKey, String> {
    if text.parse::<AuthorityPublicKey>().is_ok() {
        return Err(
            "an authority's public key, but a pool's static public key is meant: 64 hex digits".to_owned()
        );
    }
    let bytes = from_hex("static_public_key", text)?;
    StaticPublicKey::from_bytes(bytes).map_err(|error| format!("static_public_key: {error}"))
}

/// What a key file holds.
pub enum KeyFile {
    /// An authority's secret key.
    Authority(AuthoritySecretKey),
    /// A pool's static key.
    Static(StaticSecret),
    /// A certificate.
    Certificate(Box<CertificateFile>),
}

impl KeyFile {
    /// Reads a file of any kind. A secret that others can read is refused.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let (text, exposed) = files::read(path)?;
        let file = Self::parse(&text).map_err(|wrong| FileError::Content { path: path.to_owned(), wrong })?;
        match (file, exposed) {
            (file @ Self::Certificate(_), _) | (file, None) => Ok(file),
            (_, Some(exposed)) => Err(exposed),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let only = text.trim();
        if !only.contains(char::is_whitespace) && !only.contains('=') {
            return only.parse().map(Self::Authority).map_err(|error: KeyError| error.to_string());
        }
        let table = Entries::parse(text)?;
        if table.has("signature") {
            CertificateFile::parse(text).map(|file| Self::Certificate(Box::new(file)))
        } else if table.has("authority_secret_key") {
            parse_authority(&table).map(Self::Authority)
        } else if table.has("static_secret_key") {
            parse_static(&table).map(Self::Static)
        } else {
            Err("neither an authority key, nor a static key, nor a certificate".to_owned())
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Authority(_) => "an authority's secret key",
            Self::Static(_) => "a pool's static key",
            Self::Certificate(_) => "a certificate",
        }
    }
}

fn wrong_kind(path: &Path, found: &KeyFile, expected: &str) -> FileError {
    FileError::Content {
        path: path.to_owned(),
        wrong: format!("this is {}, expected {expected}", found.name()),
    }
}

/// Reads an authority's secret key.
///
/// # Errors
/// Why the file cannot be used.
pub fn read_authority(path: &Path) -> Result<AuthoritySecretKey, FileError> {
    match KeyFile::read(path)? {
        KeyFile::Authority(key) => Ok(key),
        other => Err(wrong_kind(path, &other, "an authority's secret key, made by `adit key generate`")),
    }
}

/// Reads a pool's static key.
///
/// # Errors
/// Why the file cannot be used.
pub fn read_static(path: &Path) -> Result<StaticSecret, FileError> {
    match KeyFile::read(path)? {
        KeyFile::Static(secret) => Ok(secret),
        other => Err(wrong_kind(path, &other, "a pool's static key, made by `adit key generate --static`")),
    }
}

/// Reads a certificate.
///
/// # Errors
/// Why the file cannot be used.
pub fn read_certificate(path: &Path) -> Result<CertificateFile, FileError> {
    match KeyFile::read(path)? {
        KeyFile::Certificate(file) => Ok(*file),
        other => Err(wrong_kind(path, &other, "a certificate, made by `adit key certify`")),
    }
}

fn parse_authority(table: &Entries<'_>) -> Result<AuthoritySecretKey, String> {
    let secret: AuthoritySecretKey = table
        .text("authority_secret_key")?
        .parse()
        .map_err(|error| format!("authority_secret_key: {error}"))?;
    if table.has("authority_public_key") && table.public_key("authority_public_key")? != secret.public_key() {
        return Err("authority_public_key does not belong to authority_secret_key".to_owned());
    }
    Ok(secret)
}

fn parse_static(table: &Entries<'_>) -> Result<StaticSecret, String> {
    let secret =
        StaticSecret(Zeroizing::new(from_hex("static_secret_key", table.text("static_secret_key")?)?));
    let pair = secret.key_pair().map_err(|error| format!("static_secret_key: {error}"))?;
    if table.has("static_public_key")
        && parse_static_public_key(table.text("static_public_key")?)? != *pair.public_key()
    {
        return Err("static_public_key does not belong to static_secret_key".to_owned());
    }
    Ok(secret)
}

/// The `name = value` lines of a key file: the part of TOML that is written above, read without copies that would have
/// to be wiped.
struct Entries<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Entries<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut entries: Vec<(&str, &str)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .ok_or_else(|| format!("line {} is not of the form name = \"value\"", index + 1))?;
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(format!("line {} repeats {name}", index + 1));
            }
            entries.push((name, value));
        }
        Ok(Self(entries))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == name)
    }

    fn raw(&self, name: &str) -> Result<&'a str, String> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("{name} is missing"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.raw(name)?
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .ok_or_else(|| format!("{name} is not a text in quotes"))
    }

    fn seconds(&self, name: &str) -> Result<u32, String> {
        self.raw(name)?.parse().map_err(|_| format!("{name} is no unix time"))
    }

    fn public_key(&self, name: &str) -> Result<AuthorityPublicKey, String> {
        self.text(name)?.parse().map_err(|error| format!("{name}: {error}"))
    }
}

fn from_hex<const N: usize>(name: &str, text: &str) -> Result<[u8; N], String> {
    <[u8; N]>::from_hex(text).map_err(|_| format!("{name} has not {} hex digits", 2 * N))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
    const SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

    #[test]
    fn the_reference_implementations_pair_round_trips() {
        let key: AuthoritySecretKey = SECRET.parse().unwrap();
        let text = authority_text(&key);
        assert!(text.contains(PUBLIC) && text.contains(SECRET));
        for text in [text.as_str(), SECRET, &format!("{SECRET}\n")] {
            let KeyFile::Authority(again) = KeyFile::parse(text).unwrap() else { panic!("another kind") };
            assert_eq!(again.public_key().to_string(), PUBLIC);
        }
        let foreign = text.replace(PUBLIC, &generate_authority().public_key().to_string());
        assert!(KeyFile::parse(&foreign).is_err());
    }

    #[test]
    fn static_keys_round_trip() {
        let secret = StaticSecret::generate();
        let KeyFile::Static(again) = KeyFile::parse(&static_text(&secret).unwrap()).unwrap() else {
            panic!("another kind")
        };
        assert_eq!(secret.0, again.0);
        let public = *secret.key_pair().unwrap().public_key();
        assert_eq!(parse_static_public_key(&static_public_text(&public)), Ok(public));
        assert!(parse_static_public_key(PUBLIC).unwrap_err().contains("authority's"));
    }

    #[test]
    fn certificates_round_trip_and_notice_every_change() {
        let authority: AuthoritySecretKey = SECRET.parse().unwrap();
        let static_key = *StaticSecret::generate().key_pair().unwrap().public_key();
        let certificate = authority.certify(&static_key, 1_000, 2_000, &random());
        let file = CertificateFile { authority: authority.public_key(), static_key, certificate };
        let text = file.to_text();
        assert_eq!(CertificateFile::parse(&text), Ok(file));
        for (from, to) in [
            ("= 1000", "= 999"),
            ("= 2000", "= 2001"),
            ("= 2000", "= 1"),
            (PUBLIC, SECRET),
            ("valid_from", "x"),
        ] {
            assert!(text.contains(from));
            assert!(CertificateFile::parse(&text.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            "",
            "x",
            "= =",
            "a = \"b\"",
            "signature = 1",
            "static_secret_key = \"00\"",
            PUBLIC,
            "authority_secret_key = x",
        ] {
            assert!(KeyFile::parse(text).is_err(), "{text:?}");
        }
        assert!(
            KeyFile::parse("static_secret_key = \"\"\nstatic_secret_key = \"\"")
                .is_err_and(|e| e.contains("repeats"))
        );
    }
}
