//! Which tests a source file has. A small scanner, not a parser: it blanks comments and literals, then reads attributes
//! and function names.

/// Comments, strings and characters as spaces, so that nothing in them is taken for code. Lines stay where they are.
pub(crate) fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            [b'/', b'*', ..] => end_of_comment(bytes, at),
            [b'r', b'"' | b'#', ..] if !is_word(bytes, at) => match end_of_raw_string(bytes, at) {
                Some(end) => end,
                None => at,
            },
            [b'"', ..] => end_of_string(bytes, at),
            [b'\'', b'\\', ..] => find(bytes, at + 3, b"'").map_or(bytes.len(), |quote| quote + 1),
            [b'\'', rest @ ..] => match char_len(rest) {
                Some(len) => at + len + 2,
                None => at,
            },
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// Whether the byte before `at` belongs to a word, so that `at` does not begin one.
fn is_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn find(bytes: &[u8], from: usize, pattern: &[u8]) -> Option<usize> {
    let from = from.min(bytes.len());
    bytes[from..].windows(pattern.len()).position(|window| window == pattern).map(|position| from + position)
}

fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn end_of_raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = start + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &vec![b'#'; hashes]].concat();
    Some(find(bytes, quote + 1, &end).map_or(bytes.len(), |at| at + end.len()))
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Bytes of the character before a closing quote; `None` for a lifetime.
fn char_len(rest: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(&rest[..rest.len().min(4)])
        .unwrap_or_else(|error| std::str::from_utf8(&rest[..error.valid_up_to()]).expect("valid up to here"));
    let len = text.chars().next()?.len_utf8();
    (rest.get(len) == Some(&b'\'')).then_some(len)
}

/// Why a file does not have a test that runs; `None` if it does. `source` is blanked.
pub(crate) fn fault(source: &str, function: &str) -> Option<&'static str> {
    let signature = format!("fn {function}(");
    let mut starts = source.match_indices(&signature).map(|(at, _)| at);
    let Some(at) = starts.next() else { return Some("there is no such function") };
    if starts.next().is_some() {
        return Some("there are two functions of this name");
    }
    let attributes = attributes_before(&source[..at]);
    if attributes.iter().any(|attribute| attribute.starts_with("ignore") || attribute.starts_with("cfg")) {
        return Some("it does not run everywhere: ignore or cfg");
    }
    (!attributes.contains(&"test")).then_some("it is no #[test]")
}

/// The attributes right before a function, without their brackets.
fn attributes_before(source: &str) -> Vec<&str> {
    let mut rest = source.trim_end();
    let mut attributes = Vec::new();
    while let Some(inner) = rest.strip_suffix(']') {
        let Some(start) = inner.rfind("#[") else { break };
        attributes.push(inner[start + 2..].trim());
        rest = rest[..start].trim_end();
    }
    attributes
}
