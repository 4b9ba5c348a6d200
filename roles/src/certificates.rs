//! Certificates that are never out of date (specification 4.5).
//!
//! Owns the authority's secret or the watched certificate file, and decides when handshakes get a new identity. Two ways:
//! with the secret here, a new certificate is made after half of the old one's time; with the secret elsewhere, the file
//! is read again with every poll, and a new one is taken over if it proves what it should. A file that is damaged or
//! belongs to another key leaves the running certificate in place.
//!
//! Invariants: an identity that is handed out was valid at that moment. Bounds: a poll reads one small file; a notice is
//! repeated at most every ten minutes.

use std::fmt;
use std::path::Path;

use adit_codec::keys::{AuthorityPublicKey, Certificate, StaticPublicKey};
use adit_engine::Identity;

use crate::config::Authority;
use crate::keys::{self, CertificateFile};
use crate::utc::{Span, Utc};

/// How often the driver polls, in seconds: a new file is in use after at most this long.
pub const POLL_INTERVAL_S: u64 = 5;
/// How far before now a certificate begins: miners' clocks may be late.
pub const VALID_FROM_MARGIN_S: u32 = 3_600;
/// The longest time before expiry at which warnings begin, in seconds; a third of the validity if that is less.
const WARNING_BEFORE_S: u64 = 14 * 86_400;

/// How near expiry is. Each stage begins with a warning at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Soon,
    LastDay,
    Expired,
}

impl Stage {
    /// Between two warnings, in seconds.
    const fn pause_s(self) -> u64 {
        match self {
            Self::Soon => 86_400,
            Self::LastDay => 3_600,
            Self::Expired => 600,
        }
    }
}

/// How urgent a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// For the record.
    Info,
    /// To be acted on soon.
    Warning,
    /// Miners are refused, or will be.
    Error,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How urgent it is.
    pub urgency: Urgency,
    /// What happened and what to do.
    pub text: String,
}

/// What a poll brings.
#[derive(Default)]
pub struct Outcome {
    /// Serve this from now on.
    pub identity: Option<Identity>,
    /// Log these.
    pub notices: Vec<Notice>,
}

impl Outcome {
    fn note(&mut self, urgency: Urgency, text: impl Into<String>) {
        self.notices.push(Notice { urgency, text: text.into() });
    }
}

/// Why there is no identity to start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityError(String);

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IdentityError {}

/// Keeps a pool's identity valid.
pub struct Renewal {
    authority: Authority,
    /// For an authority whose secret is here: the static key in use.
    static_secret: keys::StaticSecret,
    current: Certificate,
    renewed_at: Utc,
    /// The file's text, or why it could not be used, when it was last looked at.
    last_seen: Result<String, String>,
    /// The last warning.
    warned: Option<(Stage, Utc)>,
}

impl Renewal {
    /// The first identity.
    ///
    /// # Errors
    /// Why there is none.
    pub fn start(authority: Authority, now: Utc) -> Result<(Self, Identity), IdentityError> {
        let refuse = |wrong: String| IdentityError(wrong);
        let (static_secret, current, last_seen) = match &authority {
            Authority::Present { static_secret, .. } => {
                let secret = static_secret.clone().unwrap_or_else(keys::StaticSecret::generate);
                let certificate = sign(&authority, &secret, now).map_err(refuse)?;
                (secret, certificate, Ok(String::new()))
            }
            Authority::Absent { public, static_secret, certificate_file } => {
                let (text, certificate) =
                    take_file(certificate_file, *public, static_secret, now).map_err(refuse)?;
                (static_secret.clone(), certificate, Ok(text))
            }
        };
        let renewal = Self { authority, static_secret, current, renewed_at: now, last_seen, warned: None };
        let identity = renewal.identity().map_err(refuse)?;
        Ok((renewal, identity))
    }

    /// What miners write behind the address.
    pub fn authority(&self) -> AuthorityPublicKey {
        self.authority.public_key()
    }

    /// The certificate in use.
    pub fn current(&self) -> &Certificate {
        &self.current
    }

    /// Looks at the clock and at the file.
    pub fn poll(&mut self, now: Utc) -> Outcome {
        let mut outcome = Outcome::default();
        match &self.authority {
            Authority::Present { validity, .. } => {
                let age_max = validity.as_secs() / 2;
                let clock_went_back = now.0 + u64::from(VALID_FROM_MARGIN_S) / 2 < self.renewed_at.0;
                if clock_went_back || now.0.saturating_sub(self.renewed_at.0) >= age_max {
                    self.renew(now, &mut outcome);
                }
            }
            Authority::Absent { public, certificate_file, .. } => {
                let seen = take_file(certificate_file, *public, &self.static_secret, now);
                self.look_at(seen, now, &mut outcome);
                self.warn(now, &mut outcome);
            }
        }
        outcome
    }

    fn renew(&mut self, now: Utc, outcome: &mut Outcome) {
        let renewed = sign(&self.authority, &self.static_secret, now);
        match renewed.and_then(|certificate| {
            self.current = certificate;
            self.renewed_at = now;
            self.identity()
        }) {
            Ok(identity) => {
                outcome.identity = Some(identity);
                outcome.note(Urgency::Info, format!("certificate renewed, valid to {}", self.expiry()));
            }
            Err(wrong) => outcome.note(Urgency::Error, format!("certificate not renewed: {wrong}")),
        }
    }

    fn look_at(&mut self, seen: Result<(String, Certificate), String>, now: Utc, outcome: &mut Outcome) {
        let seen = match seen {
            Ok((text, certificate)) if self.last_seen.as_ref() != Ok(&text) => {
                self.current = certificate;
                self.renewed_at = now;
                self.warned = None;
                match self.identity() {
                    Ok(identity) => {
                        outcome.identity = Some(identity);
                        outcome.note(
                            Urgency::Info,
                            format!("new certificate in use, valid to {}", self.expiry()),
                        );
                    }
                    Err(wrong) => outcome.note(Urgency::Error, format!("new certificate not used: {wrong}")),
                }
                Ok(text)
            }
            Ok((text, _)) => Ok(text),
            Err(wrong) => {
                // An expired certificate is what the warnings speak of, unless a new file is at fault.
                let is_news = self.last_seen.as_ref() != Err(&wrong) && !self.is_expired(now);
                if is_news {
                    let text = format!(
                        "certificate file not used: {wrong}; the one in use is valid to {}",
                        self.expiry()
                    );
                    outcome.note(Urgency::Warning, text);
                }
                Err(wrong)
            }
        };
        self.last_seen = seen;
    }

    fn warn(&mut self, now: Utc, outcome: &mut Outcome) {
        let Some(text) = warning(&self.current, now) else { return };
        const DAY_S: u64 = 86_400;
        let stage = match u64::from(self.current.not_valid_after).checked_sub(now.0) {
            None => Stage::Expired,
            Some(0..=DAY_S) => Stage::LastDay,
            Some(_) => Stage::Soon,
        };
        if let Some((last_stage, last)) = self.warned
            && last_stage == stage
            && (last.0..last.0 + stage.pause_s()).contains(&now.0)
        {
            return;
        }
        self.warned = Some((stage, now));
        outcome.note(if stage == Stage::Expired { Urgency::Error } else { Urgency::Warning }, text);
    }

    fn identity(&self) -> Result<Identity, String> {
        let static_key = self.static_secret.key_pair().map_err(|error| error.to_string())?;
        Ok(Identity { static_key, certificate: self.current })
    }

    fn expiry(&self) -> Utc {
        Utc(self.current.not_valid_after.into())
    }

    fn is_expired(&self, now: Utc) -> bool {
        now > self.expiry()
    }
}

fn sign(authority: &Authority, static_secret: &keys::StaticSecret, now: Utc) -> Result<Certificate, String> {
    let Authority::Present { secret, validity, .. } = authority else {
        return Err("the authority's secret is not here".to_owned());
    };
    let pair = static_secret.key_pair().map_err(|error| error.to_string())?;
    let validity_s = u32::try_from(validity.as_secs()).unwrap_or(u32::MAX);
    let now = now.to_u32();
    Ok(secret.certify(
        pair.public_key(),
        now.saturating_sub(VALID_FROM_MARGIN_S),
        now.saturating_add(validity_s),
        &keys::random(),
    ))
}

fn take_file(
    path: &Path,
    public: AuthorityPublicKey,
    static_secret: &keys::StaticSecret,
    now: Utc,
) -> Result<(String, Certificate), String> {
    let named = |wrong: String| format!("{}: {wrong}", path.display());
    let (text, _) = keys::files::read(path).map_err(|error| error.to_string())?;
    let file = CertificateFile::parse(&text).map_err(named)?;
    let pair = static_secret.key_pair().map_err(|error| error.to_string())?;
    verify(&file, public, pair.public_key(), now).map_err(named)?;
    Ok((text.to_string(), file.certificate))
}

/// Whether a certificate proves what it should at `now`.
///
/// # Errors
/// What is wrong and what to do.
pub fn verify(
    file: &CertificateFile,
    authority: AuthorityPublicKey,
    static_key: &StaticPublicKey,
    now: Utc,
) -> Result<(), String> {
    if file.authority != authority {
        return Err(format!("signed by {}, but [authority] public_key is {authority}", file.authority));
    }
    if file.static_key != *static_key {
        return Err(format!(
            "it certifies the static key {}, but static_key_file holds {}: certify that one with `adit key certify`",
            keys::static_public_text(&file.static_key),
            keys::static_public_text(static_key)
        ));
    }
    file.certificate.verify(static_key, &authority, now.to_u32(), 0).map_err(|error| {
        format!(
            "{error} (valid from {} to {}): make a new one with `adit key certify`",
            Utc(file.certificate.valid_from.into()),
            Utc(file.certificate.not_valid_after.into())
        )
    })
}

/// What to say of a certificate that expires soon, or has expired.
pub fn warning(certificate: &Certificate, now: Utc) -> Option<String> {
    let (from, end) = (u64::from(certificate.valid_from), u64::from(certificate.not_valid_after));
    let todo = "make a new one with `adit key certify` and put it in certificate_file; no restart is needed";
    if now.0 > end {
        return Some(format!("certificate expired at {}: miners are refused; {todo}", Utc(end)));
    }
    let left = end - now.0;
    let threshold = WARNING_BEFORE_S.min(end.saturating_sub(from) / 3);
    (left <= threshold).then(|| format!("certificate expires in {} ({}); {todo}", Span(left), Utc(end)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Utc = Utc(1_800_000_000);

    fn after(seconds: u64) -> Utc {
        Utc(NOW.0 + seconds)
    }

    #[test]
    fn with_the_secret_here_no_certificate_is_ever_out_of_date() {
        let authority = Authority::Present {
            secret: keys::generate_authority(),
            static_secret: None,
            validity: Duration::from_secs(3_600),
        };
        let public = authority.public_key();
        let (mut renewal, mut identity) = Renewal::start(authority, NOW).unwrap();
        let mut renewals = 0;
        for seconds in (0..20_000).step_by(5) {
            let outcome = renewal.poll(after(seconds));
            if let Some(next) = outcome.identity {
                identity = next;
                renewals += 1;
            }
            let now = after(seconds).to_u32();
            identity.certificate.verify(identity.static_key.public_key(), &public, now, 0).unwrap();
        }
        assert_eq!(renewals, 20_000 / 1_800);
        assert!(renewal.poll(Utc(NOW.0 - 100_000)).identity.is_some(), "the clock was set back");
    }

    struct Offline {
        secret: adit_codec::keys::AuthoritySecretKey,
        static_secret: keys::StaticSecret,
        dir: tempfile::TempDir,
    }

    impl Offline {
        fn new() -> Self {
            Self {
                secret: keys::generate_authority(),
                static_secret: keys::StaticSecret::generate(),
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("pool.cert")
        }

        fn certify(&self, from: Utc, to: Utc) {
            let static_key = *self.static_secret.key_pair().unwrap().public_key();
            let certificate = self.secret.certify(&static_key, from.to_u32(), to.to_u32(), &keys::random());
            let file = CertificateFile { authority: self.secret.public_key(), static_key, certificate };
            std::fs::write(self.path(), file.to_text()).unwrap();
        }

        fn authority(&self) -> Authority {
            Authority::Absent {
                public: self.secret.public_key(),
                static_secret: self.static_secret.clone(),
                certificate_file: self.path(),
            }
        }
    }

    #[test]
    fn a_new_file_is_taken_over_and_a_wrong_one_is_not() {
        let offline = Offline::new();
        assert!(Renewal::start(offline.authority(), NOW).is_err(), "no file");
        offline.certify(NOW, after(1_000));
        let (mut renewal, first) = Renewal::start(offline.authority(), NOW).unwrap();
        assert!(renewal.poll(after(5)).identity.is_none(), "nothing changed");
        std::fs::write(offline.path(), "garbage").unwrap();
        let outcome = renewal.poll(after(10));
        assert!(outcome.identity.is_none());
        assert_eq!(outcome.notices.len(), 1);
        assert_eq!(renewal.poll(after(15)).notices, [], "said once");
        offline.certify(after(500), after(5_000));
        assert!(renewal.poll(after(20)).identity.is_none(), "not yet valid");
        offline.certify(NOW, after(5_000));
        let next = renewal.poll(after(25)).identity.unwrap();
        assert_ne!(first.certificate, next.certificate);
        std::fs::remove_file(offline.path()).unwrap();
        assert_eq!(renewal.poll(after(30)).notices[0].urgency, Urgency::Warning);
        assert_eq!(*renewal.current(), next.certificate);
    }

    #[test]
    fn a_certificate_that_becomes_valid_later_is_taken_then() {
        let offline = Offline::new();
        offline.certify(NOW, after(1_000));
        let (mut renewal, _) = Renewal::start(offline.authority(), NOW).unwrap();
        offline.certify(after(500), after(5_000));
        assert!(renewal.poll(after(5)).identity.is_none());
        assert!(renewal.poll(after(500)).identity.is_some());
    }

    #[test]
    fn expiry_is_announced_in_time_and_not_too_often() {
        let offline = Offline::new();
        const DAY: u64 = 86_400;
        offline.certify(NOW, after(90 * DAY));
        let (mut renewal, _) = Renewal::start(offline.authority(), NOW).unwrap();
        let mut warnings = 0;
        for hour in 0..90 * 24 {
            let notices = renewal.poll(after(hour * 3_600)).notices;
            assert!(notices.iter().all(|notice| notice.urgency == Urgency::Warning));
            if !notices.is_empty() {
                assert!(hour >= 76 * 24, "day {}", hour / 24);
                warnings += notices.len();
            }
        }
        assert!((30..=50).contains(&warnings), "{warnings}");
        assert_eq!(renewal.poll(after(90 * DAY)).notices[0].urgency, Urgency::Warning, "the last second");
        let expired = renewal.poll(after(90 * DAY + 1)).notices;
        assert_eq!(expired.len(), 1, "{expired:?}");
        assert_eq!(expired[0].urgency, Urgency::Error);
        assert!(expired[0].text.contains("miners are refused"));
        assert!(Renewal::start(offline.authority(), after(91 * DAY)).is_err());
        offline.certify(NOW, after(100 * DAY));
        assert!(renewal.poll(after(91 * DAY)).identity.is_some());
    }
}
