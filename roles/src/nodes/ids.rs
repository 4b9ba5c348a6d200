//! The ids that sources give to templates.

use std::time::{SystemTime, UNIX_EPOCH};

/// Template ids: microseconds since 1970, pushed up where the clock does not rise. As ids are given out far slower than one
/// a microsecond, a restart goes on above what was given out before, unless the clock was set back meanwhile.
#[derive(Debug, Default)]
pub struct TemplateIds {
    last: u64,
}

impl TemplateIds {
    /// An id above all before.
    pub fn next_id(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(self.last + 1);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_also_within_a_microsecond_and_after_a_restart() {
        let mut ids = TemplateIds::default();
        let mut last = 0;
        for _ in 0..1_000 {
            let id = ids.next_id();
            assert!(id > last);
            last = id;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(TemplateIds::default().next_id() > last);
    }
}
