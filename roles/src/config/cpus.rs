//! Which CPUs this process may use, from `/proc/self/status`.

use super::setting::CPUS_LEN_MAX;

/// The CPUs that the process may use, in order.
///
/// # Errors
/// Why the system does not say.
pub fn allowed() -> Result<Vec<usize>, String> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("/proc/self/status: {error}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(parse)
        .ok_or_else(|| "/proc/self/status does not name the CPUs of this process".to_owned())
}

/// What `auto` takes: everything, but one CPU less for the node and the rest if there are more than two.
pub(super) fn automatic(mut allowed: Vec<usize>) -> Vec<usize> {
    if allowed.len() > 2 {
        allowed.remove(0);
    }
    allowed.truncate(CPUS_LEN_MAX);
    allowed
}

/// Reads a list such as `0-3,8,10-11`.
fn parse(list: &str) -> Option<Vec<usize>> {
    const CPUS_MAX: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("\t0-2,8,10-11\n"), Some(vec![0, 1, 2, 8, 10, 11]));
        for wrong in ["", "x", "3-1", "0-99999999", "1,,2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(!allowed().unwrap().is_empty());
    }

    #[test]
    fn one_is_left_to_the_rest() {
        assert_eq!(automatic(vec![4]), [4]);
        assert_eq!(automatic(vec![0, 1]), [0, 1]);
        assert_eq!(automatic(vec![0, 1, 2, 3]), [1, 2, 3]);
    }
}
