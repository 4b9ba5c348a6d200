//! Judging the batch (specification 5.3.13, 5.3.14): hash, compare, answer.
//!
//! The block's target is looked at first: a block is reported whatever becomes of the share, and once. Then the target of the job
//! on its channel, then whether it is new. Errors are sent in order of arrival, then one success per channel. A channel
//! that was closed meanwhile gets its verdicts counted and nothing said.

use alloc::boxed::Box;
use core::hint::black_box;
use core::ops::{BitXor, Range};

use adit_codec::message::{SubmitSharesError, SubmitSharesSuccess};
use adit_hasher::{BatchHash, Digest, HeaderBytes};

use super::batch::{Account, Batch, Ticket};
use super::channel::{Channel, Channels, Kind};
use super::coinbase;
use super::duplicates::Inserted;
use super::event::{ConnectionId, Event, Solution};
use super::extranonce::PREFIX_LEN;
use super::slab::NONE;
use super::{Server, ServerOutbox, ShareError};
use crate::outbox::Priority;
use crate::time::Instant;

/// Shares whose channels and tables are read ahead together: more than a processor has reads under way, and few enough for its
/// first cache.
const JUDGED_TOGETHER: usize = 32;

/// Slots of all tables of shares up to which they are in a near cache anyway: half a megabyte.
const TABLES_NEAR: usize = 1 << 16;

/// Channels with a warm part up to which these and what stands beside them are in a near cache.
const CHANNELS_NEAR: u32 = 4_096;

/// Judges a share by its digest.
fn verdict(
    channels: &mut Channels,
    ticket: &Ticket,
    digest: &Digest,
    shares_max: u32,
) -> Result<(), ShareError> {
    if !ticket.target.target().is_met_by(digest) {
        return Err(ShareError::DifficultyTooLow);
    }
    match channels.insert_share(ticket.channel, digest, ticket.tip.number, shares_max) {
        Inserted::New => Ok(()),
        Inserted::Duplicate => Err(ShareError::Duplicate),
        Inserted::Full => Err(ShareError::TooManyShares),
    }
}

/// What a template source needs to make a block of a share.
fn solution(ticket: &Ticket, header: &HeaderBytes, digest: &Digest, user: &[u8], worker: &[u8]) -> Solution {
    let source = &ticket.source;
    let prefix = &source.coinbase(usize::from(ticket.size)).prefix;
    Solution {
        template_id: source.template.template_id,
        header: *header,
        digest: *digest,
        target: ticket.tip.prev_hash.target,
        coinbase_tx: coinbase::transaction(prefix, ticket.extranonce(), &source.suffix, source.witness),
        merkle_path: source.template.merkle_path.clone(),
        user_identity: user.into(),
        worker_identity: worker.into(),
    }
}

/// Parts of a unit in which a fraction of difficulty is carried.
const CARRIED_PARTS: f64 = (1_u64 << 32) as f64;

/// The whole part of a sum of difficulties; the rest is carried into the next, rounded down.
fn whole(carried: &mut u32, difficulty: f64) -> u64 {
    let sum = f64::from(*carried) / CARRIED_PARTS + difficulty;
    let whole = sum as u64;
    *carried = ((sum - whole as f64) * CARRIED_PARTS) as u32;
    whole
}

impl Server {
    /// Hashes the shares that have gathered, judges and answers them. The driver calls it once per tick.
    pub fn settle(&mut self, hashes: &impl BatchHash, now: Instant, out: &mut ServerOutbox) {
        if self.batch.len() == 0 {
            return;
        }
        let mut batch = core::mem::take(&mut self.batch);
        self.find_roots(&mut batch);
        batch.hash(hashes, |ticket, root| self.learn_root(ticket, root));
        for first in (0..batch.tickets.len()).step_by(JUDGED_TOGETHER) {
            let group = first..batch.tickets.len().min(first + JUDGED_TOGETHER);
            if self.channels.room().used() > TABLES_NEAR {
                self.look_ahead(&batch, group.clone());
            }
            for index in group {
                self.judge(&mut batch, index, now, out);
            }
        }
        for account in &batch.accounts {
            self.acknowledge(account, now, out);
        }
        // After every answer: a retarget may have to deliver jobs first.
        if self.config.vardiff.adjust {
            for group in batch.accounts.chunks(JUDGED_TOGETHER) {
                if self.channels.warm_len() > CHANNELS_NEAR {
                    let links = group.iter().map(|account| self.channel_timers.neighbours(account.channel));
                    black_box(links.fold(0, BitXor::bitxor));
                }
                for account in group {
                    let due = |channel: &&Channel| channel.vardiff.next_check(&self.config.vardiff) <= now;
                    if self.channels.get(account.channel).filter(due).is_some() {
                        self.retarget(account.channel, now, hashes, out);
                    }
                }
            }
        }
        batch.clear();
        self.batch = batch;
    }

    /// Gives headers the merkle roots that standard channels keep. Where many channels have something to keep, a group's are read
    /// first: see [`look_ahead`](Self::look_ahead).
    fn find_roots(&self, batch: &mut Batch) {
        for first in (0..batch.tickets.len()).step_by(JUDGED_TOGETHER) {
            let group = first..batch.tickets.len().min(first + JUDGED_TOGETHER);
            if self.channels.warm_len() > CHANNELS_NEAR {
                self.read_channels(&batch.tickets[group.clone()]);
            }
            for index in group {
                let ticket = &batch.tickets[index];
                // Only standard channels have prefixes that are the whole extranonce.
                let prefix = Some(ticket.extranonce()).filter(|prefix| prefix.len() == PREFIX_LEN);
                let root = prefix
                    .and_then(|prefix| self.channels.kept_root(ticket.channel, ticket.source.number, prefix));
                if let Some(root) = root {
                    batch.set_root(index, root);
                }
            }
        }
    }

    /// Reads what the verdicts of a group of shares will read first: the channels, then the places in their tables. Each share goes to
    /// another channel, whose table is in no cache, and nothing that the verdicts compute between two of them is worth the wait. Read
    /// in a row, the places do not depend on one another, and the processor fetches them side by side.
    fn look_ahead(&self, batch: &Batch, group: Range<usize>) {
        let (tickets, digests) = (&batch.tickets[group.clone()], &batch.digests[group]);
        self.read_channels(tickets);
        let shares = tickets.iter().zip(digests);
        let places = shares.map(|(ticket, digest)| self.channels.share_place(ticket.channel, digest));
        black_box(places.fold(0, BitXor::bitxor));
    }

    /// Reads the channels of a group of shares, and their warm parts.
    fn read_channels(&self, tickets: &[Ticket]) {
        let tables = tickets.iter().map(|ticket| self.channels.share_table_len(ticket.channel));
        black_box(tables.fold(0, BitXor::bitxor));
    }

    /// Keeps the merkle root of a standard channel's job: its next shares need but one hash each.
    fn learn_root(&mut self, ticket: &Ticket, root: &[u8; 32]) {
        let Some(channel) = self.channels.get(ticket.channel) else { return };
        if channel.kind() == Kind::Standard && channel.prefix == ticket.extranonce[..PREFIX_LEN] {
            self.channels.keep_root(ticket.channel, ticket.source.number, root);
        }
    }

    fn judge(&mut self, batch: &mut Batch, index: usize, now: Instant, out: &mut ServerOutbox) {
        let (ticket, digest) = (&batch.tickets[index], &batch.digests[index]);
        let verdict = verdict(&mut self.channels, ticket, digest, self.config.limits.shares_per_tip_max);
        // A duplicate was reported when it was new; a block that is refused as a share is known only as a block.
        if verdict != Err(ShareError::Duplicate)
            && ticket.tip.prev_hash.target.is_met_by(digest)
            && self.solved.insert(digest)
        {
            let user =
                self.channels.cold(ticket.channel).map_or(&[][..], |cold| cold.user_identity.as_bytes());
            let found = solution(ticket, &batch.headers[index], digest, user, batch.worker(ticket));
            self.counters.solutions += 1;
            out.report(Event::Solution(Box::new(found)));
        }
        match verdict {
            Ok(()) => {
                let difficulty = ticket.target.difficulty();
                self.counters.shares_accepted += 1;
                self.counters.difficulty_accepted += difficulty;
                let Some(channel) = self.channels.get_mut(ticket.channel) else { return };
                channel.vardiff.record(difficulty);
                let account = &mut batch.accounts[channel.account as usize];
                account.accepted += 1;
                account.last_sequence_number = ticket.sequence_number;
                account.difficulty += difficulty;
            }
            Err(error) => {
                let (channel, sequence_number) = (ticket.channel, ticket.sequence_number);
                self.send_share_error(channel, sequence_number, error, now, out);
            }
        }
    }

    fn send_share_error(
        &mut self,
        slot: u32,
        sequence_number: u32,
        error: ShareError,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.counters.shares_rejected[error as usize] += 1;
        let Some(channel) = self.channels.get(slot).filter(|channel| channel.open) else { return };
        let Some(id) = self.connection_at(channel.connection) else { return };
        let answer = SubmitSharesError {
            channel_id: channel.id.0,
            sequence_number,
            error_code: error.code().as_bytes(),
        };
        out.send(id, Priority::Reply, &answer);
        self.count_error(id, now, out);
    }

    /// Acknowledges what a tick has accepted, or lets it gather with what comes; frees the slot of a channel that was closed
    /// meanwhile.
    fn acknowledge(&mut self, account: &Account, now: Instant, out: &mut ServerOutbox) {
        let Some(channel) = self.channels.get_mut(account.channel) else { return };
        channel.account = NONE;
        if !channel.open {
            return self.remove_channel(account.channel);
        }
        if account.accepted == 0 {
            return;
        }
        if self.owed.is_at_once() {
            return self.send_success(account, out);
        }
        let Some(owed) = self.channels.owed_mut(account.channel) else { return };
        if let Some(sum) = self.owed.add(owed, account, now) {
            self.send_success(&sum, out);
        }
    }

    /// Acknowledges what a channel is owed, however little.
    pub(super) fn acknowledge_owed(&mut self, slot: u32, out: &mut ServerOutbox) {
        let Some(owed) = self.channels.owed_mut(slot) else { return };
        if let Some(sum) = self.owed.take(owed) {
            self.send_success(&sum, out);
        }
    }

    /// Acknowledges what a connection's channels are owed: it is about to end.
    pub fn acknowledge_connection(&mut self, id: ConnectionId, out: &mut ServerOutbox) {
        if self.owed.is_empty() {
            return;
        }
        let indices = self.connection(id).map_or(0, |connection| connection.directory.indices());
        for index in 0..indices {
            let slot = self.connection(id).and_then(|connection| connection.directory.slot_at(index));
            if let Some(slot) = slot {
                self.acknowledge_owed(slot, out);
            }
        }
    }

    /// Acknowledges what all channels are owed: no answer will be possible soon.
    pub fn acknowledge_all(&mut self, out: &mut ServerOutbox) {
        while let Some(slot) = self.owed.poll(Instant::from_nanos(u64::MAX)) {
            self.acknowledge_owed(slot, out);
        }
    }

    fn send_success(&mut self, sum: &Account, out: &mut ServerOutbox) {
        let Some(channel) = self.channels.get_mut(sum.channel).filter(|channel| channel.open) else { return };
        let answer = SubmitSharesSuccess {
            channel_id: channel.id.0,
            last_sequence_number: sum.last_sequence_number,
            new_submits_accepted_count: sum.accepted,
            new_shares_sum: whole(&mut channel.difficulty_carried, sum.difficulty),
        };
        let connection = channel.connection;
        if let Some(id) = self.connection_at(connection) {
            out.send(id, Priority::Reply, &answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn fractions_of_difficulty_are_carried() {
        let mut carried = 0;
        let sums: Vec<u64> = (0..10).map(|_| whole(&mut carried, 0.3)).collect();
        assert_eq!(sums.iter().sum::<u64>(), 2, "3.0 less a rounding error is not yet 3");
        assert!(sums.iter().all(|sum| *sum <= 1));
        assert_eq!(whole(&mut carried, 0.1), 1);
        assert_eq!(whole(&mut carried, 1e30), u64::MAX);
        assert_eq!(whole(&mut carried, 0.0), 0, "less than one is carried, whatever came before");
    }

    #[test]
    fn tiny_difficulties_add_up() {
        let mut carried = 0;
        let total: u64 = (0..1_000_000).map(|_| whole(&mut carried, 1e-5)).sum();
        assert!((9..=10).contains(&total));
    }
}
