//! What the demo shows: lines that stay, and one status line that is redrawn on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where output is no terminal, the status is written this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The way to stdout. Errors are not reported: a reader that has gone has seen enough, and the demo may end.
pub(super) struct Screen<W: Write = io::Stdout> {
    out: W,
    is_terminal: bool,
    /// The status line that stands where the next line belongs; empty for none.
    shown: String,
    plain_due: Instant,
    has_failed: bool,
}

impl Screen {
    pub(super) fn stdout() -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self::new(out, is_terminal)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, is_terminal: bool) -> Self {
        let plain_due = Instant::now() + PLAIN_INTERVAL;
        Self { out, is_terminal, shown: String::new(), plain_due, has_failed: false }
    }

    /// Whether a person looks on.
    pub(super) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether what was written did not arrive: nobody looks on any more.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    fn write(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.has_failed |= written.is_err();
    }

    /// Writes a line that stays.
    pub(super) fn line(&mut self, text: &str) {
        self.clear();
        self.write(&format!("{text}\n"));
    }

    /// Shows the status in place of the last one. Cut to the narrowest usual terminal: a line that wraps cannot be redrawn.
    pub(super) fn status(&mut self, text: &str, now: Instant) {
        const WIDTH: usize = 79;
        if self.is_terminal {
            let cut: String = text.chars().take(WIDTH).collect();
            if cut != self.shown {
                self.write(&format!("\r\x1b[2K{cut}"));
                self.shown = cut;
            }
        } else if now >= self.plain_due {
            self.plain_due = now + PLAIN_INTERVAL;
            self.line(text);
        }
    }

    /// Takes the status line away.
    pub(super) fn clear(&mut self) {
        if !self.shown.is_empty() {
            self.write("\r\x1b[2K");
            self.shown.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_one_status_line() {
        let mut screen = Screen::new(Vec::new(), true);
        let now = Instant::now();
        screen.status("one", now);
        screen.status("two", now);
        screen.status("two", now);
        screen.line("block");
        screen.line("block");
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(text, "\r\x1b[2Kone\r\x1b[2Ktwo\r\x1b[2Kblock\nblock\n");
    }

    #[test]
    fn a_reader_that_has_gone_is_noticed() {
        let mut out = [0; 10];
        let mut screen = Screen::new(&mut out[..], false);
        screen.line("block");
        assert!(!screen.has_failed());
        screen.line("block");
        assert!(screen.has_failed());
    }

    #[test]
    fn a_file_gets_plain_lines_now_and_then() {
        let mut screen = Screen::new(Vec::new(), false);
        let start = Instant::now();
        for second in 0..25 {
            screen.status("status", start + Duration::from_secs(second));
        }
        assert_eq!(String::from_utf8(screen.out).unwrap(), "status\nstatus\n");
    }
}
