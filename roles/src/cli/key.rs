//! `adit key`: keys and certificates.
//!
//! With the authority's secret off line, three steps make a pool that miners trust: on the server
//! `adit key generate --static --out static.key` prints the static public key; on the machine with the secret
//! `adit key certify` signs it; the certificate goes back to the server, into the file that the configuration names. The
//! same two last steps renew it, while the pool runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use adit_codec::keys::{AuthoritySecretKey, StaticPublicKey};
use clap::{Args, Subcommand};

use super::{Failure, print};
use crate::keys::{self, CertificateFile, KeyFile, StaticSecret, files};
use crate::utc::{Span, Utc};

/// Shown below the commands.
pub(super) const WORKFLOW: &str = "\
With the authority's secret on the pool's machine:
  adit key generate --out authority.key       and name it in [authority] secret_key_file

With the secret on a machine of its own, off line if you like:
  there        adit key generate --out authority.key            prints the authority's public key
  at the pool  adit key generate --static --out static.key      prints the static public key
  there        adit key certify --authority authority.key --static-key HEX --days 90 --out pool.cert
  at the pool  name public_key, static_key_file and certificate_file in [authority]
  to renew     adit key certify --authority authority.key --renew pool.cert --out new.cert, then move new.cert over the
               pool's certificate file: a running pool takes it over within seconds";

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a new authority key, or with --static a pool's static key
    ///
    /// The public key goes to stdout. Without --out the whole file does, secret included.
    Generate {
        /// Write the key to this file, which must not exist; its owner alone may read it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Make a pool's static key, for an authority whose secret is on another machine
        #[arg(long = "static")]
        is_static: bool,
    },
    /// Say what a key or certificate file holds; secrets are not shown
    Show {
        /// A file made by `adit key`
        file: PathBuf,
    },
    /// Sign a certificate for a pool's static key, on the machine that has the authority's secret
    Certify(CertifyArguments),
}

#[derive(Args, Debug)]
pub(super) struct CertifyArguments {
    /// The authority's key file
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// The pool's static public key, as `adit key generate --static` and `adit key show` print it
    #[arg(long, value_name = "HEX", required_unless_present = "renew", conflicts_with = "renew")]
    static_key: Option<String>,
    /// Certify the static key of this certificate once more
    #[arg(long, value_name = "FILE")]
    renew: Option<PathBuf>,
    /// For how many days from now
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Write the certificate to this file, which must not exist, and not to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Generate { out, is_static: false } => generate_authority(out.as_deref()),
        KeyCommand::Generate { out, is_static: true } => generate_static(out.as_deref()),
        KeyCommand::Show { file } => show(&file),
        KeyCommand::Certify(arguments) => certify(&arguments),
    }
}

fn generate_authority(out: Option<&Path>) -> Result<(), Failure> {
    let key = keys::generate_authority();
    let text = keys::authority_text(&key);
    let Some(path) = out else { return print(&text) };
    files::create_secret(path, &text)?;
    note(&format!(
        "{} holds the authority key. Keep a copy in a safe place: a pool without it is another pool to its miners.\n\
         Its public key, for miners and for [authority] public_key:",
        path.display()
    ));
    print(&format!("{}\n", key.public_key()))
}

fn generate_static(out: Option<&Path>) -> Result<(), Failure> {
    let secret = StaticSecret::generate();
    let text = keys::static_text(&secret).map_err(Failure::running)?;
    let Some(path) = out else { return print(&text) };
    files::create_secret(path, &text)?;
    let pair = secret.key_pair().map_err(Failure::running)?;
    note(&format!(
        "{} holds the static key; it stays on this machine.\n\
         Have its public key certified where the authority's secret is: adit key certify --authority FILE --static-key HEX",
        path.display()
    ));
    print(&format!("{}\n", keys::static_public_text(pair.public_key())))
}

fn show(path: &Path) -> Result<(), Failure> {
    let mut out = String::new();
    let _ = match KeyFile::read(path)? {
        KeyFile::Authority(key) => {
            writeln!(out, "kind: authority key, with its secret\npublic key: {}", key.public_key())
        }
        KeyFile::Static(secret) => {
            let pair = secret.key_pair().map_err(Failure::running)?;
            let public = keys::static_public_text(pair.public_key());
            writeln!(out, "kind: static key of a pool, with its secret\npublic key: {public}")
        }
        KeyFile::Certificate(file) => write!(out, "{}", describe(&file, Utc::now())),
    };
    print(&out)
}

fn describe(file: &CertificateFile, now: Utc) -> String {
    let from = Utc(file.certificate.valid_from.into());
    let end = Utc(file.certificate.not_valid_after.into());
    let state = if now < from {
        "not yet valid".to_owned()
    } else if now > end {
        "expired".to_owned()
    } else {
        format!("valid for another {}", Span(end.0 - now.0))
    };
    format!(
        "kind: certificate, with a good signature\nauthority: {}\nstatic public key: {}\n\
         valid from: {from}\nvalid to: {end}\nstate: {state}\n",
        file.authority,
        keys::static_public_text(&file.static_key),
    )
}

fn certify(arguments: &CertifyArguments) -> Result<(), Failure> {
    let authority: AuthoritySecretKey = keys::read_authority(&arguments.authority)?;
    let static_key = static_key(arguments)?;
    let now = Utc::now();
    let end = Utc(now.0 + u64::from(arguments.days) * 86_400);
    let valid_from = now.to_u32().saturating_sub(crate::certificates::VALID_FROM_MARGIN_S);
    let certificate = authority.certify(&static_key, valid_from, end.to_u32(), &keys::random());
    let file = CertificateFile { authority: authority.public_key(), static_key, certificate };
    let Some(path) = &arguments.out else { return print(&file.to_text()) };
    files::create_public(path, &file.to_text())?;
    note(&format!(
        "{} is valid to {end}. Bring it to the pool's machine, under the name that [authority] certificate_file gives; \
         a running pool takes it over within seconds.",
        path.display()
    ));
    Ok(())
}

fn static_key(arguments: &CertifyArguments) -> Result<StaticPublicKey, Failure> {
    match (&arguments.static_key, &arguments.renew) {
        (Some(text), _) => keys::parse_static_public_key(text)
            .map_err(|wrong| Failure::usage(format!("--static-key {text}: {wrong}"))),
        (None, Some(path)) => Ok(keys::read_certificate(path)?.static_key),
        (None, None) => Err(Failure::usage("--static-key or --renew is needed")),
    }
}

/// Explanations go to stderr, so that stdout holds the result alone.
fn note(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
