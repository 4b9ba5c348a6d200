//! From the text of a file to [`Settings`], with every mistake and its line.
//!
//! Bounds: a file of at most 1 MiB and at most 50 reported mistakes.

use std::collections::BTreeMap;

use toml::de::{DeArray, DeTable, DeValue};

use super::problem::Problem;
use super::setting::Value;
use super::settings::{FIELDS, Field, Presence, Program, SECTIONS, Section, Settings};

/// The longest configuration file, in bytes.
pub(super) const FILE_LEN_MAX: u64 = 1 << 20;
/// Mistakes after which no more are listed.
const PROBLEMS_MAX: usize = 50;

/// Which line sets which key.
#[derive(Clone, Debug, Default)]
pub struct Lines(BTreeMap<(&'static str, usize, &'static str), usize>);

impl Lines {
    /// The line of a key in the first of a section's tables; none if the file does not set it.
    pub fn of(&self, section: &'static str, key: &'static str) -> Option<usize> {
        self.of_table(section, 0, key)
    }

    /// The line of a key in the table of this number, counted from 0.
    pub fn of_table(&self, section: &'static str, number: usize, key: &'static str) -> Option<usize> {
        self.0.get(&(section, number, key)).copied()
    }
}

/// What a file says.
#[derive(Debug)]
pub struct Reading {
    /// The values, defaults where the file has none or a wrong one.
    pub settings: Settings,
    /// Where they stand.
    pub lines: Lines,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The program whose file this text is: the one whose own section it has, or else a pool.
pub fn program_of(text: &str) -> Program {
    let (root, _) = DeTable::parse_recoverable(text);
    let has = |program: Program| root.get_ref().iter().any(|(key, _)| key.get_ref() == program.as_str());
    let others = Program::ALL.into_iter().filter(|program| *program != Program::Pool);
    others.into_iter().find(|program| has(*program) && !has(Program::Pool)).unwrap_or(Program::Pool)
}

/// Reads the text of a program's configuration file.
pub fn read(text: &str, program: Program) -> Reading {
    let mut reading =
        Reading { settings: Settings::default(), lines: Lines::default(), problems: Vec::new() };
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What comes after a syntax error is guesswork: only the syntax is reported.
        reading.problems.extend(errors.iter().take(PROBLEMS_MAX).map(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            Problem::at(line, format!("not TOML: {}", error.message()))
        }));
        return reading;
    }
    for (key, value) in root.get_ref() {
        let (name, line) = (key.get_ref().as_ref(), line_at(text, key.span().start));
        if reading.problems.len() >= PROBLEMS_MAX {
            break;
        }
        match (program.sections().find(|section| section.name == name), value.get_ref()) {
            (Some(section), DeValue::Table(table)) => {
                read_table(text, (program, section.name), 0, table, &mut reading);
            }
            (Some(section), DeValue::Array(tables)) if section.tables_max > 1 => {
                read_tables(text, (program, section), line, tables, &mut reading);
            }
            (Some(_), _) => {
                reading.problems.push(Problem::at(
                    line,
                    format!("{name} is a section: write [{name}] on a line of its own"),
                ));
            }
            (None, found) => {
                let wrong = unknown_at_top(program, name, found.is_table());
                reading.problems.push(Problem::at(line, wrong));
            }
        }
    }
    check_required(program, &mut reading);
    reading
}

/// Reads the tables of a section that may stand several times.
fn read_tables(
    text: &str,
    (program, section): (Program, &Section),
    line: usize,
    tables: &DeArray<'_>,
    reading: &mut Reading,
) {
    let name = section.name;
    if tables.is_empty() {
        reading
            .problems
            .push(Problem::at(line, format!("{name}: an empty list; leave it out, or write [[{name}]]")));
    }
    for (number, item) in tables.iter().enumerate() {
        let line = line_at(text, item.span().start);
        match item.get_ref() {
            DeValue::Table(_) if number >= section.tables_max => {
                let wrong =
                    format!("[[{name}]]: number {}, at most {} are taken", number + 1, section.tables_max);
                reading.problems.push(Problem::at(line, wrong));
                return;
            }
            DeValue::Table(table) => {
                (section.open)(&mut reading.settings, number);
                read_table(text, (program, name), number, table, reading);
            }
            _ => {
                let wrong = format!("{name} is a list of sections: write [[{name}]] on a line before each");
                reading.problems.push(Problem::at(line, wrong));
                return;
            }
        }
    }
}

fn read_table(
    text: &str,
    (program, section): (Program, &'static str),
    number: usize,
    table: &DeTable<'_>,
    reading: &mut Reading,
) {
    for (key, value) in table {
        if reading.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let (name, line) = (key.get_ref().as_ref(), line_at(text, key.span().start));
        let Some(field) = super::settings::field(section, name) else {
            reading.problems.push(Problem::at(line, unknown_key(program, section, name)));
            continue;
        };
        reading.lines.0.insert((field.section, number, field.key), line);
        let value = convert(value.get_ref());
        if let Err(wrong) =
            field.kind.check(&value).and_then(|()| (field.set)(&mut reading.settings, number, value.clone()))
        {
            reading
                .problems
                .push(Problem::at(line, format!("[{section}] {name} = {}: {wrong}", shown(field, &value))));
        }
    }
}

/// The value for a message; secrets are not repeated.
fn shown(field: &Field, value: &Value) -> String {
    const SHOWN_LEN_MAX: usize = 60;
    if matches!(field.kind, super::Kind::Secret { .. }) {
        return "(not shown)".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_LEN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn check_required(program: Program, reading: &mut Reading) {
    for field in program.fields() {
        if let Presence::Required(example) = field.presence
            && reading.lines.of(field.section, field.key).is_none()
        {
            reading.problems.push(Problem::missing(format!(
                "[{}] {} is missing, expected {}; for example {} = {example}",
                field.section, field.key, field.kind, field.key
            )));
        }
    }
}

fn convert(value: &DeValue<'_>) -> Value {
    let integer = |value: &DeValue<'_>| {
        value.as_integer().and_then(|digits| i64::from_str_radix(digits.as_str(), digits.radix()).ok())
    };
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(_) => {
            integer(value).map_or(Value::Other("a whole number beyond 64 bits"), Value::Integer)
        }
        DeValue::Float(digits) => digits.as_str().parse().map_or(Value::Other("a number"), Value::Number),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Table(_) => Value::Other("a table"),
        DeValue::Array(items) => items
            .iter()
            .map(|item| integer(item.get_ref()))
            .collect::<Option<_>>()
            .map_or(Value::Other("a list of other things"), Value::Integers),
    }
}

fn unknown_key(program: Program, section: &str, name: &str) -> String {
    let here = FIELDS.iter().filter(|field| field.section == section).map(|field| field.key);
    if let Some(near) = nearest(name, here) {
        return format!("[{section}] {name}: no such key; did you mean {near}?");
    }
    if let Some(field) = program.fields().find(|field| field.key == name) {
        return format!("[{section}] {name}: no such key here; it belongs in [{}]", field.section);
    }
    if let Some(near) = nearest(name, program.fields().map(|field| field.key))
        && let Some(field) = program.fields().find(|field| field.key == near)
    {
        return format!("[{section}] {name}: no such key; did you mean {near} in [{}]?", field.section);
    }
    let keys: Vec<_> =
        FIELDS.iter().filter(|field| field.section == section).map(|field| field.key).collect();
    format!("[{section}] {name}: no such key; [{section}] has {}", keys.join(", "))
}

fn unknown_at_top(program: Program, name: &str, is_table: bool) -> String {
    if !is_table {
        if let Some(field) = program.fields().find(|field| field.key == name) {
            return format!("{name} stands before any section; it belongs in [{}]", field.section);
        }
        if let Some(near) = nearest(name, program.fields().map(|field| field.key))
            && let Some(field) = program.fields().find(|field| field.key == near)
        {
            return format!("{name}: no such key; did you mean {near} in [{}]?", field.section);
        }
        return format!("{name}: no such key");
    }
    if let Some(section) = SECTIONS.iter().find(|section| section.name == name)
        && let Some(other) = section.programs.first()
    {
        return format!(
            "[{name}]: a section of `adit {}`, and this is a file of `adit {}`",
            other.as_str(),
            program.as_str()
        );
    }
    match nearest(name, program.sections().map(|section| section.name)) {
        Some(near) => format!("[{name}]: no such section; did you mean [{near}]?"),
        None => {
            let names: Vec<_> = program.sections().map(|section| format!("[{}]", section.name)).collect();
            format!("[{name}]: no such section; there are {}", names.join(", "))
        }
    }
}

/// The candidate that was most likely meant; none if all are far.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The line of a byte, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<(Option<usize>, String)> {
        read(text, Program::Pool)
            .problems
            .into_iter()
            .map(|problem| (problem.line, problem.message))
            .collect()
    }

    #[test]
    fn several_mistakes_are_found_at_once() {
        let found = messages("[pool]\npayout = \"raw(51)\"\nlisten = 3333\npool_tga = \"x\"\n[vardif]\n");
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines.len(), 3, "{found:?}");
        assert!(lines.contains(&Some(3)) && lines.contains(&Some(4)) && lines.contains(&Some(5)));
    }

    #[test]
    fn a_key_in_the_wrong_section_is_sent_home() {
        assert_eq!(
            messages("[pool]\npayout = \"raw(51)\"\nshares_per_minute = 6\n"),
            [(Some(3), "[pool] shares_per_minute: no such key here; it belongs in [vardiff]".to_owned())]
        );
        assert_eq!(
            messages("listen = \"x\"\n")[0].1,
            "listen stands before any section; it belongs in [pool]"
        );
    }

    #[test]
    fn each_program_has_its_own_sections() {
        assert_eq!(program_of("[tp]\nlisten = \"127.0.0.1:1\"\n"), Program::Tp);
        for text in ["[pool]\n", "", "[tp]\n[pool]\n", "[[["] {
            assert_eq!(program_of(text), Program::Pool, "{text}");
        }
        let text = "[pool]\npayout = \"raw(51)\"\n[tp]\nlisten = \"127.0.0.1:1\"\n";
        let found = messages(text);
        let wrong = "[tp]: a section of `adit tp`, and this is a file of `adit pool`".to_owned();
        assert_eq!(found, [(Some(3), wrong)]);
        let reading = read("[tp]\nlisten = \"127.0.0.1:1\"\n[clients]\nclients_max = 3\n", Program::Tp);
        assert_eq!(reading.problems, []);
        assert_eq!(reading.settings.clients.clients_max, 3);
        let wrong = read("[clients]\nshares_per_minute = 6\n", Program::Tp).problems;
        assert!(!wrong[0].message.contains("vardiff"), "{}", wrong[0].message);
    }

    #[test]
    fn secrets_are_not_repeated() {
        let long = "k".repeat(200);
        let found =
            messages(&format!("[pool]\npayout = \"raw(51)\"\n[authority]\nsecret_key = \"{long}\"\n"));
        assert!(found[0].1.contains("not shown") && !found[0].1.contains("kkk"), "{found:?}");
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in [
            "[",
            "[pool",
            "a = ",
            "[pool]\nlisten = \u{0}",
            "\u{feff}[pool]",
            "[[pool]]",
            "pool.listen = []",
            "a.b.c = 1",
        ] {
            assert!(!read(text, Program::Pool).problems.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn numbers_have_bases_and_underscores() {
        let text = "[pool]\npayout = \"raw(51)\"\nnode_id = 0xff\n[limits]\nconnections_max = 200_000\n";
        let reading = read(text, Program::Pool);
        assert_eq!(reading.problems, []);
        assert_eq!((reading.settings.pool.node_id, reading.settings.limits.connections_max), (255, 200_000));
    }
}
