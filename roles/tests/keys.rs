//! The key commands of the real program.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

fn adit(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit")).args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn succeed(dir: &Path, arguments: &[&str]) -> String {
    let output = adit(dir, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn refuse(dir: &Path, arguments: &[&str]) -> String {
    let output = adit(dir, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stdout(&output));
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_key_is_made_shown_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let public = succeed(dir, &["key", "generate", "--out", "authority.key"]);
    assert!(public.trim().parse::<adit_codec::keys::AuthorityPublicKey>().is_ok(), "{public}");
    assert_eq!(mode(&dir.join("authority.key")), 0o600);
    let before = fs::read_to_string(dir.join("authority.key")).unwrap();
    let shown = succeed(dir, &["key", "show", "authority.key"]);
    assert!(shown.contains(public.trim()));
    let secret = before.lines().last().unwrap().split('"').nth(1).unwrap();
    assert!(!shown.contains(secret));
    let error = refuse(dir, &["key", "generate", "--out", "authority.key"]);
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(fs::read_to_string(dir.join("authority.key")).unwrap(), before);
    let printed = succeed(dir, &["key", "generate"]);
    assert!(printed.contains("authority_secret_key = \""));
}

#[test]
fn the_reference_implementations_keys_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("sri.key"), SECRET).unwrap();
    let error = refuse(dir, &["key", "show", "sri.key"]);
    assert!(error.contains("chmod 600 sri.key"), "{error}");
    fs::set_permissions(dir.join("sri.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(succeed(dir, &["key", "show", "sri.key"]).contains(PUBLIC));
}

#[test]
fn a_certificate_is_made_off_line_and_used_on_the_server() {
    let home = tempfile::tempdir().unwrap();
    let (vault, server) = (home.path().join("vault"), home.path().join("server"));
    fs::create_dir(&vault).unwrap();
    fs::create_dir(&server).unwrap();
    let authority = succeed(&vault, &["key", "generate", "--out", "authority.key"]).trim().to_owned();

    let static_key =
        succeed(&server, &["key", "generate", "--static", "--out", "static.key"]).trim().to_owned();
    assert_eq!(mode(&server.join("static.key")), 0o600);
    assert!(succeed(&server, &["key", "show", "static.key"]).contains(&static_key));

    succeed(
        &vault,
        &[
            "key",
            "certify",
            "--authority",
            "authority.key",
            "--static-key",
            &static_key,
            "--days",
            "30",
            "--out",
            "pool.cert",
        ],
    );
    fs::copy(vault.join("pool.cert"), server.join("pool.cert")).unwrap();
    let shown = succeed(&server, &["key", "show", "pool.cert"]);
    assert!(
        shown.contains(&static_key)
            && shown.contains(&authority)
            && shown.contains("valid for another 29 days")
            || shown.contains("valid for another 30 days"),
        "{shown}"
    );

    fs::write(
        server.join("pool.toml"),
        format!("[pool]\npayout = \"raw(51)\"\npublic_host = \"pool.example.org\"\n[authority]\npublic_key = \"{authority}\"\nstatic_key_file = \"static.key\"\ncertificate_file = \"pool.cert\"\n"),
    )
    .unwrap();
    let checked = succeed(&server, &["check", "pool.toml"]);
    assert!(checked.contains(&format!("stratum2+tcp://pool.example.org:34254/{authority}")), "{checked}");
    assert!(checked.contains("the certificate in pool.cert is valid to"), "{checked}");

    // Renewed from the old certificate alone; one day is warned of at once.
    let renewed = succeed(
        &vault,
        &["key", "certify", "--authority", "authority.key", "--renew", "pool.cert", "--days", "1"],
    );
    fs::write(server.join("pool.cert"), renewed).unwrap();
    succeed(&server, &["check", "pool.toml"]);

    // A certificate for another static key, and one by another authority.
    fs::remove_file(server.join("static.key")).unwrap();
    succeed(&server, &["key", "generate", "--static", "--out", "static.key"]);
    let error = refuse(&server, &["check", "pool.toml"]);
    assert!(
        error.contains("pool.toml:7: [authority] certificate_file: pool.cert: it certifies the static key"),
        "{error}"
    );
    let other = succeed(&vault, &["key", "generate", "--out", "other.key"]).trim().to_owned();
    let text = fs::read_to_string(server.join("pool.toml")).unwrap().replace(&authority, &other);
    fs::write(server.join("pool.toml"), text).unwrap();
    assert!(refuse(&server, &["check", "pool.toml"]).contains("signed by"));
}

#[test]
fn wrong_files_and_arguments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    succeed(dir, &["key", "generate", "--static", "--out", "static.key"]);
    succeed(dir, &["key", "generate", "--out", "authority.key"]);
    let error =
        refuse(dir, &["key", "certify", "--authority", "static.key", "--static-key", &"0".repeat(64)]);
    assert!(error.contains("this is a pool's static key, expected an authority's secret key"), "{error}");
    let error = refuse(dir, &["key", "certify", "--authority", "authority.key", "--static-key", PUBLIC]);
    assert!(error.contains("an authority's public key"), "{error}");
    for arguments in [
        &["key", "certify", "--authority", "authority.key"][..],
        &["key", "certify", "--authority", "authority.key", "--static-key", "00", "--days", "0"],
        &["key", "show", "none"],
        &["key"],
        &["nothing"],
        &[],
    ] {
        assert!(!refuse(dir, arguments).is_empty());
    }
}

#[test]
fn version_help_and_documents_go_to_stdout() {
    let dir = tempfile::tempdir().unwrap();
    assert!(succeed(dir.path(), &["--version"]).starts_with("adit 0."));
    assert!(succeed(dir.path(), &["--help"]).contains("key"));
    assert!(succeed(dir.path(), &["config", "example"]).contains("[pool]"));
    assert!(succeed(dir.path(), &["config", "reference"]).starts_with("# Configuration"));
}
