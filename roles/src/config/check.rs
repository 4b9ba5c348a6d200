//! What must fit together: keys with each other, with key files, and with this machine.

mod sources;

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_codec::keys::{AuthorityPublicKey, AuthoritySecretKey};
use adit_codec::noise::{Aead, AeadBackend};
use adit_hasher::{Backend, Hasher};
use bitcoin::Network;

use super::{
    AeadChoice, Authority, AuthoritySettings, Chain, ClientsSettings, Cpus, HasherChoice, Lines, Payout,
    PoolConfig, Problem, Program, Reading, Settings, SourceKind, TemplateSourceSettings, TpConfig, cpus,
};
use crate::keys;
use crate::utc::Utc;

/// Slots of the smallest table of shares: a shard has room for one of each channel.
const SLOTS_PER_CHANNEL_MIN: usize = 8;

/// The longest list of a template's transactions: a block is four million weight units, each byte one at least.
const ANSWER_BYTES_MAX: usize = 4_000_000;

/// Problems and warnings as they are found.
struct Findings {
    program: Program,
    lines: Lines,
    sources_count: usize,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Findings {
    fn new(program: Program, lines: Lines, settings: &Settings, problems: Vec<Problem>) -> Self {
        let sources_count = settings.template_source.len();
        Self { program, lines, sources_count, problems, warnings: Vec::new() }
    }

    fn problem(&mut self, section: &'static str, key: &'static str, wrong: impl std::fmt::Display) {
        self.problems.push(Problem {
            line: self.lines.of(section, key),
            message: format!("[{section}] {key}: {wrong}"),
        });
    }

    /// A mistake in the template source of this number, counted from 0.
    fn source_problem(&mut self, number: usize, key: &'static str, wrong: impl std::fmt::Display) {
        let section = "template_source";
        let which = match self.sources_count {
            1 => format!("[{section}]"),
            _ => format!("[[{section}]] number {}:", number + 1),
        };
        self.problems.push(Problem {
            line: self.lines.of_table(section, number, key),
            message: format!("{which} {key}: {wrong}"),
        });
    }

    fn is_set(&self, section: &'static str, key: &'static str) -> bool {
        self.lines.of(section, key).is_some()
    }
}

/// Checks what was read from a file with these mode bits that lies in `directory`.
pub(super) fn check(mut reading: Reading, directory: &Path, mode: u32) -> Result<PoolConfig, Vec<Problem>> {
    resolve_paths(&mut reading.settings, directory);
    // A wrong value elsewhere could make a key file look wrong that is not.
    let authority_is_worth_a_look = reading.problems.is_empty();
    assemble(reading, mode, |settings, findings| {
        if authority_is_worth_a_look { check_authority(settings, findings) } else { None }
    })
}

/// Checks settings that no file gave, with an authority of the caller's.
pub(super) fn check_settings(settings: Settings, authority: Authority) -> Result<PoolConfig, Vec<Problem>> {
    let reading = Reading { settings, lines: Lines::default(), problems: Vec::new() };
    assemble(reading, 0o600, |_, _| Some(authority))
}

fn assemble(
    reading: Reading,
    mode: u32,
    authority: impl FnOnce(&AuthoritySettings, &mut Findings) -> Option<Authority>,
) -> Result<PoolConfig, Vec<Problem>> {
    let Reading { mut settings, lines, problems } = reading;
    let mut findings = Findings::new(Program::Pool, lines, &settings, problems);
    check_pool(&settings, &mut findings);
    check_limits(&mut settings, &mut findings);
    sources::check(&settings, &mut findings);
    check_secrecy(&settings, mode, &mut findings);
    let payout = check_payout(&settings, &mut findings);
    let cpus = check_cpus(&settings, &mut findings);
    let hasher = check_hasher(settings.engine.hasher, &mut findings);
    let aead = check_aead(settings.engine.aead, &mut findings);
    let authority = authority(&settings.authority, &mut findings);
    match (payout, cpus, hasher, aead, authority) {
        (Some(payout), Some(cpus), Some(hasher), Some(aead), Some(authority))
            if findings.problems.is_empty() =>
        {
            Ok(PoolConfig {
                settings,
                lines: findings.lines,
                payout,
                authority,
                cpus,
                hasher,
                aead,
                warnings: findings.warnings,
            })
        }
        _ => Err(findings.problems),
    }
}

/// Checks what was read from a template provider's file; see [`check`].
pub(super) fn check_tp(mut reading: Reading, directory: &Path, mode: u32) -> Result<TpConfig, Vec<Problem>> {
    resolve_paths(&mut reading.settings, directory);
    let authority_is_worth_a_look = reading.problems.is_empty();
    assemble_tp(reading, mode, |settings, findings| {
        if authority_is_worth_a_look { check_authority(settings, findings) } else { None }
    })
}

/// Checks a template provider's settings that no file gave, with an authority of the caller's.
pub(super) fn check_tp_settings(settings: Settings, authority: Authority) -> Result<TpConfig, Vec<Problem>> {
    let reading = Reading { settings, lines: Lines::default(), problems: Vec::new() };
    assemble_tp(reading, 0o600, |_, _| Some(authority))
}

fn assemble_tp(
    reading: Reading,
    mode: u32,
    authority: impl FnOnce(&AuthoritySettings, &mut Findings) -> Option<Authority>,
) -> Result<TpConfig, Vec<Problem>> {
    let Reading { mut settings, lines, problems } = reading;
    let mut findings = Findings::new(Program::Tp, lines, &settings, problems);
    check_host("tp", settings.tp.public_host.as_deref(), &mut findings);
    let clients = &mut settings.clients;
    at_most(
        "clients",
        (&mut clients.clients_per_address_max, "clients_per_address_max"),
        (clients.clients_max, "clients_max"),
        &mut findings,
    );
    at_most(
        "clients",
        (&mut clients.send_buffer_bytes_max, "send_buffer_bytes_max"),
        (clients.send_buffer_bytes_in_all_max, "send_buffer_bytes_in_all_max"),
        &mut findings,
    );
    check_requests(clients, &mut findings);
    sources::check(&settings, &mut findings);
    check_secrecy(&settings, mode, &mut findings);
    // The CPU that a pool on this machine leaves to the node and the rest, if it leaves one.
    let cpu = match cpus::allowed() {
        Ok(allowed) => allowed.last().copied(),
        Err(wrong) => {
            findings.problems.push(Problem::missing(wrong));
            None
        }
    };
    let authority = authority(&settings.authority, &mut findings);
    match (cpu, authority) {
        (Some(cpu), Some(authority)) if findings.problems.is_empty() => {
            let Findings { lines, warnings, .. } = findings;
            Ok(TpConfig { settings, lines, authority, cpu, warnings })
        }
        _ => Err(findings.problems),
    }
}

fn resolve_paths(settings: &mut Settings, directory: &Path) {
    let resolve = |path: &mut PathBuf| *path = directory.join(&*path);
    for source in &mut settings.template_source {
        if source.kind == SourceKind::Embedded {
            source.data_dir = Some(source.embedded_dir());
        }
        let TemplateSourceSettings { data_dir, socket, cookie_file, .. } = source;
        [data_dir, socket, cookie_file].into_iter().flatten().for_each(resolve);
    }
    resolve(&mut settings.journal.dir);
    let AuthoritySettings { secret_key_file, static_key_file, certificate_file, .. } =
        &mut settings.authority;
    [secret_key_file, static_key_file, certificate_file].into_iter().flatten().for_each(resolve);
}

fn check_pool(settings: &Settings, findings: &mut Findings) {
    let pool = &settings.pool;
    check_host("pool", pool.public_host.as_deref(), findings);
    if !pool.pool_tag.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        findings.problem("pool", "pool_tag", "only printable ASCII characters");
    }
}

fn check_host(section: &'static str, public_host: Option<&str>, findings: &mut Findings) {
    if let Some(host) = public_host {
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if host.is_empty() || !(is_name || host.parse::<std::net::Ipv6Addr>().is_ok()) {
            findings.problem(
                section,
                "public_host",
                "a host name or IP address alone is meant, without port and scheme",
            );
        }
    }
}

/// All answers that a client may wait for at once must fit what may wait to be sent, or it is taken for one that does not
/// read.
fn check_requests(clients: &mut ClientsSettings, findings: &mut Findings) {
    let fitting = (clients.send_buffer_bytes_max / ANSWER_BYTES_MAX).max(1);
    if clients.requests_max <= fitting {
        return;
    }
    if findings.is_set("clients", "requests_max") {
        let ClientsSettings { requests_max, send_buffer_bytes_max, .. } = clients;
        let wrong = format!(
            "{requests_max} answers of up to {ANSWER_BYTES_MAX} bytes are more than send_buffer_bytes_max = \
             {send_buffer_bytes_max}: lower this to {fitting} or raise that"
        );
        findings.problem("clients", "requests_max", wrong);
    } else {
        clients.requests_max = fitting;
    }
}

/// A part must not be more than the whole, both of a section.
fn at_most<T: PartialOrd + Copy + std::fmt::Display>(
    section: &'static str,
    (part, part_key): (&mut T, &'static str),
    (whole, whole_key): (T, &'static str),
    findings: &mut Findings,
) {
    if *part <= whole {
        return;
    }
    if findings.is_set(section, part_key) {
        let wrong = format!("{part} is more than {whole_key} = {whole}: lower this or raise that");
        findings.problem(section, part_key, wrong);
    } else {
        *part = whole;
    }
}

/// Limits that the file sets must fit each other; defaults give way to what it sets.
fn check_limits(settings: &mut Settings, findings: &mut Findings) {
    let limits = &mut settings.limits;
    at_most(
        "limits",
        (&mut limits.connections_per_address_max, "connections_per_address_max"),
        (limits.connections_max, "connections_max"),
        findings,
    );
    at_most(
        "limits",
        (&mut limits.channels_per_connection_max, "channels_per_connection_max"),
        (limits.channels_max, "channels_max"),
        findings,
    );
    at_most(
        "limits",
        (&mut limits.send_buffer_bytes_max, "send_buffer_bytes_max"),
        (limits.shard_send_buffer_bytes_max, "shard_send_buffer_bytes_max"),
        findings,
    );
    for (key, part) in [
        ("setup_timeout_s", &mut limits.setup_timeout_s),
        ("first_channel_timeout_s", &mut limits.first_channel_timeout_s),
    ] {
        if *part <= limits.idle_timeout_s {
            continue;
        }
        if findings.is_set("limits", key) {
            let wrong = format!(
                "{part} is more than idle_timeout_s = {}: it would never be reached",
                limits.idle_timeout_s
            );
            findings.problem("limits", key, wrong);
        } else {
            *part = limits.idle_timeout_s;
        }
    }
    let slots_min = SLOTS_PER_CHANNEL_MIN * limits.channels_max as usize;
    if limits.fingerprint_slots_max < slots_min {
        if findings.is_set("limits", "fingerprint_slots_max") {
            let wrong = format!(
                "{} is less than {SLOTS_PER_CHANNEL_MIN} for each of channels_max = {}: raise this to {slots_min} or lower that",
                limits.fingerprint_slots_max, limits.channels_max
            );
            findings.problem("limits", "fingerprint_slots_max", wrong);
        } else {
            limits.fingerprint_slots_max = slots_min;
        }
    }
    let shares_per_hour = settings.vardiff.shares_per_minute * 60.0;
    if shares_per_hour > f64::from(limits.shares_per_tip_max) {
        findings.warnings.push(format!(
            "[vardiff] shares_per_minute = {} brings {shares_per_hour} shares per channel in an hour: on a tip that lasts so long, \
             shares above [limits] shares_per_tip_max = {} are refused",
            settings.vardiff.shares_per_minute, limits.shares_per_tip_max
        ));
    }
    if limits.idle_timeout_s < settings.jobs.interval_s {
        let wrong = format!(
            "{} is less than [jobs] interval_s = {}: miners that wait for a job would be dropped",
            limits.idle_timeout_s, settings.jobs.interval_s
        );
        findings.problem("limits", "idle_timeout_s", wrong);
    }
}

fn check_secrecy(settings: &Settings, mode: u32, findings: &mut Findings) {
    if mode & 0o077 == 0 {
        return;
    }
    let wrong = format!(
        "a secret, but others than the owner may use this file (mode {mode:04o}): run \
         `chmod 600` on it, and change the secret if others could have read it"
    );
    if settings.authority.secret_key.is_some() {
        findings.problem("authority", "secret_key", &wrong);
    }
    for (number, source) in settings.template_source.iter().enumerate() {
        if source.rpc_password.is_some() {
            findings.source_problem(number, "rpc_password", &wrong);
        }
    }
}

fn check_payout(settings: &Settings, findings: &mut Findings) -> Option<Payout> {
    if settings.pool.payout.is_empty() && !findings.is_set("pool", "payout") {
        // Its absence has been noticed.
        return None;
    }
    let network = match settings.chain() {
        Chain::Main => Network::Bitcoin,
        Chain::Testnet4 => Network::Testnet4,
        Chain::Signet => Network::Signet,
        Chain::Regtest => Network::Regtest,
    };
    match Payout::parse(&settings.pool.payout, network) {
        Ok(payout) => Some(payout),
        Err(wrong) => {
            findings.problem("pool", "payout", format!("\"{}\": {wrong}", settings.pool.payout));
            None
        }
    }
}

fn check_cpus(settings: &Settings, findings: &mut Findings) -> Option<Vec<usize>> {
    let allowed = match cpus::allowed() {
        Ok(allowed) => allowed,
        Err(wrong) => {
            findings.problem("engine", "cpus", wrong);
            return None;
        }
    };
    match &settings.engine.cpus {
        Cpus::Auto => Some(cpus::automatic(allowed)),
        Cpus::List(list) => match list.iter().find(|cpu| !allowed.contains(cpu)) {
            None => Some(list.clone()),
            Some(cpu) => {
                let wrong = format!("CPU {cpu} is not one of those that this process may use: {allowed:?}");
                findings.problem("engine", "cpus", wrong);
                None
            }
        },
    }
}

fn check_hasher(choice: HasherChoice, findings: &mut Findings) -> Option<Hasher> {
    let backend = match choice {
        HasherChoice::Auto => return Some(Hasher::detect()),
        HasherChoice::Portable => Backend::Portable,
        HasherChoice::ShaNi => Backend::ShaNi,
        HasherChoice::Avx2 => Backend::Avx2,
        HasherChoice::Avx512 => Backend::Avx512,
    };
    let hasher = Hasher::forced(backend);
    if hasher.is_none() {
        findings.problem("engine", "hasher", format!("\"{choice}\": this CPU cannot do that; use \"auto\""));
    }
    hasher
}

fn check_aead(choice: AeadChoice, findings: &mut Findings) -> Option<Aead> {
    let backend = match choice {
        AeadChoice::Auto => return Some(Aead::detect()),
        AeadChoice::Ring => AeadBackend::Ring,
        AeadChoice::Avx2 => AeadBackend::Avx2,
        AeadChoice::Avx512 => AeadBackend::Avx512,
    };
    let aead = Aead::forced(backend);
    if aead.is_none() {
        findings.problem("engine", "aead", format!("\"{choice}\": this CPU cannot do that; use \"auto\""));
    }
    aead
}

fn check_authority(settings: &AuthoritySettings, findings: &mut Findings) -> Option<Authority> {
    let static_secret = match settings.static_key_file.as_deref().map(keys::read_static).transpose() {
        Ok(secret) => secret,
        Err(error) => {
            findings.problem("authority", "static_key_file", error);
            return None;
        }
    };
    let public = match settings.public_key.as_deref().map(str::parse::<AuthorityPublicKey>).transpose() {
        Ok(public) => public,
        Err(error) => {
            findings.problem("authority", "public_key", error);
            return None;
        }
    };
    let secret: Option<AuthoritySecretKey> = match (&settings.secret_key_file, &settings.secret_key) {
        (Some(_), Some(_)) => {
            findings.problem(
                "authority",
                "secret_key",
                "secret_key_file is set as well: keep one of the two",
            );
            return None;
        }
        (Some(path), None) => keys::read_authority(path)
            .map_err(|error| findings.problem("authority", "secret_key_file", error))
            .ok()?
            .into(),
        (None, Some(text)) => text
            .0
            .parse::<AuthoritySecretKey>()
            .map_err(|error| findings.problem("authority", "secret_key", error))
            .ok()?
            .into(),
        (None, None) => None,
    };
    match secret {
        Some(secret) => present(settings, secret, public, static_secret, findings),
        None => absent(settings, public, static_secret, findings),
    }
}

fn present(
    settings: &AuthoritySettings,
    secret: AuthoritySecretKey,
    public: Option<AuthorityPublicKey>,
    static_secret: Option<keys::StaticSecret>,
    findings: &mut Findings,
) -> Option<Authority> {
    if let Some(public) = public
        && public != secret.public_key()
    {
        findings.problem(
            "authority",
            "public_key",
            format!("{public} does not belong to the secret, whose public key is {}", secret.public_key()),
        );
        return None;
    }
    if settings.certificate_file.is_some() {
        findings.problem(
            "authority",
            "certificate_file",
            "the authority's secret is given too, and certificates are made with it: keep one of the two",
        );
        return None;
    }
    let validity = Duration::from_secs(settings.certificate_validity_s.into());
    Some(Authority::Present { secret, static_secret, validity })
}

fn absent(
    settings: &AuthoritySettings,
    public: Option<AuthorityPublicKey>,
    static_secret: Option<keys::StaticSecret>,
    findings: &mut Findings,
) -> Option<Authority> {
    let (Some(public), Some(static_secret), Some(path)) = (public, static_secret, &settings.certificate_file)
    else {
        let missing: Vec<_> = [
            ("public_key", settings.public_key.is_none()),
            ("static_key_file", settings.static_key_file.is_none()),
            ("certificate_file", settings.certificate_file.is_none()),
        ]
        .into_iter()
        .filter_map(|(key, missing)| missing.then_some(key))
        .collect();
        let message = if missing.len() == 3 {
            "[authority] secret_key_file is missing: make a key with `adit key generate --out authority.key` and name it \
             here; or, with the secret kept on another machine, set public_key, static_key_file and certificate_file"
                .to_owned()
        } else {
            format!(
                "[authority] {} missing: without the authority's secret, public_key, static_key_file and \
                 certificate_file belong together",
                missing.join(" and ")
            )
        };
        findings.problems.push(Problem::missing(message));
        return None;
    };
    if let Err(wrong) = check_certificate(path, public, &static_secret) {
        findings.problem("authority", "certificate_file", wrong);
        return None;
    }
    Some(Authority::Absent { public, static_secret, certificate_file: path.clone() })
}

fn check_certificate(
    path: &Path,
    public: AuthorityPublicKey,
    static_secret: &keys::StaticSecret,
) -> Result<(), String> {
    let file = keys::read_certificate(path).map_err(|error| error.to_string())?;
    let pair = static_secret.key_pair().map_err(|error| error.to_string())?;
    crate::certificates::verify(&file, public, pair.public_key(), Utc::now())
        .map_err(|wrong| format!("{}: {wrong}", path.display()))
}
