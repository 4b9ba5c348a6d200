//! The table of what the specification demands, requirements.toml, is whole, and the tests that it names are there.
//!
//! That those tests pass is for themselves to show; this one shows that no requirement has lost its own. README.md beside
//! is the same table to read: `ADIT_WRITE=1 cargo test -p adit-tests --test conformance` writes it.

mod source;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use adit_proto::distribution::server::TransactionsError;
use adit_proto::mining::server::{ChannelError, ShareError};
use table::{Requirement, Requirements};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn requirements() -> Requirements {
    table::parse(include_str!("requirements.toml"))
}

#[test]
fn ids_are_unique() {
    let requirements = requirements();
    let mut ids = BTreeSet::new();
    for requirement in requirements.all() {
        assert!(ids.insert(&requirement.id), "{} is there twice", requirement.id);
    }
    let mut numbers = BTreeSet::new();
    for section in &requirements.sections {
        assert!(numbers.insert(&section.number), "section {} is there twice", section.number);
    }
}

#[test]
fn every_statement_has_its_row() {
    for section in requirements().sections {
        assert_eq!(section.requirements.len(), section.statements, "section {}", section.number);
    }
}

#[test]
fn every_requirement_on_a_role_that_exists_has_a_test() {
    for requirement in requirements().all() {
        let id = &requirement.id;
        if requirement.binds_a_role_here() {
            assert!(!requirement.tests.is_empty(), "{id}: no test");
            assert!(requirement.why.is_none(), "{id}: tested, and yet it says why not");
        } else {
            assert!(requirement.tests.is_empty(), "{id}: a test although no role here is bound");
            assert!(requirement.why.is_some(), "{id}: neither tests nor why there are none");
        }
    }
}

#[test]
fn every_test_that_is_named_is_there_and_runs() {
    let requirements = requirements();
    let mut sources = BTreeMap::new();
    let mut faults = String::new();
    for requirement in requirements.all() {
        for (file, function) in &requirement.tests {
            let source = sources.entry(file).or_insert_with(|| source::blank(&read(file)));
            if let Some(fault) = source::fault(source, function) {
                writeln!(faults, "{}: {file}, {function}: {fault}", requirement.id)
                    .expect("a string takes all");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn the_scanner_is_not_deceived() {
    let source = source::blank(
        r###"
        #[test]
        fn runs() { let quote = '"'; let lifetime: &'static str = "fn no(\""; }
        // #[test] fn commented() {}
        /* /* */ #[test] fn nested() {} */
        const TEXT: &str = r#"#[test] fn text() { " }"#;
        fn helper() {}
        #[test]
        #[ignore = "why"]
        fn ignored() {}
        #[test]
        #[cfg(any())]
        fn never() {}
        proptest! {
            /// Text.
            #[test]
            fn holds(x in 0..3) {}
        }
        "###,
    );
    for (function, good) in [
        ("runs", true),
        ("holds", true),
        ("commented", false),
        ("nested", false),
        ("text", false),
        ("helper", false),
        ("ignored", false),
        ("never", false),
        ("absent", false),
    ] {
        assert_eq!(source::fault(&source, function).is_none(), good, "{function}");
    }
}

#[test]
fn the_readable_table_is_up_to_date() {
    let path = root().join("tests/conformance/README.md");
    let expected = render(&requirements());
    if std::env::var_os("ADIT_WRITE").is_some() {
        std::fs::write(&path, &expected).expect("README.md can be written");
    }
    let found = std::fs::read_to_string(&path).expect("README.md is there");
    assert!(found == expected, "README.md differs from requirements.toml; ADIT_WRITE=1 writes it anew");
}

fn render(requirements: &Requirements) -> String {
    let (mut tested, mut other) = (0, 0);
    for requirement in requirements.all() {
        *(if requirement.tests.is_empty() { &mut other } else { &mut tested }) += 1;
    }
    let mut page = format!(
        "# Conformance\n\n\
         What the Stratum V2 specification demands, and which tests show that Adit keeps it. Written from requirements.toml by \
         main.rs; do not edit.\n\n\
         Specification: {}, commit {} of {}. Of {} binding statements in its chapters 3 to 5 and 7 and its extensions 0x0001 \
         and 0x0002, {tested} bind a server or a client and are tested; {other} bind other roles, and say so.\n",
        requirements.repository,
        &requirements.commit[..10],
        requirements.date,
        tested + other,
    );
    for section in &requirements.sections {
        page.push_str(&format!(
            "\n## {} {}\n\n| id | level | binds | requirement | shown by |\n| - | - | - | - | - |\n",
            section.number, section.title
        ));
        for row in &section.requirements {
            page.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                row.id,
                row.level,
                row.binds.join(", "),
                row.text,
                shown_by(row)
            ));
        }
    }
    page
}

fn shown_by(row: &Requirement) -> String {
    let mut files: Vec<(&str, Vec<&str>)> = Vec::new();
    for (file, function) in &row.tests {
        match files.iter_mut().find(|(known, _)| known == file) {
            Some((_, functions)) => functions.push(function),
            None => files.push((file, vec![function])),
        }
    }
    let tests: Vec<String> =
        files.iter().map(|(file, functions)| format!("{file}: {}", functions.join(", "))).collect();
    row.why.clone().unwrap_or_else(|| tests.join("; "))
}

/// Every code that this program sends, beside those that are listed where they are sent.
const OTHER_CODES: [&str; 4] =
    ["unsupported-protocol", "protocol-version-mismatch", "unsupported-feature-flags", "jd-not-supported"];

#[test]
fn error_codes_are_documented() {
    let page = read("docs/error-codes.md");
    let channel_errors = [
        ChannelError::InvalidChannelId,
        ChannelError::InvalidNominalHashrate,
        ChannelError::MaxTargetOutOfRange,
        ChannelError::MinExtranonceSizeTooLarge,
        ChannelError::ChannelCapacityExhausted,
        ChannelError::ExtendedChannelsNotSupported,
    ];
    let codes = ShareError::ALL.iter().map(|error| error.code());
    let codes = codes.chain(channel_errors.iter().map(|error| error.code()));
    let codes = codes.chain(TransactionsError::ALL.iter().map(|error| error.code())).chain(OTHER_CODES);
    for code in codes {
        assert!(code.bytes().all(|byte| byte.is_ascii_graphic()), "{code:?} is not printable");
        assert!(page.contains(&format!("| `{code}` |")), "docs/error-codes.md does not explain {code}");
    }
}
