//! What must fit together in the template sources.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Findings;
use crate::config::{Chain, FIELDS, Program, Settings, SourceKind, TemplateSourceSettings};

pub(super) fn check(settings: &Settings, findings: &mut Findings) {
    let names = settings.source_names();
    let mut taken = BTreeSet::new();
    for (number, source) in settings.template_source.iter().enumerate() {
        check_belonging(source, number, findings);
        check_chain(settings, number, findings);
        if !taken.insert(&names[number]) {
            let wrong = format!(
                "\"{}\" is the name of an earlier source: the log could not tell them apart",
                names[number]
            );
            findings.source_problem(number, "name", wrong);
        }
        match source.kind {
            SourceKind::Embedded => check_embedded(settings, number, findings),
            SourceKind::CoreIpc => check_core_ipc(source, number, findings),
            SourceKind::CoreRpc => check_core_rpc(source, number, findings),
            SourceKind::Sv2 => check_sv2(source, number, findings),
            SourceKind::Synthetic => check_synthetic(settings, number, findings),
        }
    }
    check_directories(settings, findings);
}

/// Refuses settings of other kinds: they would have no effect.
fn check_belonging(source: &TemplateSourceSettings, number: usize, findings: &mut Findings) {
    for field in FIELDS.iter().filter(|field| field.section == "template_source") {
        if field.is_for(source.kind)
            || findings.lines.of_table("template_source", number, field.key).is_none()
        {
            continue;
        }
        let kinds: Vec<_> = field.only_for.iter().map(|kind| format!("\"{kind}\"")).collect();
        let wrong = format!("no setting of kind \"{}\": it belongs to {}", source.kind, kinds.join(" and "));
        findings.source_problem(number, field.key, wrong);
    }
}

fn check_chain(settings: &Settings, number: usize, findings: &mut Findings) {
    let source = &settings.template_source[number];
    if source.kind == SourceKind::Embedded && !matches!(source.chain, Chain::Regtest | Chain::Signet) {
        let wrong = format!(
            "the embedded node has no network, so it cannot follow {}: use \"regtest\" or \"signet\", or another kind",
            source.chain
        );
        findings.source_problem(number, "chain", wrong);
    }
    let common = settings.chain();
    if source.chain != common {
        let wrong = format!("{}, but the first source is on {common}: a pool mines one chain", source.chain);
        findings.source_problem(number, "chain", wrong);
    }
}

fn check_embedded(settings: &Settings, number: usize, findings: &mut Findings) {
    let source = &settings.template_source[number];
    if settings.template_source[..number].iter().any(|earlier| earlier.kind == SourceKind::Embedded) {
        let wrong = "a second embedded node: they have no network, so each would mine a chain of its own";
        findings.source_problem(number, "kind", wrong);
    }
    let Some(address) = source.rpc_listen else {
        for (key, set) in
            [("rpc_user", source.rpc_user.is_some()), ("rpc_password", source.rpc_password.is_some())]
        {
            if set {
                let wrong = "set, but rpc_listen is not: there is no JSON-RPC server to log in to";
                findings.source_problem(number, key, wrong);
            }
        }
        return;
    };
    if !address.ip().is_loopback() {
        let wrong =
            format!("{address} is no loopback address; the server is not encrypted: use 127.0.0.1 or [::1]");
        findings.source_problem(number, "rpc_listen", wrong);
    }
    // Port 0 stands for any free one.
    let program = findings.program;
    let listen = match program {
        Program::Pool => settings.pool.listen,
        Program::Tp => settings.tp.listen,
    };
    if address == listen && address.port() != 0 {
        let wrong = format!("the same address as [{}] listen", program.as_str());
        findings.source_problem(number, "rpc_listen", wrong);
    }
    for key in missing_login(source) {
        let wrong = "missing or empty, but rpc_listen is set: whoever may log in must be named";
        findings.source_problem(number, key, wrong);
    }
}

fn check_core_ipc(source: &TemplateSourceSettings, number: usize, findings: &mut Findings) {
    if source.socket.is_some() && source.data_dir.is_some() {
        findings.source_problem(number, "data_dir", "socket is set as well: keep one of the two");
    }
    if source.core_dir().is_none() && source.socket.is_none() {
        findings.source_problem(number, "socket", "missing, and HOME is not set: name the socket here");
    }
}

fn check_core_rpc(source: &TemplateSourceSettings, number: usize, findings: &mut Findings) {
    let has_login = source.rpc_user.is_some() || source.rpc_password.is_some();
    if has_login {
        for key in missing_login(source) {
            findings.source_problem(
                number,
                key,
                "missing or empty: rpc_user and rpc_password belong together",
            );
        }
        for (key, set) in
            [("cookie_file", source.cookie_file.is_some()), ("data_dir", source.data_dir.is_some())]
        {
            if set {
                let wrong = "rpc_user and rpc_password are set, so no cookie is read: keep one of the two";
                findings.source_problem(number, key, wrong);
            }
        }
    } else if source.cookie_file.is_some() && source.data_dir.is_some() {
        findings.source_problem(number, "data_dir", "cookie_file is set as well: keep one of the two");
    } else if source.cookie_path().is_none() {
        let wrong =
            "missing, and HOME is not set: name the cookie's file here, or set rpc_user and rpc_password";
        findings.source_problem(number, "cookie_file", wrong);
    }
    let address = source.rpc_address();
    if !is_this_machine(&address) {
        findings.warnings.push(format!(
            "[template_source] address = \"{address}\" is not on this machine: blocks and the password of JSON-RPC travel \
             unencrypted; lead them through a tunnel unless the line is your own"
        ));
    }
}

fn is_this_machine(address: &str) -> bool {
    address.starts_with("localhost:")
        || address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn check_sv2(source: &TemplateSourceSettings, number: usize, findings: &mut Findings) {
    let Some(url) = &source.url else {
        findings.source_problem(number, "url", "missing: write url = \"stratum2+tcp://HOST:PORT/KEY\"");
        return;
    };
    match source.provider() {
        Err(wrong) => findings.source_problem(number, "url", format!("\"{url}\": {wrong}")),
        Ok(provider) if provider.authority.is_none() && !source.any_authority => {
            let wrong = "no authority key after the port: write it as /KEY; or, if you trust the line and whoever answers, \
                         set any_authority = true";
            findings.source_problem(number, "url", wrong);
        }
        Ok(provider) if provider.authority.is_some() && source.any_authority => {
            let wrong = "true, but url has an authority key, which is checked: keep one of the two";
            findings.source_problem(number, "any_authority", wrong);
        }
        Ok(_) => {}
    }
}

fn check_synthetic(settings: &Settings, number: usize, findings: &mut Findings) {
    if settings.template_source.len() > 1 {
        let wrong = "no block can be found on work without a node, so it is no replacement for another source: keep one of the two";
        findings.source_problem(number, "kind", wrong);
    }
    findings.warnings.push(
        "[template_source] kind = \"synthetic\": the work is for measurements, no block can come of it and nobody is paid"
            .to_owned(),
    );
}

/// What is missing of user and password.
fn missing_login(source: &TemplateSourceSettings) -> impl Iterator<Item = &'static str> {
    [
        ("rpc_user", source.rpc_user.as_ref().map(String::len)),
        ("rpc_password", source.rpc_password.as_ref().map(|secret| secret.0.len())),
    ]
    .into_iter()
    .filter_map(|(key, len)| len.is_none_or(|len| len == 0).then_some(key))
}

/// Directories that are written belong to one part each.
fn check_directories(settings: &Settings, findings: &mut Findings) {
    let embedded = settings.template_source.iter().filter(|source| source.kind == SourceKind::Embedded);
    let dirs: Vec<PathBuf> = embedded.map(TemplateSourceSettings::embedded_dir).collect();
    if dirs.contains(&settings.journal.dir) {
        let wrong = "the same directory as [template_source] data_dir: give the journal its own";
        findings.problem("journal", "dir", wrong);
    }
}
