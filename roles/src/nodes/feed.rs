//! A source's stream of reports to whoever reads it.
//!
//! The source never waits for its reader: what the bounded channel does not take waits here, and when a tip comes, templates
//! and tips of its class that wait are dropped, as nobody can use them any more. What remains is bounded: at [`BACKLOG_MAX`] the oldest
//! report goes, which is counted and logged.

use std::collections::VecDeque;

use adit_proto::template::TemplateUpdate;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use crate::nodes::SourceUpdate;

/// Reports that the channel holds.
const CHANNEL_LEN: usize = 256;
/// Reports that wait beside the channel.
const BACKLOG_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Feed {
    sender: Sender<SourceUpdate>,
    backlog: VecDeque<SourceUpdate>,
    dropped: u64,
}

impl Feed {
    pub(super) fn new() -> (Self, Receiver<SourceUpdate>) {
        let (sender, receiver) = bounded(CHANNEL_LEN);
        (Self { sender, backlog: VecDeque::new(), dropped: 0 }, receiver)
    }

    /// Reports, after everything that waits.
    pub(super) fn report(&mut self, update: SourceUpdate) {
        if let SourceUpdate::Template { class: of, update: TemplateUpdate::SetNewPrevHash(tip), .. } = &update
        {
            // All but the template that this tip activates.
            let activated = tip.template_id;
            self.backlog.retain(|waiting| match waiting {
                SourceUpdate::Template { class, update, .. } if class == of => match update {
                    TemplateUpdate::NewTemplate(template) => template.template_id == activated,
                    TemplateUpdate::SetNewPrevHash(_) => false,
                },
                _ => true,
            });
        }
        if self.backlog.len() >= BACKLOG_MAX {
            self.backlog.pop_front();
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(dropped = self.dropped, "nobody reads the reports of the template source");
            }
        }
        self.backlog.push_back(update);
        self.flush();
    }

    /// Passes on what the channel takes.
    pub(super) fn flush(&mut self) {
        while let Some(update) = self.backlog.pop_front() {
            match self.sender.try_send(update) {
                Ok(()) => {}
                Err(TrySendError::Full(update)) => {
                    self.backlog.push_front(update);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => self.backlog.clear(),
            }
        }
    }

    /// Whether reports wait for the reader.
    pub(super) fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_hasher::{Digest, Target};
    use adit_proto::distribution::server::ClassId;
    use adit_proto::template::PrevHash;
    use std::sync::Arc;
    use std::time::Instant;

    fn tip(class: u64, template_id: u64) -> SourceUpdate {
        let tip =
            PrevHash { template_id, prev_hash: [0; 32], header_timestamp: 0, nbits: 0, target: Target::MAX };
        SourceUpdate::Template {
            class: ClassId(class),
            update: TemplateUpdate::SetNewPrevHash(Arc::new(tip)),
            learned: Instant::now(),
        }
    }

    #[test]
    fn a_slow_reader_gets_the_newest_tip_and_every_block() {
        let (mut feed, receiver) = Feed::new();
        let blocks = CHANNEL_LEN as u32 + 100;
        for height in 0..blocks {
            feed.report(SourceUpdate::BlockConnected { height, hash: Digest([0; 32]), reward_sat: None });
            feed.report(tip(height as u64 % 2, u64::from(height)));
        }
        assert!(feed.is_blocked());
        let mut heights = Vec::new();
        let mut last_tips = [0; 2];
        loop {
            for update in receiver.try_iter() {
                match update {
                    SourceUpdate::BlockConnected { height, .. } => heights.push(height),
                    SourceUpdate::Template { class, update: TemplateUpdate::SetNewPrevHash(tip), .. } => {
                        last_tips[class.0 as usize] = tip.template_id;
                    }
                    other => panic!("{other:?}"),
                }
            }
            if !feed.is_blocked() {
                break;
            }
            feed.flush();
        }
        assert_eq!(heights, (0..blocks).collect::<Vec<_>>());
        assert_eq!(last_tips.map(|id| u64::from(blocks) - id), [2, 1]);
    }

    #[test]
    fn the_backlog_is_bounded() {
        let (mut feed, _receiver) = Feed::new();
        for height in 0..(CHANNEL_LEN + BACKLOG_MAX + 50) as u32 {
            feed.report(SourceUpdate::BlockConnected { height, hash: Digest([0; 32]), reward_sat: None });
        }
        assert_eq!((feed.backlog.len(), feed.dropped), (BACKLOG_MAX, 50));
    }
}
