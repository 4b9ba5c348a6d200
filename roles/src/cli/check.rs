//! `adit check`: what a configuration would do.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::{Failure, print, probe};
use crate::certificates;
use crate::config::{
    Authority, PoolConfig, Program, Settings, SourceKind, TemplateSourceSettings, TpConfig, program_of_file,
    reference,
};
use crate::keys::{self, CertificateFile};
use crate::nodes;
use crate::role::server_url;
use crate::utc::{Span, Utc};

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    match program_of_file(file)? {
        Program::Pool => print(&describe_pool(file, &PoolConfig::load(file)?)),
        Program::Tp => print(&describe_tp(file, &TpConfig::load(file)?)),
    }
}

fn describe_tp(file: &Path, config: &TpConfig) -> String {
    let mut out = reference::effective(&config.settings, &config.lines, Program::Tp);
    let tp = &config.settings.tp;
    let _ = writeln!(out, "{} is valid. It means:", file.display());
    let _ = writeln!(
        out,
        "- up to {} clients are served on CPU {}",
        config.settings.clients.clients_max, config.cpu
    );
    let _ = writeln!(out, "- {}", authority(&config.authority));
    let _ = writeln!(
        out,
        "- clients connect to {}",
        server_url(tp.public_host.as_deref(), tp.listen, config.authority.public_key())
    );
    describe_rest(&config.settings, tp.listen, &config.warnings, &mut out);
    out
}

fn describe_pool(file: &Path, config: &PoolConfig) -> String {
    let mut out = reference::effective(&config.settings, &config.lines, Program::Pool);
    let pool = &config.settings.pool;
    let _ = writeln!(out, "{} is valid. It means:", file.display());
    let _ = writeln!(out, "- rewards go to {}", config.payout);
    let cpus: Vec<_> = config.cpus.iter().map(usize::to_string).collect();
    let count = match cpus.len() {
        1 => "1 shard serves".to_owned(),
        count => format!("{count} shards serve"),
    };
    let _ = writeln!(out, "- {count} miners on CPU {}", cpus.join(", "));
    let _ = writeln!(out, "- shares are hashed by batch size: {}", config.hasher.describe());
    let _ = writeln!(out, "- small frames are encrypted by {}", config.aead.describe());
    let _ = writeln!(out, "- {}", authority(&config.authority));
    let _ = writeln!(
        out,
        "- miners connect to {}",
        server_url(pool.public_host.as_deref(), pool.listen, config.authority.public_key())
    );
    describe_rest(&config.settings, pool.listen, &config.warnings, &mut out);
    out
}

/// Where templates come from, and what is worth a thought.
fn describe_rest(settings: &Settings, listen: SocketAddr, warnings: &[String], out: &mut String) {
    let sources = settings.template_source.iter().zip(settings.source_names());
    for (source, name) in sources {
        let (chain, kind) = (source.chain, source.kind);
        let _ = match nodes::reach(source) {
            Ok(found) => writeln!(out, "- template source \"{name}\" ({kind}, {chain}): {found}"),
            Err(wrong) => {
                writeln!(out, "- template source \"{name}\" ({kind}, {chain}) cannot be reached now: {wrong}")
            }
        };
    }
    let embedded = settings.template_source.iter().filter(|source| source.kind == SourceKind::Embedded);
    let places = embedded.map(TemplateSourceSettings::embedded_dir).chain([settings.journal.dir.clone()]);
    let wrong = places.filter_map(|place| probe::takes_files(&place).err());
    for wrong in probe::listens(listen).err().into_iter().chain(wrong) {
        let _ = writeln!(out, "Warning: {wrong}");
    }
    for warning in warnings {
        let _ = writeln!(out, "Warning: {warning}");
    }
}

fn authority(authority: &Authority) -> String {
    match authority {
        Authority::Present { validity, static_secret, .. } => format!(
            "the authority's secret is on this machine: certificates for {} are made and renewed here, for {}",
            Span(validity.as_secs()),
            if static_secret.is_some() {
                "the static key in static_key_file"
            } else {
                "a static key made at each start"
            }
        ),
        Authority::Absent { certificate_file, .. } => {
            // It was valid a moment ago; if it has gone since, that is said instead.
            match keys::read_certificate(certificate_file) {
                Err(error) => error.to_string(),
                Ok(CertificateFile { certificate, .. }) => {
                    let end = Utc(certificate.not_valid_after.into());
                    let warning = certificates::warning(&certificate, Utc::now());
                    let warning = warning.map(|text| format!("\n  Warning: {text}")).unwrap_or_default();
                    format!("the certificate in {} is valid to {end}{warning}", certificate_file.display())
                }
            }
        }
    }
}
