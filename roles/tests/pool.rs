//! The real program as a process: `adit pool` from start to stop.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_codec::noise::{ACT2_LEN, EphemeralKey, Initiator};
use adit_roles::keys;
use adit_roles::utc::Utc;
use program::{Program, adit, output};

const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration with an authority key on the machine.
fn configure(dir: &Path, more: &str) -> AuthorityPublicKey {
    let public = output(dir, &["key", "generate", "--out", "authority.key"]);
    let text = format!(
        "[pool]\nlisten = \"127.0.0.1:0\"\npayout = \"raw(51)\"\n[authority]\nsecret_key_file = \"authority.key\"\n{more}"
    );
    fs::write(dir.join("pool.toml"), text).unwrap();
    public.trim().parse().unwrap()
}

fn start(dir: &Path) -> (Program, SocketAddr) {
    let mut program = Program::start(dir, &["pool", "--config", "pool.toml"]);
    let line = program.wait_for("listening address=", PATIENCE);
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    (program, address)
}

/// A handshake as a miner makes it; it fails unless the authority vouches for the pool.
fn shake_hands(address: SocketAddr, authority: &AuthorityPublicKey) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (initiator, act1) = Initiator::new(EphemeralKey::new(&[7; 64]).unwrap());
    stream.write_all(&act1).map_err(|error| error.to_string())?;
    let mut act2 = [0; ACT2_LEN];
    stream.read_exact(&mut act2).map_err(|error| error.to_string())?;
    let now = Utc::now().to_u32();
    initiator.finish(&act2, Some(authority), now, 10).map(|_| stream).map_err(|error| error.to_string())
}

#[test]
fn a_wrong_configuration_ends_with_status_2_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    // A free port that the pool would take.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    configure(dir.path(), "[limits]\nconnections_max = 0\n");
    let text = fs::read_to_string(dir.path().join("pool.toml")).unwrap();
    fs::write(dir.path().join("pool.toml"), text.replace("127.0.0.1:0", &address.to_string())).unwrap();
    let ended = adit(dir.path(), &["pool", "--config", "pool.toml"]);
    assert_eq!(ended.status.code(), Some(2));
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("pool.toml:7: [limits] connections_max = 0: out of range"), "{error}");
    assert!(error.contains("nothing was started"), "{error}");
    assert!(!dir.path().join("node").exists() && !dir.path().join("journal").exists());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn sigterm_stops_a_pool_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let authority = configure(dir.path(), "[log]\nstatus_interval_s = 1\n");
    let (mut program, address) = start(dir.path());
    shake_hands(address, &authority).unwrap();
    let stranger = keys::generate_authority().public_key();
    assert!(shake_hands(address, &stranger).is_err());
    program.wait_for("status connections=", PATIENCE);
    // One who stays and one who never says anything must not hold the stop up.
    let _silent = TcpStream::connect(address).unwrap();
    let begun = Instant::now();
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let log = program.log();
    assert!(log.contains(&format!("point miners at stratum2+tcp://{address}/{authority}")), "{log}");
    assert!(log.contains("stopped") && !log.contains("ERROR") && !log.contains("WARN"), "{log}");
    assert!(TcpStream::connect(address).is_err());
    // The directories are free again, and the chain is there.
    let (mut again, _) = start(dir.path());
    again.signal("INT");
    assert_eq!(again.wait(PATIENCE), Some(0), "{}", again.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let authority = configure(dir.path(), "[limits]\nclose_timeout_s = 50\n");
    let text = fs::read_to_string(dir.path().join("pool.toml")).unwrap();
    fs::write(
        dir.path().join("pool.toml"),
        text.replace("[authority]", "shutdown_grace_s = 50\n[authority]"),
    )
    .unwrap();
    let (mut program, address) = start(dir.path());
    // It neither reads nor closes: the pool waits for it.
    let _lazy = shake_hands(address, &authority).unwrap();
    program.signal("INT");
    program.wait_for("a second signal ends at once", PATIENCE);
    // Not the same wish any more.
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    program.signal("INT");
    assert_eq!(program.wait(PATIENCE), Some(1), "{}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// `timeout`, for one, sends its signal to the process and to its group.
#[test]
fn a_stop_that_is_sent_twice_in_one_moment_is_one_stop() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let (mut program, _) = start(dir.path());
    program.signal("INT");
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
    assert!(program.log().contains(" stopped "), "{}", program.log());
}

#[test]
fn a_second_pool_on_the_same_directories_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let (mut program, _) = start(dir.path());
    let second = adit(dir.path(), &["pool", "--config", "pool.toml"]);
    assert_eq!(second.status.code(), Some(1), "{}", String::from_utf8_lossy(&second.stderr));
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = fs::read_to_string(dir.path().join("pool.toml")).unwrap();
    fs::write(dir.path().join("pool.toml"), text.replace("127.0.0.1:0", &address)).unwrap();
    let ended = adit(dir.path(), &["pool", "--config", "pool.toml"]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("adit: cannot listen on {address}")), "{error}");
}

#[test]
fn a_certificate_made_off_line_is_renewed_without_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (vault, server) = (home.path().join("vault"), home.path().join("server"));
    fs::create_dir(&vault).unwrap();
    fs::create_dir(&server).unwrap();
    let authority = output(&vault, &["key", "generate", "--out", "authority.key"]).trim().to_owned();
    let static_key =
        output(&server, &["key", "generate", "--static", "--out", "static.key"]).trim().to_owned();
    let certify = |days: &str| {
        output(
            &vault,
            &["key", "certify", "--authority", "authority.key", "--static-key", &static_key, "--days", days],
        )
    };
    fs::write(server.join("pool.cert"), certify("60")).unwrap();
    fs::write(
        server.join("pool.toml"),
        format!(
            "[pool]\nlisten = \"127.0.0.1:0\"\npayout = \"raw(51)\"\n[authority]\npublic_key = \"{authority}\"\nstatic_key_file = \"static.key\"\ncertificate_file = \"pool.cert\"\n"
        ),
    )
    .unwrap();
    let public: AuthorityPublicKey = authority.parse().unwrap();
    let (mut program, address) = start(&server);
    shake_hands(address, &public).unwrap();
    // A damaged file is refused and the good certificate stays.
    fs::write(server.join("pool.cert"), "damaged").unwrap();
    program.signal("HUP");
    program.wait_for("certificate file not used", PATIENCE);
    shake_hands(address, &public).unwrap();
    fs::write(server.join("pool.new"), certify("90")).unwrap();
    fs::rename(server.join("pool.new"), server.join("pool.cert")).unwrap();
    program.signal("HUP");
    program.wait_for("new certificate in use", PATIENCE);
    shake_hands(address, &public).unwrap();
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
}

#[test]
fn an_expired_certificate_is_never_shown() {
    const VALID_S: u32 = 10;
    let dir = tempfile::tempdir().unwrap();
    let authority = keys::generate_authority();
    let public = authority.public_key();
    let static_secret = keys::StaticSecret::generate();
    keys::files::create_secret(&dir.path().join("static.key"), &keys::static_text(&static_secret).unwrap())
        .unwrap();
    let certify = |seconds: u32| {
        let static_key = *static_secret.key_pair().unwrap().public_key();
        let now = Utc::now().to_u32();
        let certificate = authority.certify(&static_key, now - 10, now + seconds, &[1; 32]);
        let file = keys::CertificateFile { authority: public, static_key, certificate };
        fs::write(dir.path().join("new.cert"), file.to_text()).unwrap();
        fs::rename(dir.path().join("new.cert"), dir.path().join("pool.cert")).unwrap();
    };
    fs::write(
        dir.path().join("pool.toml"),
        format!(
            "[pool]\nlisten = \"127.0.0.1:0\"\npayout = \"raw(51)\"\n[authority]\npublic_key = \"{public}\"\n\
             static_key_file = \"static.key\"\ncertificate_file = \"pool.cert\"\n"
        ),
    )
    .unwrap();
    certify(VALID_S);
    let (mut program, address) = start(dir.path());
    program.wait_for("certificate expires in", PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    while shake_hands(address, &public).is_ok() {
        assert!(Instant::now() < deadline, "an expired certificate is shown");
        std::thread::sleep(Duration::from_millis(100));
    }
    program.wait_for("nobody can connect until it is renewed", PATIENCE);
    program.wait_for("miners are refused", PATIENCE);
    certify(1_000);
    program.signal("HUP");
    program.wait_for("new certificate in use", PATIENCE);
    shake_hands(address, &public).unwrap();
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
}

#[test]
fn the_log_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), "[log]\nformat = \"json\"\n");
    let mut program = Program::start(dir.path(), &["pool", "--config", "pool.toml"]);
    program.wait_for("point miners at", PATIENCE);
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
    for line in program.log().lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
    }
}
