//! What a person sees of a wrong configuration, and that example and reference say what the code does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use adit_roles::config::{self, Chain, PoolConfig, Presence, Program, Settings, TpConfig, reference};

/// An authority key's file beside the configuration.
const AUTHORITY: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("authority.key");
        fs::write(&key, AUTHORITY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The messages as they are printed, with the file's name alone.
    fn errors(&self, text: &str) -> String {
        let file = self.path().join("pool.toml");
        fs::write(&file, text).unwrap();
        let Err(error) = PoolConfig::load(&file) else { panic!("this should be refused:\n{text}") };
        error.to_string().replace(&format!("{}/", self.path().display()), "")
    }

    fn load(&self, text: &str) -> PoolConfig {
        let file = self.path().join("pool.toml");
        fs::write(&file, text).unwrap();
        PoolConfig::load(&file).unwrap_or_else(|error| panic!("{error}"))
    }
}

const SOUND: &str = "[pool]\npayout = \"raw(51)\"\n[authority]\nsecret_key_file = \"authority.key\"\n";

/// The sound configuration with lines added to a section of their own.
fn with(lines: &str) -> String {
    format!("{SOUND}{lines}\n")
}

#[test]
fn an_unknown_key_names_line_and_nearest_key() {
    let place = Place::new();
    assert_eq!(
        place.errors(&with("[vardiff]\nshares_per_minut = 6")),
        "pool.toml:6: [vardiff] shares_per_minut: no such key; did you mean shares_per_minute?"
    );
    assert_eq!(
        place.errors(&with("[varidff]")),
        "pool.toml:5: [varidff]: no such section; did you mean [vardiff]?"
    );
    assert_eq!(
        place.errors(&with("[journal]\nzzz = 1")),
        "pool.toml:6: [journal] zzz: no such key; [journal] has dir"
    );
}

#[test]
fn a_wrong_type_names_what_was_found_and_what_is_allowed() {
    let place = Place::new();
    assert_eq!(
        place.errors(&with("[limits]\nconnections_max = \"many\"")),
        "pool.toml:6: [limits] connections_max = \"many\": a string, expected a whole number from 1 to 10000000"
    );
    assert_eq!(
        place.errors(&with("[jobs]\nversion_rolling = 1")),
        "pool.toml:6: [jobs] version_rolling = 1: a whole number, expected true or false"
    );
    assert_eq!(
        place.errors(&with("[log]\nlevel = \"loud\"")),
        "pool.toml:6: [log] level = \"loud\": not accepted, expected one of \"error\", \"warn\", \"info\", \"debug\", \"trace\""
    );
}

#[test]
fn out_of_range_names_the_range() {
    let place = Place::new();
    assert_eq!(
        place.errors(&with("[vardiff]\nshares_per_minute = 0")),
        "pool.toml:6: [vardiff] shares_per_minute = 0: out of range, expected a number from 0.01 to 1e9"
    );
    assert_eq!(
        place.errors(&with("[authority.x]")),
        "pool.toml:5: [authority] x: no such key; [authority] has public_key, secret_key_file, secret_key, static_key_file, certificate_file, certificate_validity_s"
    );
}

#[test]
fn a_payout_of_another_chain_is_refused() {
    let place = Place::new();
    let text = SOUND.replace("raw(51)", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4");
    assert_eq!(
        place.errors(&text),
        "pool.toml:2: [pool] payout: \"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\": an address of the main chain, but the pool mines regtest; give an address of regtest (bcrt1...), or a script as raw(...)"
    );
}

#[test]
fn missing_sections_say_what_belongs_there() {
    let place = Place::new();
    assert_eq!(
        place.errors("[authority]\nsecret_key_file = \"authority.key\"\n"),
        "pool.toml: [pool] payout is missing, expected a string of at most 4096 bytes; for example payout = \"addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)\""
    );
    let error = place.errors("[pool]\npayout = \"raw(51)\"\n");
    assert!(
        error.starts_with(
            "pool.toml: [authority] secret_key_file is missing: make a key with `adit key generate"
        ),
        "{error}"
    );
    let error = place.errors("");
    assert!(error.contains("[pool] payout is missing"), "{error}");
}

#[test]
fn every_mistake_is_listed_in_order_of_lines() {
    let place = Place::new();
    let errors = place.errors(
        "[limits]\nconnections_max = -1\n[pool]\nlisten = \"here\"\nnode_id = 70000\npyout = \"raw(51)\"\n[log]\nformat = 3\n",
    );
    let lines: Vec<_> = errors.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        lines,
        ["pool.toml:2:", "pool.toml:4:", "pool.toml:5:", "pool.toml:6:", "pool.toml:8:", "pool.toml:"],
        "{errors}"
    );
}

#[test]
fn keys_must_fit_each_other() {
    let place = Place::new();
    for (lines, expected) in [
        (
            "[limits]\nconnections_max = 10\nconnections_per_address_max = 11",
            "pool.toml:7: [limits] connections_per_address_max: 11 is more than connections_max = 10: lower this or raise that",
        ),
        (
            "[limits]\nidle_timeout_s = 20",
            "pool.toml:6: [limits] idle_timeout_s: 20 is less than [jobs] interval_s = 30: miners that wait for a job would be dropped",
        ),
        (
            "[limits]\nchannels_max = 10000\nfingerprint_slots_max = 70000",
            "pool.toml:7: [limits] fingerprint_slots_max: 70000 is less than 8 for each of channels_max = 10000: raise this to 80000 or lower that",
        ),
        (
            "[template_source]\nrpc_user = \"x\"",
            "pool.toml:6: [template_source] rpc_user: set, but rpc_listen is not: there is no JSON-RPC server to log in to",
        ),
        (
            "[journal]\ndir = \"node\"",
            "pool.toml:6: [journal] dir: the same directory as [template_source] data_dir: give the journal its own",
        ),
    ] {
        assert_eq!(place.errors(&with(lines)), expected);
    }
    let error = place.errors(&with("[engine]\ncpus = [1023]"));
    assert!(error.starts_with("pool.toml:6: [engine] cpus: CPU 1023 is not one of those"), "{error}");
    let error = place.errors(&with("[template_source]\nrpc_listen = \"0.0.0.0:1\""));
    assert!(error.contains("no loopback address") && error.contains("rpc_password: missing"), "{error}");
}

#[test]
fn a_template_source_is_a_section_or_a_list_of_them() {
    let place = Place::new();
    for header in ["[template_source]", "[[template_source]]"] {
        let config = place.load(&with(&format!("{header}\nchain = \"signet\"\nname = \"here\"")));
        assert_eq!(config.settings.source_names(), ["here"]);
        assert_eq!(config.settings.chain(), Chain::Signet);
    }
    let text = with("[[template_source]]\n[[template_source]]\nchain = \"main\"\n[[template_source]]");
    let reading = config::read(&text, Program::Pool);
    assert_eq!(reading.problems, []);
    let chains: Vec<_> = reading.settings.template_source.iter().map(|source| source.chain).collect();
    assert_eq!(chains, [Chain::Regtest, Chain::Main, Chain::Regtest]);
    assert_eq!(reading.lines.of_table("template_source", 1, "chain"), Some(7));

    assert_eq!(
        place.errors(&format!("template_source = []\n{SOUND}")),
        "pool.toml:1: template_source: an empty list; leave it out, or write [[template_source]]"
    );
    assert_eq!(
        place.errors(&format!("template_source = [1]\n{SOUND}")),
        "pool.toml:1: template_source is a list of sections: write [[template_source]] on a line before each"
    );
    assert_eq!(
        place.errors(&with(&"[[template_source]]\n".repeat(9))).lines().next().unwrap(),
        "pool.toml:13: [[template_source]]: number 9, at most 8 are taken"
    );
    assert_eq!(
        place.errors(&with("[[jobs]]")),
        "pool.toml:5: jobs is a section: write [jobs] on a line of its own"
    );
}

#[test]
fn template_sources_keep_to_their_kind_and_to_one_chain() {
    let place = Place::new();
    for (lines, expected) in [
        (
            "[template_source]\nsocket = \"node.sock\"",
            "pool.toml:6: [template_source] socket: no setting of kind \"embedded\": it belongs to \"core-ipc\"",
        ),
        (
            "[template_source]\nchain = \"main\"",
            "pool.toml:6: [template_source] chain: the embedded node has no network, so it cannot follow main: use \"regtest\" or \"signet\", or another kind",
        ),
        (
            "[template_source]\ncokie_file = \"x\"",
            "pool.toml:6: [template_source] cokie_file: no such key; did you mean cookie_file?",
        ),
    ] {
        assert_eq!(place.errors(&with(lines)), expected);
    }
    let errors = place.errors(&with(
        "[[template_source]]\nname = \"a\"\n[[template_source]]\nname = \"a\"\nchain = \"signet\"\nrpc_user = \"x\"",
    ));
    for expected in [
        "pool.toml:8: [[template_source]] number 2: name: \"a\" is the name of an earlier source",
        "pool.toml:9: [[template_source]] number 2: chain: signet, but the first source is on regtest",
        "pool.toml:10: [[template_source]] number 2: rpc_user: set, but rpc_listen is not",
        "pool.toml: [[template_source]] number 2: kind: a second embedded node",
    ] {
        assert!(errors.contains(expected), "{expected} is not in\n{errors}");
    }
    // A source without a node would take over when the real one is away, and every share would be for nothing.
    let errors = place
        .errors(&with("[[template_source]]\nkind = \"core-rpc\"\n[[template_source]]\nkind = \"synthetic\""));
    assert!(errors.contains("number 2: kind: no block can be found on work without a node"), "{errors}");
}

#[test]
fn sources_of_each_kind_say_what_they_lack() {
    let place = Place::new();
    for (kind, lines, expected) in [
        ("sv2", "", "url: missing: write url = "),
        ("sv2", "url = \"http://a:1\"", "url: \"http://a:1\": the URL does not begin with stratum2+tcp://"),
        ("sv2", "url = \"stratum2+tcp://a:1\"", "url: no authority key after the port"),
        ("core-ipc", "socket = \"a\"\ndata_dir = \"b\"", "data_dir: socket is set as well"),
        ("core-ipc", "url = \"a\"", "url: no setting of kind \"core-ipc\": it belongs to \"sv2\""),
        ("core-rpc", "rpc_user = \"a\"", "rpc_password: missing or empty"),
        (
            "core-rpc",
            "rpc_user = \"a\"\nrpc_password = \"b\"\ncookie_file = \"c\"",
            "cookie_file: rpc_user and",
        ),
        ("core-rpc", "address = \"a\"", "address = \"a\": not accepted, expected a string \"host:port\""),
    ] {
        let errors = place.errors(&with(&format!("[template_source]\nkind = \"{kind}\"\n{lines}")));
        assert!(errors.contains(&format!("[template_source] {expected}")), "{kind} {lines}: {errors}");
    }
    let config = place.load(&with(
        "[[template_source]]\nkind = \"core-ipc\"\nsocket = \"node.sock\"\n\
         [[template_source]]\nkind = \"core-rpc\"\naddress = \"node.example.org:1\"\ncookie_file = \"cookie\"\n\
         [[template_source]]\nkind = \"sv2\"\nurl = \"stratum2+tcp://a:1\"\nany_authority = true",
    ));
    assert_eq!(config.settings.source_names(), ["core-ipc", "core-rpc", "sv2"]);
    assert_eq!(config.settings.template_source[0].socket_path(), Some(place.path().join("node.sock")));
    assert!(
        config.warnings.iter().any(|warning| warning.contains("not on this machine")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn what_is_allowed_but_unwise_is_warned_of() {
    let config = Place::new().load(&with("[vardiff]\nshares_per_minute = 6000"));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("shares_per_tip_max = 100000 are refused"), "{:?}", config.warnings);
    assert!(Place::new().load(SOUND).warnings.is_empty());
}

#[test]
fn defaults_give_way_to_what_is_set() {
    let config = Place::new().load(&with("[limits]\nconnections_max = 10\nidle_timeout_s = 40"));
    assert_eq!(config.settings.limits.connections_per_address_max, 10);
    assert_eq!(config.settings.limits.first_channel_timeout_s, 40.0);
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let place = Place::new();
    fs::set_permissions(place.path().join("authority.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        place.errors(SOUND),
        "pool.toml:4: [authority] secret_key_file: authority.key holds a secret, but others than its owner may use it (mode 0644): run `chmod 600 authority.key`; if others could have read it, make a new key"
    );
    let inline = SOUND
        .replace("secret_key_file = \"authority.key\"", &format!("secret_key = \"{}\"", AUTHORITY.trim()));
    let file = place.path().join("pool.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let error = place.errors(&inline);
    assert!(error.starts_with("pool.toml:4: [authority] secret_key: a secret, but others"), "{error}");
    assert!(!error.contains(AUTHORITY.trim()));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    place.load(&inline);
}

#[test]
fn key_files_are_told_apart() {
    let place = Place::new();
    let public = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
    assert_eq!(place.load(SOUND).authority.public_key().to_string(), public);
    place.load(&with(&format!("public_key = \"{public}\"")));
    let other = adit_roles::keys::generate_authority().public_key();
    let error = place.errors(&with(&format!("public_key = \"{other}\"")));
    assert!(error.contains("does not belong to the secret, whose public key is 9auq"), "{error}");
    let error = place.errors(&with("static_key_file = \"authority.key\""));
    assert!(error.contains("this is an authority's secret key, expected a pool's static key"), "{error}");
    let error =
        place.errors(&format!("[pool]\npayout = \"raw(51)\"\n[authority]\npublic_key = \"{public}\"\n"));
    assert!(error.contains("static_key_file and certificate_file missing"), "{error}");
}

#[test]
fn the_reference_is_the_committed_one() {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let committed = fs::read_to_string(committed).unwrap();
    assert!(committed == reference::markdown(), "run `adit config reference > docs/configuration.md`");
}

#[test]
fn the_example_has_every_key_and_says_the_defaults() {
    let place = Place::new();
    for program in Program::ALL {
        let example = reference::example(program);
        let reading = config::read(&example, program);
        assert_eq!(reading.problems, []);
        assert_eq!(config::program_of(&example), program);
        for field in program.fields() {
            let set = reading.lines.of(field.section, field.key).is_some();
            let commented = example.lines().any(|line| line.starts_with(&format!("#{} = ", field.key)));
            assert!(set != commented, "[{}] {}", field.section, field.key);
            let (found, default) =
                ((field.show)(&reading.settings, 0), (field.show)(&Settings::default(), 0));
            if set && field.presence == Presence::Default {
                assert_eq!(found, default, "[{}] {}", field.section, field.key);
            }
        }
        let mut settings = reading.settings;
        settings.pool.payout = String::new();
        settings.authority.secret_key_file = None;
        assert_eq!(settings, Settings::default());
    }
    place.load(&reference::example(Program::Pool));
    let tp = TpConfig::parse(&reference::example(Program::Tp), place.path(), 0o600);
    tp.unwrap_or_else(|problems| panic!("{problems:?}"));
}

#[test]
fn the_examples_of_optional_keys_are_sound_too() {
    for program in Program::ALL {
        let all: String = reference::example(program)
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let reading = config::read(&all, program);
        assert_eq!(reading.problems, []);
        assert!(program.fields().all(|field| (field.show)(&reading.settings, 0).is_some()));
    }
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let place = Place::new();
    let missing = PoolConfig::load(&place.path().join("none.toml")).err().unwrap().to_string();
    assert!(missing.contains("cannot be read") && missing.contains("adit config example"), "{missing}");
    let big = place.path().join("big.toml");
    fs::write(&big, "#".repeat(1 << 21)).unwrap();
    assert!(PoolConfig::load(&big).err().unwrap().to_string().contains("not a configuration"));
    let error = place.errors("[pool\n");
    assert!(error.starts_with("pool.toml:1: not TOML:"), "{error}");
    let error = place.errors(&format!("{SOUND}[pool]\n"));
    assert!(error.starts_with("pool.toml:5: not TOML:"), "{error}");
}
