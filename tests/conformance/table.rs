//! The table of requirements as it is written in requirements.toml. Anything out of place in it panics with its line of
//! thought: the file is part of this test.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Roles that exist now: who binds one of them must name tests.
pub(crate) const ROLES_HERE: [&str; 2] = ["server", "client"];
const ROLES_ELSEWHERE: [&str; 4] = ["proxy", "job declarator", "extension author", "operator"];
const LEVELS: [&str; 9] =
    ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "must", "should", "required", "mandatory", "has to"];

/// The whole file.
pub(crate) struct Requirements {
    pub(crate) repository: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) sections: Vec<Section>,
}

/// A section of the specification.
pub(crate) struct Section {
    pub(crate) number: String,
    pub(crate) title: String,
    /// Binding statements, counted by hand.
    pub(crate) statements: usize,
    pub(crate) requirements: Vec<Requirement>,
}

/// One binding statement.
pub(crate) struct Requirement {
    pub(crate) id: String,
    pub(crate) level: String,
    pub(crate) binds: Vec<String>,
    pub(crate) text: String,
    /// Files below the repository's root, and functions in them.
    pub(crate) tests: Vec<(String, String)>,
    /// Why there are no tests.
    pub(crate) why: Option<String>,
}

impl Requirement {
    pub(crate) fn binds_a_role_here(&self) -> bool {
        self.binds.iter().any(|role| ROLES_HERE.contains(&role.as_str()))
    }
}

impl Requirements {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Requirement> {
        self.sections.iter().flat_map(|section| &section.requirements)
    }
}

pub(crate) fn parse(text: &str) -> Requirements {
    let mut file: Table = text.parse().unwrap_or_else(|error| panic!("requirements.toml: {error}"));
    let files: BTreeMap<String, String> = take_table(&mut file, "files")
        .into_iter()
        .map(|(name, path)| (name, string(path, "files")))
        .collect();
    let mut specification = take_table(&mut file, "specification");
    let sections =
        take_tables(&mut file, "section").into_iter().map(|section| parse_section(section, &files)).collect();
    let requirements = Requirements {
        repository: take_string(&mut specification, "repository"),
        commit: take_string(&mut specification, "commit"),
        date: take_string(&mut specification, "date"),
        sections,
    };
    assert_empty(&specification, "specification");
    assert_empty(&file, "the file");
    for name in files.keys() {
        let path = &files[name];
        let is_used =
            requirements.all().flat_map(|requirement| &requirement.tests).any(|(file, _)| file == path);
        assert!(is_used, "files.{name}: no requirement names it");
    }
    requirements
}

fn parse_section(mut section: Table, files: &BTreeMap<String, String>) -> Section {
    let number = take_string(&mut section, "number");
    let requirements = take_tables(&mut section, "requirement")
        .into_iter()
        .map(|requirement| parse_requirement(requirement, &number, files))
        .collect();
    let statements = match section.remove("statements") {
        Some(Value::Integer(count)) => usize::try_from(count).expect("a count"),
        other => panic!("section {number}: statements is {other:?}"),
    };
    let title = take_string(&mut section, "title");
    assert_empty(&section, &number);
    Section { number, title, statements, requirements }
}

fn parse_requirement(mut row: Table, section: &str, files: &BTreeMap<String, String>) -> Requirement {
    let id = take_string(&mut row, "id");
    let name = id.strip_prefix(section).and_then(|rest| rest.strip_prefix('-'));
    let name = name.unwrap_or_else(|| panic!("{id}: an id begins with its section, {section}"));
    let is_stable =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    assert!(!name.is_empty() && name.chars().all(is_stable), "{id}: lower-case words and hyphens");
    let requirement = Requirement {
        level: take_string(&mut row, "level"),
        binds: take_strings(&mut row, "binds"),
        text: take_string(&mut row, "text"),
        tests: take_strings(&mut row, "tests").iter().map(|test| parse_test(test, &id, files)).collect(),
        why: row.contains_key("why").then(|| take_string(&mut row, "why")),
        id,
    };
    let id = &requirement.id;
    assert_empty(&row, id);
    assert!(LEVELS.contains(&requirement.level.as_str()), "{id}: level {:?}", requirement.level);
    assert!(!requirement.binds.is_empty(), "{id}: binds nobody");
    for role in &requirement.binds {
        let is_known = ROLES_HERE.contains(&role.as_str()) || ROLES_ELSEWHERE.contains(&role.as_str());
        assert!(is_known, "{id}: no role {role:?}");
    }
    assert!(requirement.text.len() > 10 && requirement.text.ends_with('.'), "{id}: text is a sentence");
    requirement
}

fn parse_test(test: &str, id: &str, files: &BTreeMap<String, String>) -> (String, String) {
    let (file, function) =
        test.split_once("::").unwrap_or_else(|| panic!("{id}: {test} is no file::function"));
    let path = files.get(file).unwrap_or_else(|| panic!("{id}: files has no {file}"));
    (path.clone(), function.to_owned())
}

fn assert_empty(table: &Table, place: &str) {
    assert!(table.is_empty(), "{place}: unknown keys {:?}", table.keys().collect::<Vec<_>>());
}

fn string(value: Value, place: &str) -> String {
    match value {
        Value::String(text) => text,
        other => panic!("{place}: {other} is no string"),
    }
}

fn take_string(table: &mut Table, key: &str) -> String {
    string(table.remove(key).unwrap_or_else(|| panic!("no {key} in {table}")), key)
}

/// An empty list where the key is missing.
fn take_strings(table: &mut Table, key: &str) -> Vec<String> {
    match table.remove(key) {
        Some(Value::Array(values)) => values.into_iter().map(|value| string(value, key)).collect(),
        None => Vec::new(),
        Some(other) => panic!("{key}: {other} is no list"),
    }
}

fn take_table(table: &mut Table, key: &str) -> Table {
    match table.remove(key) {
        Some(Value::Table(inner)) => inner,
        other => panic!("{key} is {other:?}"),
    }
}

fn take_tables(table: &mut Table, key: &str) -> Vec<Table> {
    let Some(Value::Array(values)) = table.remove(key) else { panic!("no [[{key}]]") };
    values
        .into_iter()
        .map(|value| match value {
            Value::Table(inner) => inner,
            other => panic!("{key}: {other} is no table"),
        })
        .collect()
}
